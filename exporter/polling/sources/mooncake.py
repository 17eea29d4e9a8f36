"""The source ``storage`` where the storage is Mooncake: its segments and objects, as the master tells."""

from __future__ import annotations

from typing import Protocol

from opentelemetry.trace import Tracer

from dataplane.errors import DataPlaneError, error_type
from exporter.clock import Clock
from exporter.config import Config
from exporter.model.results import Failed, Result, StoragePoll
from exporter.model.segments import Segments
from exporter.model.state import State
from exporter.model.storage import SegmentFigures, StoreState
from exporter.polling.sources.base import Next, Source

__all__ = ["MooncakeSource"]


class _Reader(Protocol):
    def read(self) -> tuple[dict[str, SegmentFigures], StoreState]: ...


class MooncakeSource(Source[StoragePoll]):
    """Asks the master for its metrics. Its segments are the storage units; without the master none answers.

    Args:
        reader: The reader to ask.
        config: The interval.
        tracer: Makes the spans.
        clock: Measures durations.
    """

    # Takes the place of StorageSource: a data plane has either storage units or a master, never both.
    name = "storage"
    operation = "storage_metrics"

    def __init__(self, reader: _Reader, config: Config, *, tracer: Tracer, clock: Clock) -> None:
        super().__init__(tracer=tracer, clock=clock)
        self._reader = reader
        self.interval_s = config.storage.interval
        self.slow_s = config.storage.timeout / 2
        self._segments = Segments(clock)

    def _ask(self) -> StoragePoll:
        try:
            with self._call():
                segments, store = self._reader.read()
        except DataPlaneError as error:
            units = self._segments.unanswered(error_type(error), str(error))
            if not units:
                raise
            return StoragePoll(units)
        return StoragePoll(self._segments.listed(segments), store)

    def fold(self, result: Result[StoragePoll], state: State) -> Next:
        """See :meth:`Source.fold`: the segments' figures; one that has left keeps none, only the reason."""
        if isinstance(result, Failed):
            state.storage_polled(())
            state.finish(self.name, result)
            return Next(self.interval_s)
        units, store = result.value.units, result.value.store
        state.storage_polled(units, store)
        lost = {
            (unit.error_type, unit.detail): Failed(self.operation, unit.error_type, unit.detail, result.took)
            for unit in units
            if unit.error_type is not None
        }
        if lost:
            state.finish_with_failures(self.name, list(lost.values()), result.took)
        else:
            state.finish(self.name, result)
        return Next(self.interval_s, facts={"storage_units": len(units), "objects": (store and store.objects) or 0})
