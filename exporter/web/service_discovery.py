"""Prometheus HTTP service discovery: where to scrape this exporter, TransferQueue's own metrics and Mooncake's master.

TransferQueue picks a free port for its metrics at each start; with this list Prometheus finds the new port.
"""

from __future__ import annotations

import socket

import msgspec

from exporter.model.snapshot import Snapshot
from exporter.web.hosts import is_host

__all__ = ["encode_targets"]


def encode_targets(snapshot: Snapshot, *, host: str | None, address: str, scheme: str) -> bytes:
    """Return the target list as JSON.

    Args:
        snapshot: The snapshot in force; its endpoint says where TransferQueue's metrics are.
        host: The request's ``Host`` header: the name under which Prometheus reaches this exporter. Ignored if
            :func:`is_host` refuses it.
        address: ``host:port`` listened on, used when there is no such header.
        scheme: ``http`` or ``https``: how this exporter is to be scraped.
    """
    endpoint = snapshot.endpoint
    common = {"run": endpoint.run} if endpoint is not None and endpoint.run else {}
    own = host if host is not None and is_host(host) else _reachable(address)
    if not is_host(own, port_needed=True):  # without a port, the client used the scheme's default port
        own = f"{own}:{443 if scheme == 'https' else 80}"
    groups = [
        {
            "targets": [own],
            "labels": {**common, "component": "tq-exporter", "__scheme__": scheme, "__metrics_path__": "/metrics"},
        }
    ]
    if endpoint is not None and is_host(endpoint.metrics_endpoint, port_needed=True):
        labels = {"component": "transfer-queue", "__scheme__": "http", "__metrics_path__": "/metrics"}
        if endpoint.controller_id is not None:
            labels["__meta_tq_controller_id"] = endpoint.controller_id
        groups.append({"targets": [str(endpoint.metrics_endpoint)], "labels": {**common, **labels}})
    if endpoint is not None and is_host(endpoint.store_metrics, port_needed=True):
        labels = {"component": "mooncake", "__scheme__": "http", "__metrics_path__": "/metrics"}
        groups.append({"targets": [str(endpoint.store_metrics)], "labels": {**common, **labels}})
    return msgspec.json.encode(groups)


def _reachable(address: str) -> str:
    """Return *address*, with the machine's name in place of "every interface", which no client can connect to."""
    host, _, port = address.rpartition(":")
    return f"{socket.gethostname()}:{port}" if host in ("0.0.0.0", "[::]") else address  # noqa: S104 - compared
