"""Every call of a client and its outcome, for the adapter's half of the fault matrix."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dataplane.errors import DataPlaneError
from dataplane.interfaces import DataPlaneClient, KVBatchMeta
from tests.contract.rows import rows

__all__ = ["CALLS", "HANG_S", "LOCAL", "METADATA", "STORAGE", "Outcome", "load", "outcome_of", "outcomes_of"]

HANG_S: Final = 60.0
"""A call that takes longer hangs. Far above every deadline here, on any machine."""

# Four rows written one after the other are spread over both storage units.
_KEYS = {name: [f"{name}{index}" for index in range(4)] for name in ("read", "clear", "pop", "evict")}
_PARTITION = "p"

CALLS: Final[Mapping[str, Callable[[DataPlaneClient], Any]]] = {
    "ping": lambda c: c.ping(),
    "list_partitions": lambda c: c.list_partitions(),
    "list_metadata": lambda c: c.list_metadata(_PARTITION),
    "list_sample_ids": lambda c: c.list_sample_ids(_PARTITION),
    "depth": lambda c: c.depth(_PARTITION),
    "register_partition": lambda c: c.register_partition("registered", ["tokens"], 4, ["train"]),
    "claim_meta": lambda c: c.claim_meta(_PARTITION, "train", ["tokens"], 1, blocking=False),
    "check_consumption_status": lambda c: c.check_consumption_status(_PARTITION, ["train"]),
    "get_data": lambda c: c.get_data(KVBatchMeta(_PARTITION, "train", _KEYS["read"], ["tokens"])),
    "get_samples": lambda c: c.get_samples(_KEYS["read"], _PARTITION, ["tokens"]),
    "put_samples": lambda c: c.put_samples(_KEYS["read"], _PARTITION, rows(4)),
    "clear_samples": lambda c: c.clear_samples(_KEYS["clear"], _PARTITION),
    "pop": lambda c: c.pop(_KEYS["pop"], _PARTITION),
    "evict": lambda c: c.evict(_KEYS["evict"], _PARTITION),
    "get_capabilities": lambda c: c.get_capabilities(),
}
"""Each operation as one call on the rows that :func:`load` wrote, without checkpoints, whose deadline is 10 minutes."""

STORAGE: Final = ("get_data", "get_samples", "put_samples", "clear_samples", "pop", "evict")
"""Calls that need the storage units too."""
LOCAL: Final = ("get_capabilities",)
"""Calls that send no request."""
METADATA: Final = tuple(name for name in CALLS if name not in STORAGE + LOCAL)
"""Calls that need the controller alone."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one call: the error's class name, ``ok`` or ``hangs``; its message; its duration."""

    kind: str
    message: str = ""
    seconds: float = 0.0


def load(client: DataPlaneClient) -> None:
    """Write the rows that the calls read and clear."""
    for keys in _KEYS.values():
        client.put_samples(keys, _PARTITION, rows(len(keys)))


def outcome_of(call: Callable[[], Any], operation: str) -> Outcome:
    """Run *call* and return its outcome, even when it never ends."""
    ended: list[Outcome] = []
    started = time.monotonic()

    def run() -> None:
        kind, message = "ok", ""
        try:
            call()
        except DataPlaneError as error:
            kind, message = type(error).__name__, str(error)
            if error.operation != operation:
                kind += f" of {error.operation}"
        except BaseException as error:
            kind, message = f"raw {type(error).__module__}.{type(error).__name__}", str(error)
        ended.append(Outcome(kind, message, time.monotonic() - started))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(HANG_S)
    return ended[0] if ended else Outcome("hangs", seconds=HANG_S)


def outcomes_of(client: DataPlaneClient, operations: tuple[str, ...]) -> dict[str, Outcome]:
    """Make the calls of *operations* one after the other."""
    return {name: outcome_of(lambda name=name: CALLS[name](client), name) for name in operations}  # type: ignore[misc]
