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
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from types import ModuleType
from typing import Any, Final

import wrapt
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from dataplane.environment import PROPAGATE_VARIABLE, switch
from dataplane.observability import row_tags
from dataplane.observability.call import current_call
from dataplane.observability.recorder import CallRecorder
from dataplane.operations import OPERATIONS, Argument, Operation

__all__ = ["PROPAGATE_VARIABLE", "TransferQueueInstrumentor"]

_BATCH: Final = Argument(0, ("metadata", "meta"))
_SECOND: Final = Argument(1, ("partition_id",))
_CLEAR: Final = OPERATIONS["clear_samples"]
_CLAIM: Final = OPERATIONS["claim_meta"]
_LIST: Final = OPERATIONS["list_metadata"]
_NAME: Final = OPERATIONS["list_sample_ids"]
_PUT: Final = OPERATIONS["put_samples"]
_STATUS: Final = OPERATIONS["check_consumption_status"]


def _like(operation: Operation, **arguments: Any) -> Operation:
    """Return *operation* with its parameters where TransferQueue has them."""
    fields = ("name", "event", "effect", "default_error")
    return Operation(**{name: getattr(operation, name) for name in fields}, **arguments)


_FUNCTIONS: Final[Mapping[str, Operation]] = {
    "kv_put": _like(
        _PUT,
        partition=_SECOND,
        keys=Argument(0, ("key",)),
        fields=Argument(2, ("fields",)),
        tags=Argument(3, ("tag",)),
        one_tag=True,
    ),
    "kv_batch_put": _PUT,
    "kv_batch_get": OPERATIONS["get_samples"],
    "kv_batch_get_by_meta": OPERATIONS["get_data"],
    "kv_list": _LIST,
    "kv_clear": _CLEAR,
    "save_checkpoint": OPERATIONS["save_checkpoint"],
    "load_checkpoint": OPERATIONS["load_checkpoint"],
}
"""Functions of ``transfer_queue`` and the client's operation of each; the ``kv`` ones have an ``async_`` twin."""

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
    "clear_partition": _like(_CLEAR, partition=Argument(0, ("partition_id",))),
    "kv_retrieve_meta": _like(_LIST, partition=_SECOND, keys=Argument(0, ("keys",))),
    "kv_retrieve_keys": _like(_NAME, partition=_SECOND),
    "kv_list": _LIST,
    "check_consumption_status": _like(_STATUS, partition=_SECOND),
    "get_consumption_status": _like(_STATUS, partition=_SECOND),
    "get_partition_list": OPERATIONS["list_partitions"],
}
"""Methods of ``TransferQueueClient``; their ``async_`` twins are inherited from ``AsyncTransferQueueClient``."""

_recorder: CallRecorder | None = None  # None while nothing is instrumented
_replacements: dict[Callable[..., Any], Callable[..., Any]] = {}


class TransferQueueInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments ``transfer_queue``'s ``kv_*`` and checkpoint functions, and the methods of its client.

    This does not import TransferQueue: the functions are replaced when the program imports it, or at once when it has
    been imported. A name that a program imported before (``from transfer_queue import kv_put``) is not replaced. A
    replacement is one object wherever the function is, so that it pickles by its name as the function does.

    ``instrument()`` takes ``meter_provider`` and ``tracer_provider`` instead of the global ones, ``propagate``: whether
    puts write their span into the tags (default: the environment variable ``TQ_EXPORTER_PROPAGATE``), and ``spans``:
    whether calls make spans (default: ``TQ_EXPORTER_SPANS``, else yes).
    """

    _replaced: list[tuple[Any, str, Callable[..., Any], Callable[..., Any]]]

    def instrumentation_dependencies(self) -> Collection[str]:
        """See :class:`BaseInstrumentor`."""
        return ("TransferQueue >= 0.1.9.dev0",)  # with pre-releases, since it names one

    def _instrument(self, **kwargs: Any) -> None:
        global _recorder  # noqa: PLW0603
        propagate = kwargs.get("propagate")
        _recorder = recorder = CallRecorder(
            meter_provider=kwargs.get("meter_provider"),
            tracer_provider=kwargs.get("tracer_provider"),
            propagate=switch(PROPAGATE_VARIABLE, default=False) if propagate is None else propagate,
            spans=kwargs.get("spans"),
        )
        self._replaced = []

        def replace(module: ModuleType) -> None:
            if _recorder is recorder:  # not uninstrumented in the meantime
                self._replace()

        wrapt.register_post_import_hook(replace, "transfer_queue")

    def _uninstrument(self, **kwargs: Any) -> None:
        global _recorder  # noqa: PLW0603
        _recorder = None
        for owner, name, original, observed in self._replaced:
            # A function that has replaced ours since stays; ours passes calls through from now on.
            if owner.__dict__.get(name) is observed:
                setattr(owner, name, original)
        self._replaced = []
        row_tags.unwatch()  # a wrapper that still needs it watches again

    def _replace(self) -> None:
        row_tags.watch()  # below the methods that are replaced
        for owner, name, kind in _targets():
            original = getattr(owner, "__dict__", {}).get(name)
            if original is None:  # another release of TransferQueue
                continue
            observed = _replacements.get(original)
            if observed is None:
                observed = _replacements[original] = _replacement(original, kind)
            setattr(owner, name, observed)
            self._replaced.append((owner, name, original, observed))


def _replacement(original: Callable[..., Any], kind: tuple[str, bool]) -> Callable[..., Any]:
    # What the functions refer to must pickle: a program may hold one of them past uninstrument().
    @functools.wraps(original)
    def observe(*args: Any, **kwargs: Any) -> Any:
        return _call(kind, original, args, kwargs)

    @functools.wraps(original)
    async def observe_async(*args: Any, **kwargs: Any) -> Any:
        return await _call_async(kind, original, args, kwargs)

    return observe_async if inspect.iscoroutinefunction(original) else observe


def _call(kind: tuple[str, bool], original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    recorder = _silent_or_recorder()
    if recorder is None:
        return original(*args, **kwargs)
    operation, own = _operation(kind)
    call = recorder.begin(operation, args[own:], kwargs)
    try:
        result = original(*args[:own], *call.args, **call.kwargs)
    except BaseException as error:
        recorder.fail(call, error)
        raise
    recorder.succeed(call, result)
    return result


async def _call_async(
    kind: tuple[str, bool], original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    recorder = _silent_or_recorder()
    if recorder is None:
        return await original(*args, **kwargs)
    operation, own = _operation(kind)
    call = recorder.begin(operation, args[own:], kwargs)
    try:
        result = await original(*args[:own], *call.args, **call.kwargs)
    except BaseException as error:
        recorder.fail(call, error)
        raise
    recorder.succeed(call, result)
    return result


def _silent_or_recorder() -> CallRecorder | None:
    return None if _recorder is None or current_call() is not None or not is_instrumentation_enabled() else _recorder


def _operation(kind: tuple[str, bool]) -> tuple[Operation, int]:
    """Return the operation, and how many of the arguments come before its own: the method's ``self``."""
    name, method = kind
    return (_METHODS if method else _FUNCTIONS)[name], int(method)


def _targets() -> Iterator[tuple[Any, str, tuple[str, bool]]]:
    """Yield every place that holds a function or method to replace, with the function's name and whether it is one."""
    for module in (sys.modules.get("transfer_queue"), sys.modules.get("transfer_queue.interface")):
        for name in _FUNCTIONS:
            yield from ((module, twin, (name, False)) for twin in (name, f"async_{name}"))
    client = sys.modules.get("transfer_queue.client")
    for cls in (getattr(client, "TransferQueueClient", None), getattr(client, "AsyncTransferQueueClient", None)):
        for name in _METHODS:
            yield from ((cls, twin, (name, True)) for twin in (name, f"async_{name}"))
