"""Build a data plane client from a configuration mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dataplane.interfaces import DataPlaneClient

__all__ = ["IMPLEMENTATIONS", "build_data_plane_client"]

IMPLEMENTATIONS: Final = ("transfer_queue", "noop")


def build_data_plane_client(cfg: Mapping[str, Any], *, bootstrap: bool = True) -> DataPlaneClient:
    """Return the client that *cfg* describes.

    Args:
        cfg: ``enabled`` (must be true), ``impl`` (``transfer_queue`` or, for tests, ``noop``), optional
            ``observability`` with ``enabled`` and ``callback`` (called with one dict per operation), and what
            :class:`~dataplane.adapters.transfer_queue.TQDataPlaneClient` reads. Other keys are ignored.
        bootstrap: Start the data plane when none runs; False only ever attaches.

    Raises:
        ValueError: The data plane is disabled, or a value is wrong; the message names its key and the choices.
        DataPlaneUnavailable: Nothing to attach to. See the adapter for the other errors.
    """
    if not cfg.get("enabled", True):
        raise ValueError("enabled is false: there is no data plane to build a client for; set enabled: true")
    observability = cfg.get("observability") or {}
    if not isinstance(observability, Mapping):
        raise ValueError(f"observability must be a mapping with enabled and callback, not {observability!r}")
    client = _build(cfg, bootstrap=bootstrap)
    if not observability.get("enabled", False):
        return client
    from dataplane.observability import MetricsDataPlaneClient

    instrumented: DataPlaneClient = MetricsDataPlaneClient(client, on_event=observability.get("callback"))
    return instrumented


def _build(cfg: Mapping[str, Any], *, bootstrap: bool) -> DataPlaneClient:
    impl = cfg.get("impl", "transfer_queue")
    if impl == "noop":
        from dataplane.adapters.noop import NoOpDataPlaneClient

        return NoOpDataPlaneClient()
    if impl == "transfer_queue":
        from dataplane.adapters.transfer_queue import TQDataPlaneClient

        return TQDataPlaneClient(cfg, bootstrap=bootstrap)
    raise ValueError(f"impl must be one of {', '.join(IMPLEMENTATIONS)}, not {impl!r}")
