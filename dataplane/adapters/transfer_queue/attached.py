"""A client's attachment: made at once or, in a copy that was sent to another process, with its first call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from dataplane.adapters.transfer_queue import mooncake, session
from dataplane.adapters.transfer_queue.config import DEFAULT_TIMEOUT_S, seconds, tq_conf
from dataplane.adapters.transfer_queue.reader import MIN_CLOSE_S, MetadataCalls, import_tq
from dataplane.config import portable, without_effect
from dataplane.errors import DataPlaneError, DataPlaneUnavailable
from dataplane.errors.translation import ATTACH
from dataplane.grouping import TagRules

__all__ = ["AttachedCalls"]

_log = logging.getLogger(__name__)

# On a cold cluster each new actor imports torch, and may wait for a node.
_START_TIMEOUT_S = 300.0
# TransferQueue waits up to 15 s for its storage units to end.
_END_TIMEOUT_S = 60.0


class AttachedCalls(MetadataCalls):
    """Calls on this process's attachment to TransferQueue. It pickles: the copy attaches with its first call.

    Not while it is unpickled: Ray holds a lock then that an attach needs in another thread.
    """

    def __init__(
        self,
        cfg: Mapping[str, Any],
        *,
        bootstrap: bool | None,
        rules: Mapping[str, TagRules] | None,
        default_rules: TagRules,
    ) -> None:
        conf = tq_conf(cfg)
        for key, reason in without_effect(cfg).items():
            _log.warning("%s has no effect: %s", key, reason)
        timeout_s = seconds(cfg, "timeout_s", DEFAULT_TIMEOUT_S)
        super().__init__(import_tq(), timeout_s=timeout_s, rules=rules, default_rules=default_rules)
        self._made_with = (portable(cfg), dict(rules or {}), default_rules)
        self._attached: session.Attachment | None = None
        self._attaching = threading.Lock()
        if bootstrap is not None:
            self._adopt(self._attach(conf if bootstrap else None))

    def close(self) -> None:
        """Release this client's own resources, idempotently. Ends TransferQueue only if this client started it.

        Raises:
            DataPlaneTimeout: It takes longer than its deadline, and continues in the background.
        """
        started = self._attached is not None and self._attached.started

        def release() -> None:
            with self._attaching:  # a first call that is attaching fails now, or has just attached
                if self._attached is not None:
                    session.release(self._tq, self._attached)

        self._close(release, max(self._timeout_s, _END_TIMEOUT_S if started else MIN_CLOSE_S))

    def __reduce__(self) -> tuple[Any, ...]:
        cfg, rules, default_rules = self._made_with
        return partial(type(self), bootstrap=None, rules=rules, default_rules=default_rules), (cfg,)

    @property
    def _attachment(self) -> session.Attachment:
        """This process's attachment, made now if it is not made yet."""
        if self._attached is None:
            with self._attaching:
                if self._attached is None:
                    self._adopt(self._attach(None))
        assert self._attached is not None
        return self._attached

    def _call_tq(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        if operation != ATTACH and not self._closed:
            _ = self._attachment
        return super()._call_tq(operation, *args, **kwargs)

    def _attach(self, conf: dict[str, Any] | None) -> session.Attachment:
        handover = session.Handover()
        own = mooncake.own_options(self._made_with[0])
        timeout_s = self._timeout_s if conf is None else max(self._timeout_s, _START_TIMEOUT_S)

        def call() -> session.Attachment:
            if conf is None:
                return handover.offer(self._tq, session.attach(self._tq, timeout_s, own))
            return handover.offer(self._tq, session.start(self._tq, conf, own, self._timeout_s, timeout_s))

        try:
            # The look-up has the same deadline and a better error message, so this one ends a second later.
            attachment: session.Attachment = self._call_tq(ATTACH, call, DataPlaneUnavailable, timeout_s=timeout_s + 1)
        except DataPlaneError:
            handover.abandon()
            raise
        return attachment

    def _adopt(self, attachment: session.Attachment) -> None:
        self._attached = attachment
        # A call to Mooncake's dead master may only log that it failed; a read from Yuanrong's dead worker holds
        # Python's lock for a minute.
        self._watch(
            attachment.client._loop,
            attachment.controller_address,
            attachment.storage_addresses,
            probe_first=attachment.backend in (mooncake.BACKEND, session.YUANRONG),
        )

    def _client(self) -> Any:
        client = self._attachment.client
        if self._tq.interface._TQ_CLIENT is not client:
            raise DataPlaneUnavailable(
                "this process has attached to another controller or detached: close this client and make a new one"
            )
        return client
