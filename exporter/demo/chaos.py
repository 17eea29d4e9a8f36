"""Chaos: kills a part of TransferQueue with SIGKILL at random times."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Chaos", "Part", "kill"]


@dataclass(frozen=True)
class Part:
    """One actor of TransferQueue: its name and its process."""

    name: str
    pid: int
    is_controller: bool


class Chaos:
    """Decides when to kill which part: the controller and a storage unit in turn.

    Args:
        rng: Source of randomness.
        mean_s: Mean seconds from :meth:`calm` to the next kill.
    """

    def __init__(self, rng: random.Random, mean_s: float) -> None:
        self._rng = rng
        self._mean_s = mean_s
        self._due: float | None = None
        self._controller_next = True

    def calm(self, now: float) -> None:
        """Allow the next kill: the exporter sees the data plane up at *now* (monotonic seconds)."""
        self._due = now + self._mean_s * self._rng.uniform(0.75, 1.25)

    def victim(self, parts: Sequence[Part], now: float) -> Part | None:
        """Return the part to kill at *now*, None when it is not yet time."""
        if self._due is None or now < self._due:
            return None
        self._due = None
        candidates = [part for part in parts if part.is_controller == self._controller_next]
        self._controller_next = not self._controller_next
        return self._rng.choice(candidates) if candidates else None


def kill(part: Part) -> None:
    """SIGKILL the process of *part*, as the kernel's out-of-memory killer would."""
    os.kill(part.pid, signal.SIGKILL)
