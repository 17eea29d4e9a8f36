"""Instrument TransferQueue itself: spans and metrics of every call without a change of code.

    opentelemetry-instrument python train.py

or, in a program that configures OpenTelemetry itself::

    TransferQueueInstrumentor().instrument()

Needs the extra ``instrument``. What is recorded is what the wrapper of :mod:`dataplane.observability` records, with
the same operation names; a call that the wrapper observes already is not counted again.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from dataplane.observability.recorder import CallRecorder, inside_a_call
from dataplane.operations import OPERATIONS, Argument, Operation

__all__ = ["PROPAGATE_VARIABLE", "TransferQueueInstrumentor"]

PROPAGATE_VARIABLE: Final = "TQ_EXPORTER_PROPAGATE"
"""Environment variable that turns ``propagate`` on when it is ``true`` or ``1``."""

_BATCH: Final = Argument(0, ("metadata", "meta"))
_CLEAR: Final = OPERATIONS["clear_samples"]
_CLAIM: Final = OPERATIONS["claim_meta"]
_PUT: Final = OPERATIONS["put_samples"]


def _like(operation: Operation, **arguments: Any) -> Operation:
    """Return *operation* with its parameters where TransferQueue has them."""
    fields = ("name", "event", "effect", "default_error")
    return Operation(**{name: getattr(operation, name) for name in fields}, **arguments)


_FUNCTIONS: Final[Mapping[str, Operation]] = {
    "kv_put": _like(
        _PUT,
        partition=Argument(1, ("partition_id",)),
        keys=Argument(0, ("key",)),
        fields=Argument(2, ("fields",)),
        tags=Argument(3, ("tag",)),
        one_tag=True,
    ),
    "kv_batch_put": _PUT,
    "kv_batch_get": OPERATIONS["get_samples"],
    "kv_batch_get_by_meta": OPERATIONS["get_data"],
    "kv_list": OPERATIONS["list_metadata"],
    "kv_clear": _CLEAR,
}
"""Functions of ``transfer_queue`` and the client's operation of each; each has an ``async_`` twin."""

_METHODS: Final[Mapping[str, Operation]] = {
    "get_meta": _like(_CLAIM, partition=Argument(2, ("partition_id",))),
    "get_data": OPERATIONS["get_data"],
    "put": _like(
        _PUT,
        fields=Argument(0, ("data",)),
        batch=Argument(1, ("metadata",)),
        partition=Argument(2, ("partition_id",)),
    ),
    "clear_samples": _like(_CLEAR, batch=_BATCH),
}
"""Methods of ``TransferQueueClient``; their ``async_`` twins are inherited from ``AsyncTransferQueueClient``."""


class TransferQueueInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments ``transfer_queue``'s ``kv_*`` functions and its client's ``get_meta, get_data, put, clear_samples``.

    This does not import TransferQueue: the functions are replaced when the program imports it, or at once when it has
    been imported. A name that a program imported before (``from transfer_queue import kv_put``) is not replaced.

    ``instrument()`` takes ``meter_provider`` and ``tracer_provider`` instead of the global ones, and ``propagate``:
    whether puts write their span into the tags (default: the environment variable ``TQ_EXPORTER_PROPAGATE``).
    """

    _recorder: CallRecorder | None = None
    _replaced: list[tuple[Any, str, Callable[..., Any], Callable[..., Any]]]

    def instrumentation_dependencies(self) -> Collection[str]:
        """See :class:`BaseInstrumentor`."""
        return ("TransferQueue >= 0.1.9",)

    def _instrument(self, **kwargs: Any) -> None:
        propagate = kwargs.get("propagate")
        if propagate is None:
            propagate = os.environ.get(PROPAGATE_VARIABLE, "").strip().lower() in ("1", "true")
        self._recorder = recorder = CallRecorder(
            meter_provider=kwargs.get("meter_provider"),
            tracer_provider=kwargs.get("tracer_provider"),
            propagate=propagate,
        )
        self._replaced = []

        def replace(module: ModuleType) -> None:
            if self._recorder is recorder:  # not uninstrumented in the meantime
                self._replace(recorder)

        wrapt.register_post_import_hook(replace, "transfer_queue")

    def _uninstrument(self, **kwargs: Any) -> None:
        self._recorder = None
        for owner, name, original, observed in self._replaced:
            # A function that has replaced ours since stays; ours passes calls through from now on.
            if owner.__dict__.get(name) is observed:
                setattr(owner, name, original)
        self._replaced = []

    def _replace(self, recorder: CallRecorder) -> None:
        for owner, name, operation in _targets():
            original = getattr(owner, "__dict__", {}).get(name)
            if original is None:  # another release of TransferQueue
                continue
            observed = self._observed(recorder, operation, original, method=not isinstance(owner, ModuleType))
            setattr(owner, name, observed)
            self._replaced.append((owner, name, original, observed))

    def _observed(
        self, recorder: CallRecorder, operation: Operation, original: Callable[..., Any], *, method: bool
    ) -> Callable[..., Any]:
        own = 1 if method else 0  # self is no argument of the operation

        def pass_through() -> bool:
            return self._recorder is not recorder or inside_a_call() or not is_instrumentation_enabled()

        @functools.wraps(original)
        def observe(*args: Any, **kwargs: Any) -> Any:
            if pass_through():
                return original(*args, **kwargs)
            call = recorder.begin(operation, args[own:], kwargs)
            try:
                result = original(*args[:own], *call.args, **call.kwargs)
            except BaseException as error:
                recorder.fail(call, error)
                raise
            recorder.succeed(call, result)
            return result

        @functools.wraps(original)
        async def observe_async(*args: Any, **kwargs: Any) -> Any:
            if pass_through():
                return await original(*args, **kwargs)
            call = recorder.begin(operation, args[own:], kwargs)
            try:
                result = await original(*args[:own], *call.args, **call.kwargs)
            except BaseException as error:
                recorder.fail(call, error)
                raise
            recorder.succeed(call, result)
            return result

        return observe_async if inspect.iscoroutinefunction(original) else observe


def _targets() -> Iterator[tuple[Any, str, Operation]]:
    """Yield every place that holds a function or method to replace."""
    for module in (sys.modules.get("transfer_queue"), sys.modules.get("transfer_queue.interface")):
        for name, operation in _FUNCTIONS.items():
            yield from ((module, twin, operation) for twin in (name, f"async_{name}"))
    client = sys.modules.get("transfer_queue.client")
    for cls in (getattr(client, "TransferQueueClient", None), getattr(client, "AsyncTransferQueueClient", None)):
        for name, operation in _METHODS.items():
            yield from ((cls, twin, operation) for twin in (name, f"async_{name}"))
