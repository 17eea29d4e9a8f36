"""How often each partition may be listed, so that the controller spends no more than its share on this exporter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from dataplane.partitions import bounded_label
from exporter.polling.work import plausible_s

__all__ = ["HELD_INTERVAL_S", "MAX_STRETCH", "SMALL_ROWS", "Budget"]

HELD_INTERVAL_S: Final = 300.0
"""Shortest time between two listings of a partition whose listing took the controller too long, in seconds."""

SMALL_ROWS: Final = 1_000
"""A partition with fewer rows is small: what makes its listing seem slow is not the partition."""

MAX_STRETCH: Final = 3
"""Partitions are named, and small ones listed, at least every so many intervals."""


@dataclass(slots=True)
class _Charge:
    """The last listing of a partition: rows (None when it failed), cost, time, and whether it was a stall."""

    rows: int | None
    controller_s: float
    at: float
    slow: bool
    hold_s: float | None

    @property
    def waits(self) -> bool:
        """Whether it sits rounds out when the share requires that."""
        return self.hold_s is None and not (self.rows is not None and self.rows < SMALL_ROWS)


class Budget:
    """Limits the time that the controller spends on the exporter. Not thread-safe.

    A round lists all partitions that are not held back. If the share does not allow one every interval, rounds are
    made less often, up to :data:`MAX_STRETCH` intervals. Beyond that, partitions that are not small are skipped in
    some rounds.

    Args:
        interval_s: The configured interval between metadata polls.
        max_share: The share of its time that the controller may spend on them, 0..1.
        max_stall_s: Seconds that the controller may spend on one listing.
    """

    def __init__(self, interval_s: float, max_share: float, max_stall_s: float) -> None:
        self._interval_s = interval_s
        self._max_share = max_share
        self._max_stall_s = max_stall_s
        self._charges: dict[str, _Charge] = {}
        self._spent_s = 0.0
        self._round_s = interval_s
        self._every = 1  # the partitions that are not small are listed in every so many rounds

    def charge(
        self, partition: str, controller_s: float, now: float, rows: int | None = None, *, grown: bool = False
    ) -> float | None:
        """Record the controller's time for a listing.

        Args:
            partition: Its name.
            controller_s: The time. For a listing that was not answered this is how long we waited.
            now: Monotonic time.
            rows: How many rows were listed, None when the listing failed.
            grown: Whether it failed because of its size: then it may have been small, and no longer is.

        Returns:
            Seconds for which the partition is held back because of its own cost, None when it is not.
        """
        last = self._charges.get(partition)
        known = last.rows if rows is None and last is not None and not grown else rows
        small = known is not None and known < SMALL_ROWS
        if known is not None and small:
            controller_s = min(controller_s, plausible_s(known))
        slow, hold_s = controller_s > self._max_stall_s, None
        # One slow listing after a fast one is more likely a moment of the machine than the partition.
        if slow and (rows is None or last is None or last.slow):
            hold_s = max(HELD_INTERVAL_S, controller_s / self._max_share)
            if small:
                hold_s = min(hold_s, MAX_STRETCH * self._interval_s)
        self._charges[partition] = _Charge(rows, controller_s, now, slow, hold_s)
        return hold_s

    def add(self, partition: str, controller_s: float) -> None:
        """Add what the controller spent on a partition that was just charged, beside its listing."""
        charge = self._charges.get(partition)
        if charge is not None:
            charge.controller_s += controller_s

    def interval_s(self, beside_s: float) -> float:
        """Return the seconds from one round to the next, after the listings of a round were charged.

        Partitions that are held back because of their own cost do not count: they have longer intervals of their own.

        Args:
            beside_s: What the controller spent on the round beside the listings.
        """
        small_s, others_s = beside_s, 0.0
        for charge in self._charges.values():
            if charge.waits:
                others_s += charge.controller_s
            elif charge.hold_s is None:
                small_s += charge.controller_s
        self._spent_s = small_s + others_s
        longest_s = MAX_STRETCH * self._interval_s
        left_s = longest_s * self._max_share - small_s
        if left_s <= 0:  # the small ones alone take more than the share
            left_s = longest_s * self._max_share
        self._every = max(1, math.ceil(others_s / left_s - 1e-9))
        round_s = (small_s + others_s / self._every) / self._max_share
        self._round_s = min(max(self._interval_s, round_s), longest_s)
        return self._round_s

    @property
    def longest_s(self) -> float:
        """The seconds between two listings of the partitions that are listed least often, those held back excluded."""
        return self._round_s * self._every

    def listed_every(self, partition: str) -> float:
        """Return the seconds between two listings of a partition, after :meth:`interval_s`."""
        charge = self._charges.get(partition)
        if charge is None:
            return self._round_s
        if charge.hold_s is not None:
            return charge.hold_s
        return self._round_s * (self._every if charge.waits else 1)

    def answered(self, partition: str) -> bool:
        """Return whether the last listing of a partition succeeded."""
        charge = self._charges.get(partition)
        return charge is not None and charge.rows is not None

    def held(self, now: float) -> frozenset[str]:
        """Return the partitions that must not be listed in a round that begins now."""
        return frozenset(name for name, charge in self._charges.items() if now < self._due(name, charge))

    def stalls(self, partition: str) -> bool:
        """Return whether a partition is held back because of its own cost."""
        charge = self._charges.get(partition)
        return charge is not None and charge.hold_s is not None

    def retain(self, partitions: frozenset[str]) -> None:
        """Forget partitions that are gone."""
        self._charges = {name: charge for name, charge in self._charges.items() if name in partitions}

    def explain(self) -> str:
        """Return why partitions are listed less often than configured, empty when they are not."""
        reasons = []
        share = f"to stay within max_controller_share ({self._max_share:.2%})"
        if self._round_s > self._interval_s:
            reasons.append(
                f"listing takes {self._spent_s:.3g} s of the controller's time; partitions are listed every "
                f"{self._round_s:.3g} s {share}"
            )
        if self._every > 1:
            reasons.append(
                f"those with {SMALL_ROWS} rows or more are listed every {self._every * self._round_s:.3g} s {share}"
            )
        for partition, charge in sorted(self._charges.items()):
            if charge.hold_s is not None:
                reasons.append(
                    f"listing partition {bounded_label(partition)!r} took {charge.controller_s:.3g} s of the "
                    f"controller's time (max_controller_stall is {self._max_stall_s:.3g} s); it is listed every "
                    f"{charge.hold_s:.0f} s"
                )
        return "; ".join(reasons)

    def _due(self, partition: str, charge: _Charge) -> float:
        if charge.hold_s is not None:
            return charge.at + charge.hold_s
        # A round begins a moment earlier or later than it is due; half of one decides which it is.
        return charge.at + (self._round_s * (self._every - 0.5) if charge.waits and self._every > 1 else 0.0)
