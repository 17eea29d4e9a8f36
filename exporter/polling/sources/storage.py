"""The source ``storage``: what each storage unit reports, or why it does not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from typing import Final, TypeVar

from opentelemetry.trace import Tracer

from dataplane.adapters.wire import UnitRequests
from dataplane.discovery.record import StorageUnitEndpoint
from dataplane.errors import DataPlaneError, error_type
from exporter.clock import Clock
from exporter.config import Config
from exporter.model.results import Failed, Result, StoragePoll
from exporter.model.state import State
from exporter.model.storage import OTHER_OPERATION, STORAGE_OPERATIONS, StorageRequests, StorageState
from exporter.polling.readers import StorageReader
from exporter.polling.sources.base import Next, Source

__all__ = ["StorageSource"]

logger = logging.getLogger(__name__)

_AT_A_TIME: Final = 16

N = TypeVar("N", int, float)


class StorageSource(Source[StoragePoll]):
    """Asks every storage unit for its figures. One that fails does not hide the others.

    Args:
        units: The storage units that discovery found, each with a reader that has a deadline of its own.
        config: The interval.
        tracer: Makes the spans.
        clock: Measures durations.
        left_out: How many further units there are that are not asked.
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
        left_out: int = 0,
    ) -> None:
        super().__init__(tracer=tracer, clock=clock)
        self._units = tuple(units)
        self._left_out = left_out
        self.interval_s = config.storage.interval
        self.slow_s = config.storage.timeout / 2

    def _ask(self) -> StoragePoll:
        """Ask all units, 16 at a time, so that units that hang do not delay the others.

        Every 16 units that hang lengthen the poll by one deadline.
        """
        answers: list[StorageState] = []
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
        return StoragePoll(tuple(sorted(answers, key=lambda answer: answer.index)))

    def fold(self, result: Result[StoragePoll], state: State) -> Next:
        """See :meth:`Source.fold`: the units' figures; one that did not answer keeps none, only the reason."""
        state.storage_polled(() if isinstance(result, Failed) else result.value.units)
        keys = [unit.keys for unit in state.storage if unit.keys is not None]
        complete = keys and len(keys) == len(state.storage) and not self._left_out
        state.unlisted.storage_read(sum(keys) if complete else None)
        state.estimates.storage_read(sum(keys) if complete else None)
        failures = [
            Failed(self.operation, unit.error_type, unit.detail, result.took)
            for unit in state.storage
            if unit.error_type is not None
        ]
        if failures:
            state.finish_with_failures(self.name, failures, result.took)
        else:
            state.finish(self.name, result)
            if self._left_out and not isinstance(result, Failed):
                state.health.explain(self.name, f"{self._left_out} storage units are left out")
        return Next(self.interval_s, facts={"storage_units": len(state.storage), "keys": sum(keys)})

    def _ask_unit(self, unit: StorageUnitEndpoint, reader: StorageReader) -> StorageState:
        try:
            with self._call():
                metrics = reader.read()
        except Exception as error:
            if not isinstance(error, DataPlaneError):
                logger.exception("asking storage unit %d failed with an unexpected error", unit.index)
            detail = f"storage unit {unit.index}: {error}"
            return StorageState(unit.index, unit.id, error_type=error_type(error), detail=detail)
        return StorageState(
            unit.index,
            unit.id,
            metrics.capacity,
            metrics.keys,
            metrics.memory_bytes,
            requests=_by_operation(metrics.requests),
            ssd_bytes=metrics.ssd_bytes,
            ssd_values=metrics.ssd_values,
            ssd_fallbacks=metrics.ssd_fallbacks,
            accept_queue_peak_ratio=metrics.accept_queue_peak_ratio,
            socket_drops=metrics.socket_drops,
        )


def _by_operation(requests: Mapping[str, UnitRequests]) -> tuple[StorageRequests, ...]:
    """Return the requests by declared operation, all further operations summed as ``other``."""
    found: dict[str, StorageRequests] = {}
    for name, one in requests.items():
        operation = name if name in STORAGE_OPERATIONS else OTHER_OPERATION
        so_far = found.get(operation, StorageRequests(operation))
        found[operation] = StorageRequests(
            operation,
            _sum(so_far.arrived, one.arrived),
            _sum(so_far.completed, one.completed),
            _sum(so_far.duration, one.duration),
        )
    return tuple(found[operation] for operation in STORAGE_OPERATIONS if operation in found)


def _sum(one: N | None, other: N | None) -> N | None:
    """Return the sum of what is known, None when nothing is."""
    return other if one is None else one if other is None else one + other
