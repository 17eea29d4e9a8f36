"""Build a data plane client from a configuration mapping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataplane.config import IMPLEMENTATIONS, DataPlaneConfig, bad_config, check_config, plain
from dataplane.interfaces import DataPlaneClient

__all__ = ["IMPLEMENTATIONS", "build_data_plane_client"]


def build_data_plane_client(
    cfg: DataPlaneConfig | Mapping[str, Any] | None, *, bootstrap: bool = True, allow_noop: bool = False
) -> DataPlaneClient:
    """Return the client that *cfg* describes.

    The whole configuration is checked before anything is imported or started.

    Args:
        cfg: See :class:`~dataplane.interfaces.DataPlaneConfig`; ``enabled`` must be true.
        bootstrap: Start the data plane when none runs; False only ever attaches.
        allow_noop: Whether ``impl`` may be ``noop``, which keeps all data in this process. For tests: a job whose
            processes each had a plane of their own would train on nothing.

    Raises:
        ValueError: There is no data plane, or a key or value is wrong; the message names the key and the choices. It
            is a DataPlaneBadRequest.
        DataPlaneUnavailable: Nothing to attach to. See the adapter for the other errors.
    """
    if cfg is not None and not isinstance(cfg, Mapping):
        raise bad_config(f"cfg must be a mapping, not {cfg!r:.80}")
    if cfg and "enabled" not in cfg:
        check_config(cfg)  # it may be misspelt
    if not cfg or not cfg.get("enabled"):
        raise bad_config(
            "the data plane is disabled (enabled is not true), so there is no client to build: run the framework's "
            "legacy trainer, which needs no data plane (in NeMo RL grpo_train), or set enabled: true"
        )
    check_config(cfg)
    client = _build(cfg, bootstrap=bootstrap, allow_noop=allow_noop)
    observability = plain(cfg.get("observability")) or {}
    if not observability.get("enabled"):
        return client
    from dataplane.observability import MetricsDataPlaneClient, log_event

    return MetricsDataPlaneClient(client, on_event=observability.get("callback") or log_event)


def _build(cfg: Mapping[str, Any], *, bootstrap: bool, allow_noop: bool) -> DataPlaneClient:
    if cfg.get("impl") == "noop":
        if not allow_noop:
            raise bad_config(
                "impl 'noop' keeps all data in this process, so a job would train on nothing: use transfer_queue, or "
                "pass allow_noop=True in a test"
            )
        from dataplane.adapters.noop import NoOpDataPlaneClient

        return NoOpDataPlaneClient()
    from dataplane.adapters.transfer_queue import TQDataPlaneClient

    return TQDataPlaneClient(cfg, bootstrap=bootstrap)
