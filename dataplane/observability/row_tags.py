"""What rows say of themselves, taken from the metadata that TransferQueue fetches inside of a read or clear.

``kv_batch_get`` and ``kv_clear`` ask the controller for the metadata of their keys, tags included, and use only a part.
An observed call that is under way gets the tags, so that its lag and links need no request of their own.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Sequence
from typing import Any, Final

from dataplane.observability.call import current_call
from dataplane.operations import tags_of

__all__ = ["tell", "unwatch", "watch"]

_METHOD: Final = "async_kv_retrieve_meta"

watching = False
"""Whether this process's metadata is passed on."""


def tell(keys: object, metadata: object) -> None:
    """Give the tags in *metadata*, which TransferQueue fetched for *keys*, to the call that this is a part of."""
    call = current_call()
    if call is None or call.operation.effect not in ("read", "clear"):
        return
    tags = tags_of(metadata)
    if call.keys is not None and _size(keys) == len(call.keys) == len(tags):  # otherwise some keys are unknown
        call.row_tags = tags


def watch() -> None:
    """Pass on the metadata of this process's calls from now on, if TransferQueue is imported and can be watched."""
    global watching  # noqa: PLW0603
    cls = _client_class()
    original = None if cls is None else cls.__dict__.get(_METHOD)
    if watching or not inspect.iscoroutinefunction(original):
        return
    watching = True
    setattr(cls, _METHOD, _telling(original))


def unwatch() -> None:
    """Undo :func:`watch`, unless somebody else has replaced the method since."""
    global watching  # noqa: PLW0603
    cls = _client_class()
    current = None if cls is None else cls.__dict__.get(_METHOD)
    if getattr(current, "_tells_tags", False):
        watching = False
        setattr(cls, _METHOD, current.__wrapped__)  # type: ignore[union-attr]


def _telling(original: Any) -> Any:
    @functools.wraps(original)
    async def retrieve(self: Any, *args: Any, **kwargs: Any) -> Any:
        metadata = await original(self, *args, **kwargs)
        tell(args[0] if args else kwargs.get("keys"), metadata)
        return metadata

    retrieve._tells_tags = True  # type: ignore[attr-defined]
    return retrieve


def _client_class() -> Any:
    return getattr(sys.modules.get("transfer_queue.client"), "AsyncTransferQueueClient", None)


def _size(keys: object) -> int:
    return 1 if isinstance(keys, str) else len(keys) if isinstance(keys, Sequence) else -1
