"""How full are the storage units?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from opentelemetry.trace import Tracer

from dataplane.endpoint import StorageUnitEndpoint
from dataplane.errors import DataPlaneError, error_type
from exporter.clock import Clock
from exporter.connection import StorageReader
from exporter.snapshot import Result, StorageState
from exporter.sources.polling import call_span, poll

__all__ = ["StorageFailure", "StoragePoll", "StorageSource"]


@dataclass(frozen=True, slots=True)
class StorageFailure:
    """A storage unit that did not answer."""

    index: int
    error_type: str
    detail: str


@dataclass(frozen=True, slots=True)
class StoragePoll:
    """One round over the storage units: those that answered and those that did not."""

    units: tuple[StorageState, ...]
    failures: tuple[StorageFailure, ...]


class StorageSource:
    """Asks every storage unit for its figures. One that fails does not hide the others.

    Args:
        units: The storage units that discovery found, each with a reader that has a deadline of its own.
        tracer: Makes the spans.
        clock: Measures durations.
    """

    def __init__(
        self,
        units: Sequence[tuple[StorageUnitEndpoint, StorageReader]],
        *,
        tracer: Tracer,
        clock: Clock,
    ) -> None:
        self._units = tuple(units)
        self._tracer = tracer
        self._clock = clock

    def poll(self) -> Result[StoragePoll]:
        """Ask once. Blocks for the deadline at most; raises nothing."""
        return poll("storage", "storage_metrics", self._round, tracer=self._tracer, clock=self._clock)

    def _round(self) -> StoragePoll:
        answered: list[StorageState] = []
        failures: list[StorageFailure] = []
        for unit, reader in self._units:
            try:
                with call_span(self._tracer, "storage_metrics"):
                    metrics = reader.read()
            except DataPlaneError as error:
                failures.append(StorageFailure(unit.index, error_type(error), f"storage unit {unit.index}: {error}"))
                continue
            answered.append(StorageState(unit.index, unit.id, metrics.capacity, metrics.keys, metrics.memory_bytes))
        return StoragePoll(tuple(answered), tuple(failures))
