"""The instrumented client: wrap any data plane client in one line and see every call.

    client = MetricsDataPlaneClient(client)

Each call becomes a span, a duration, counts of keys and bytes by direction and, when it fails, an error with a
typed ``error.type``; see :mod:`dataplane.metrics` for the metrics. They go to the OpenTelemetry providers that the
process has configured. The wrapper configures none: without an SDK a call costs a few microseconds more, and
:meth:`MetricsDataPlaneClient.snapshot` and the event callback still work.

Observation never changes a call: its result or exception is the wrapped client's own, whatever telemetry does.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from types import CoroutineType
from typing import Any, TypeVar, cast

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from dataplane.environment import PUBLISH_COUNTS_VARIABLE, switch
from dataplane.errors import DataPlaneBadRequest
from dataplane.interfaces import PUBLISHED_VERSION_KEY, RESERVED_PARTITION, DataPlaneClient
from dataplane.observability.call import Call, Event
from dataplane.observability.effects import trainer_version
from dataplane.observability.publisher import CountsPublisher, counts_of
from dataplane.observability.recorder import CallRecorder, Observer
from dataplane.observability.steps import step_metrics
from dataplane.observability.tally import Cell, cell_summary
from dataplane.operations import OPERATIONS, Operation
from dataplane.tags import MAX_EXACT_INT

__all__ = ["MetricsDataPlaneClient", "log_event"]

_logger = logging.getLogger(__name__)
_Method = TypeVar("_Method", bound=Callable[..., Any])


class _Observed:
    """A method of the wrapper. It exists when the wrapped object has it, and takes that method's own parameters."""

    def __init__(self, name: str, declared: Callable[..., Any] | None = None) -> None:
        self.operation = OPERATIONS[name]
        self.__name__ = name
        if declared is not None:
            self.__doc__ = declared.__doc__
            self.__wrapped__ = declared

    def __get__(self, client: MetricsDataPlaneClient | None, owner: type | None = None) -> Callable[..., Any]:
        if client is None:
            return self
        getattr(client._inner, self.__name__)
        observed = partial(client._call, client._recorder, client._inner, self.operation)
        if getattr(type(client), self.__name__) is self:  # not so when the method of a subclass calls this one
            client.__dict__[self.__name__] = observed  # from now on it is found there, without this descriptor
        return observed

    def __call__(self, client: MetricsDataPlaneClient, *args: Any, **kwargs: Any) -> Any:
        return self.__get__(client)(*args, **kwargs)


def _observed(declared: _Method) -> _Method:
    return cast(_Method, _Observed(declared.__name__, declared))


class MetricsDataPlaneClient(DataPlaneClient):
    """Observes every call of *inner* and otherwise behaves as *inner* does.

    *inner* is any object with methods of :class:`~dataplane.interfaces.DataPlaneClient`, ours or a framework's
    own. Arguments reach it as they were given, its exceptions reach the caller as they were raised, a method or
    attribute that it lacks raises AttributeError. Its coroutine functions are observed until they are done.

    Thread-safe. Pickles when *inner* and *on_event* do; the copy counts from zero and uses the global providers of
    the process that it arrives in. In a forked child all counts start from zero.

    A call that *inner* makes through another wrapper belongs to the outer call: the inner wrapper calls its
    ``on_event`` and counts in its snapshot, and emits no metrics and spans.

    Args:
        inner: The client to observe.
        on_event: Called after each call, in the caller's thread, with a dict of ``op`` (register, claim_meta,
            get_data, check_consumption_status, put, get, clear, ping, list_partitions, list_metadata, list_sample_ids,
            depth, pop, evict, save_checkpoint, load_checkpoint, get_capabilities, close), ``partition_id`` (a string,
            or None where the call has none), ``n_keys``, ``n_bytes``, ``wall_ms``, ``status`` (``ok``, ``error``,
            ``timeout`` or ``cancelled``) and ``error_type`` (None unless it is an error or a timeout). An exception
            that it raises is logged once and counted.
        meter_provider: Where the metrics go instead of the global provider.
        tracer_provider: Where the spans go instead of the global provider.
        propagate: Whether a put adds its span as a ``traceparent`` to a copy of each tag, so that the spans of
            whoever claims, reads or clears those keys link to it, in this process or another. A put that tells no
            version of keys that this client knows leaves their producer's span in place.
        spans: Whether calls make spans. False where another instrumentation, such as a framework's own, makes one for
            each of them. None for the environment variable ``TQ_EXPORTER_SPANS``, else yes.
        publish_counts: Whether to publish how many keys this client has put and cleared, for an exporter that lists a
            large partition rarely: one row in the reserved partition, written by a thread of its own every 10 to 30 s,
            removed by :meth:`close`. *inner* must be thread-safe. None for the environment variable
            ``TQ_EXPORTER_PUBLISH_COUNTS``, else no.
    """

    def __init__(
        self,
        inner: Any,
        on_event: Observer | None = None,
        *,
        meter_provider: MeterProvider | None = None,
        tracer_provider: TracerProvider | None = None,
        propagate: bool = False,
        spans: bool | None = None,
        publish_counts: bool | None = None,
    ) -> None:
        self._inner = inner
        self._recorder = CallRecorder(
            on_event,
            meter_provider=meter_provider,
            tracer_provider=tracer_provider,
            propagate=propagate,
            spans=spans,
            inner=inner,
        )
        self._publish_counts = publish_counts
        if switch(PUBLISH_COUNTS_VARIABLE, default=False) if publish_counts is None else publish_counts:
            publisher = CountsPublisher(inner, partial(counts_of, self._recorder.tally))
            # It ends when this object is closed or collected, and with the process.
            end = weakref.finalize(self, publisher.close)
            if hasattr(inner, "close"):
                self.__dict__["close"] = partial(_end_and_close, end, self.close)

    register_partition = _observed(DataPlaneClient.register_partition)
    claim_meta = _observed(DataPlaneClient.claim_meta)
    get_data = _observed(DataPlaneClient.get_data)
    check_consumption_status = _observed(DataPlaneClient.check_consumption_status)
    put_samples = _observed(DataPlaneClient.put_samples)
    get_samples = _observed(DataPlaneClient.get_samples)
    clear_samples = _observed(DataPlaneClient.clear_samples)
    ping = _observed(DataPlaneClient.ping)
    list_partitions = _observed(DataPlaneClient.list_partitions)
    list_metadata = _observed(DataPlaneClient.list_metadata)
    list_sample_ids: Any = _Observed("list_sample_ids")
    depth = _observed(DataPlaneClient.depth)
    pop = _observed(DataPlaneClient.pop)
    evict = _observed(DataPlaneClient.evict)
    save_checkpoint: Any = _Observed("save_checkpoint")
    load_checkpoint: Any = _Observed("load_checkpoint")
    get_capabilities = _observed(DataPlaneClient.get_capabilities)
    close = _observed(DataPlaneClient.close)

    def publish_weight_version(self, version: int, *, groups_per_step: int | None = None) -> None:
        """Publish the trainer's current weight version, for the exporter and for this process's own lag metric.

        Writes one row with a tag and no data into a partition reserved for it. The exporter hides that partition
        from every count; a framework that lists all partitions sees it.

        Args:
            version: The version.
            groups_per_step: How many groups the trainer takes per step. None leaves what was published before.

        Raises:
            DataPlaneBadRequest: *version* is not an integer, or larger than a metric holds exactly (2**53), or
                *groups_per_step* is not a positive integer.
            DataPlaneError: What the wrapped client raises when a put fails.
        """
        problem = None
        if isinstance(version, bool) or not isinstance(version, int) or abs(version) > MAX_EXACT_INT:
            problem = f"a weight version is an int within 2**53, not {version!r:.80}"
        tag = {"weight_version": version}
        if groups_per_step is not None:
            if type(groups_per_step) is not int or not 0 < groups_per_step <= MAX_EXACT_INT:
                problem = f"groups_per_step is a positive int, not {groups_per_step!r:.80}"
            tag["groups_per_step"] = groups_per_step
        if problem is not None:
            raise DataPlaneBadRequest(problem, operation="publish_weight_version", partition_id=RESERVED_PARTITION)
        self.put_samples([PUBLISHED_VERSION_KEY], RESERVED_PARTITION, tags=[tag])
        trainer_version.published = version

    def get_step_metrics(self, step_time_s: float) -> dict[str, float]:
        """Return what the data plane cost this process since the last call of this method, as a flat dict for a logger.

        See :mod:`dataplane.observability.steps` for the series, and for the same over all workers.

        Args:
            step_time_s: How long the step took, in seconds.
        """
        now = self.snapshot(reset_step_window=True)
        before, self._recorder.step_before = self._recorder.step_before, now
        return step_metrics(now, before, step_time_s)

    def snapshot(self, reset_step_window: bool = False) -> dict[str, Any]:
        """Return what this client has counted since it was made, as plain values.

        ``bytes_outstanding``, ``peak_bytes_outstanding`` and ``n_keys_outstanding`` are what *this process* put
        through this client and did not clear through it (``outstanding_scope`` says so). They say nothing of
        occupancy as soon as another process puts or clears. About the newest 100,000 keys are kept.

        ``total_ops`` counts all calls, ``total_keys`` and ``total_bytes`` what successful ones wrote, read and
        cleared. ``ops`` has the same per operation with its errors by type, its longest call and its durations as
        counts per bucket (the last one is everything above the last bound). All but the longest calls can be added over
        processes: :func:`~dataplane.observability.merge_snapshots`.

        Args:
            reset_step_window: Whether ``step_max_ms`` of the next snapshot starts again.
        """
        recorder = self._recorder
        by_event: dict[str, list[Cell]] = {}
        moved = {"write": 0, "read": 0}
        for cell in (*recorder.tally.cells(), *recorder.nested_tally.cells()):
            if cell.count:
                by_event.setdefault(cell.operation.event, []).append(cell)
            if cell.operation.direction in moved:
                moved[cell.operation.direction] += cell.bytes
        ops = {event: cell_summary(cells) for event, cells in by_event.items()}
        if reset_step_window:
            for cells in by_event.values():
                for cell in cells:
                    cell.end_step()
        errors: dict[str, int] = {}
        for op in ops.values():
            for error_type, count in op["errors"].items():
                errors[error_type] = errors.get(error_type, 0) + count
        return {
            "total_ops": sum(op["count"] for op in ops.values()),
            "total_errors": sum(errors.values()),
            "total_keys": sum(op["keys"] for op in ops.values()),
            "total_bytes": sum(op["bytes"] for op in ops.values()),
            "total_wall_ms": sum(op["wall_ms"] for op in ops.values()),
            "bytes_written": moved["write"],
            "bytes_read": moved["read"],
            "errors_by_type": errors,
            **recorder.memory.outstanding.figures(),
            "outstanding_scope": "this process",
            "observer_failures": recorder.tally.observer_failures,
            "ops": ops,
        }

    @staticmethod  # a method that the client keeps must not refer to the client: it would be a reference cycle
    def _call(recorder: CallRecorder, inner: Any, operation: Operation, /, *args: Any, **kwargs: Any) -> Any:
        method = getattr(inner, operation.name)
        call = recorder.begin(operation, args, kwargs)
        try:
            result = method(*call.args, **call.kwargs) if call.kwargs else method(*call.args)
        except BaseException as error:
            recorder.fail(call, error)
            raise
        if type(result) is CoroutineType:
            recorder.leave(call)
            return _finish(recorder, call, result)
        recorder.succeed(call, result)
        return result

    def __getattr__(self, name: str) -> Any:
        if name in ("_inner", "_recorder") or name.startswith(
            "__"
        ):  # looked up before __init__ ran, as unpickling does
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._inner, name)

    def __reduce__(self) -> tuple[Any, ...]:
        recorder = self._recorder
        rebuild = partial(type(self), propagate=recorder.propagate, spans=recorder.spans)
        if self._publish_counts is not None:
            rebuild = partial(rebuild, publish_counts=self._publish_counts)
        return rebuild, (self._inner, recorder.on_event)


def _end_and_close(end: Callable[[], object], close: Callable[[], Any]) -> Any:
    end()
    return close()


async def _finish(recorder: CallRecorder, call: Call, coroutine: Coroutine[Any, Any, Any]) -> Any:
    recorder.enter(call)
    try:
        result = await coroutine
    except BaseException as error:
        recorder.fail(call, error)
        raise
    recorder.succeed(call, result)
    return result


def log_event(event: Event) -> None:
    """An ``on_event`` that writes one log line per call: at WARNING when it failed, else at DEBUG."""
    level = logging.DEBUG if event["error_type"] is None else logging.WARNING
    if _logger.isEnabledFor(level):
        _logger.log(level, "data plane call %s", " ".join(f"{key}={value}" for key, value in event.items()))
