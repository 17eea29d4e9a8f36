"""The source ``storage``: capacity, keys and memory of the storage units."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextvars import copy_context
from typing import Final

from opentelemetry.trace import Tracer

from dataplane.discovery.record import StorageUnitEndpoint
from dataplane.errors import DataPlaneError, error_type
from exporter.clock import Clock
from exporter.config import Config
from exporter.model.results import Failed, Result, StorageFailure, StoragePoll
from exporter.model.snapshot import StorageState
from exporter.model.state import State
from exporter.polling.readers import StorageReader
from exporter.polling.sources.base import Next, Source

__all__ = ["StorageSource"]

logger = logging.getLogger(__name__)

_AT_A_TIME: Final = 16


class StorageSource(Source[StoragePoll]):
    """Asks every storage unit for its figures. One that fails does not hide the others.

    Args:
        units: The storage units that discovery found, each with a reader that has a deadline of its own.
        config: The interval.
        tracer: Makes the spans.
        clock: Measures durations.
    """

    name = "storage"
    operation = "storage_metrics"

    def __init__(
        self,
        units: Sequence[tuple[StorageUnitEndpoint, StorageReader]],
        config: Config,
        *,
        tracer: Tracer,
        clock: Clock,
    ) -> None:
        super().__init__(tracer=tracer, clock=clock)
        self._units = tuple(units)
        self.interval_s = config.storage.interval

    def _ask(self) -> StoragePoll:
        """Ask all units, 16 at a time, so that units that hang do not delay the others.

        Every 16 units that hang lengthen the poll by one deadline.
        """
        answers: list[StorageState | StorageFailure] = []
        remaining = iter(self._units)
        lock = threading.Lock()
        context = copy_context()

        def ask_some() -> None:
            while True:
                with lock:
                    unit = next(remaining, None)
                if unit is None:
                    return
                answer = self._ask_unit(*unit)
                with lock:
                    answers.append(answer)

        threads = [
            threading.Thread(target=context.copy().run, args=(ask_some,), name="tq-exporter-storage-unit", daemon=True)
            for _ in range(min(len(self._units), _AT_A_TIME))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        answers.sort(key=lambda answer: answer.index)
        return StoragePoll(
            tuple(answer for answer in answers if isinstance(answer, StorageState)),
            tuple(answer for answer in answers if isinstance(answer, StorageFailure)),
        )

    def fold(self, result: Result[StoragePoll], state: State) -> Next:
        """See :meth:`Source.fold`: the figures of the units that answered; the others are dropped at once."""
        if isinstance(result, Failed):
            state.storage = ()
            state.finish(self.name, result)
        elif result.value.failures:
            state.storage = result.value.units
            failures = [
                Failed(self.operation, failure.error_type, failure.detail, result.took)
                for failure in result.value.failures
            ]
            state.finish_with_failures(self.name, failures, result.took)
        else:
            state.storage = result.value.units
            state.finish(self.name, result)
        return Next(self.interval_s)

    def _ask_unit(self, unit: StorageUnitEndpoint, reader: StorageReader) -> StorageState | StorageFailure:
        try:
            with self._call():
                metrics = reader.read()
        except Exception as error:
            if not isinstance(error, DataPlaneError):
                logger.exception("asking storage unit %d failed with an unexpected error", unit.index)
            return StorageFailure(unit.index, error_type(error), f"storage unit {unit.index}: {error}")
        return StorageState(unit.index, unit.id, metrics.capacity, metrics.keys, metrics.memory_bytes)
