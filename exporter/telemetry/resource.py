"""Resource and scope of our telemetry."""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from dataplane.net.addresses import join_host_port
from dataplane.semconv import SCHEMA_URL
from exporter.config.addresses import Listen
from exporter.version import DISTRIBUTION, Build

__all__ = ["build_resource", "build_scope"]

_SCOPE_NAME: Final = "tq_exporter"


def build_resource(build: Build, run: str | None, listen: Listen) -> Resource:
    """Return the resource: ours by default, overridden by ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES``.

    ``service.instance.id`` becomes the label ``instance`` in Prometheus. It is the exporter's address, not a random id,
    so that alerts survive a restart.

    Args:
        build: Gives ``service.version``.
        listen: Gives ``service.instance.id``: host and port, with the machine's name where it is no address of its own.
        run: Identity of the training run, the attribute ``run``; None leaves it to the environment.
    """
    given = OTELResourceDetector().detect().attributes
    defaults = {
        SERVICE_NAME: DISTRIBUTION,
        SERVICE_VERSION: build.version,
        SERVICE_INSTANCE_ID: join_host_port(_reachable(listen.host), listen.port),
    }
    attributes = {name: value for name, value in defaults.items() if name not in given}
    if run is not None:
        attributes["run"] = run
    return Resource.create(attributes)


def build_scope(build: Build) -> InstrumentationScope:
    """Return the instrumentation scope of every metric and span."""
    return InstrumentationScope(_SCOPE_NAME, build.version, SCHEMA_URL)


def _reachable(host: str) -> str:
    """Return *host*, or the machine's name if others cannot use it: every interface, or loopback."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return socket.gethostname() if host == "localhost" else host
    return socket.gethostname() if address.is_unspecified or address.is_loopback else host
