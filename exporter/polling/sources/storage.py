"""How full are the storage units?"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextvars import copy_context

from opentelemetry.trace import Tracer

from dataplane.discovery.record import StorageUnitEndpoint
from dataplane.errors import DataPlaneError, error_type
from exporter.clock import Clock
from exporter.model.results import Result, StorageFailure, StoragePoll
from exporter.model.snapshot import StorageState
from exporter.polling.readers import StorageReader
from exporter.polling.sources.base import call_span, poll

__all__ = ["StorageSource"]

logger = logging.getLogger(__name__)

_AT_A_TIME = 16


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
        """Ask once. Raises nothing; units that hang cost their deadline for every 16 of them."""
        return poll("storage", "storage_metrics", self._round, tracer=self._tracer, clock=self._clock)

    def _round(self) -> StoragePoll:
        """Ask all units, several at a time: those that hang must not keep the figures of the others waiting."""
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
                answer = self._ask(*unit)
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

    def _ask(self, unit: StorageUnitEndpoint, reader: StorageReader) -> StorageState | StorageFailure:
        try:
            with call_span(self._tracer, "storage_metrics"):
                metrics = reader.read()
        except Exception as error:
            if not isinstance(error, DataPlaneError):
                logger.exception("asking storage unit %d failed in a way that it should not", unit.index)
            return StorageFailure(unit.index, error_type(error), f"storage unit {unit.index}: {error}")
        return StorageState(unit.index, unit.id, metrics.capacity, metrics.keys, metrics.memory_bytes)
