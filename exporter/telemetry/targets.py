"""Where and how to push, according to the configuration and the standard ``OTEL_*`` variables. Read once.

The SDK's exporters read headers, certificates, compression, timeout and temporality from the environment themselves.
The application has to choose the exporter and its protocol: this module does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from exporter.config import ConfigError, Otlp
from exporter.config.model import OtlpProtocol
from exporter.telemetry.instruments import Signal

__all__ = ["PushTarget", "push_interval_s", "push_target"]

logger = logging.getLogger(__name__)

_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_GRPC_PORT: Final = 4317
_DEFAULTS: Final = Otlp()


@dataclass(frozen=True, slots=True)
class PushTarget:
    """One signal's receiver.

    Attributes:
        signal: What is pushed there.
        protocol: The OTLP protocol.
        endpoint: The URL for the SDK's exporter, None to let it read the environment.
        timeout: Seconds that a push may take, None to let the SDK's exporter read the environment.
        receiver: ``host:port``, for the log.
    """

    signal: Signal
    protocol: OtlpProtocol
    endpoint: str | None
    timeout: float | None
    receiver: str


def push_target(signal: Signal, otlp: Otlp, environ: Mapping[str, str]) -> PushTarget | None:
    """Return the receiver of *signal*, None when it is not pushed.

    A signal is pushed when an endpoint is configured, or given in ``OTEL_EXPORTER_OTLP[_SIGNAL]_ENDPOINT``, or when
    ``OTEL_<SIGNAL>_EXPORTER`` names ``otlp``; unless that says ``none`` or ``OTEL_SDK_DISABLED`` is true. A configured
    endpoint wins over the environment's. The protocol is the configured one, else the environment's, else gRPC on port
    4317 and HTTP on every other.

    Raises:
        ConfigError: ``OTEL_EXPORTER_OTLP[_SIGNAL]_PROTOCOL`` names a protocol that is not supported.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    name = signal.upper()
    own_endpoint = f"OTEL_EXPORTER_OTLP_{name}_ENDPOINT"
    chosen = _chosen_exporters(f"OTEL_{name}_EXPORTER", environ)
    url = otlp.endpoint or environ.get(own_endpoint) or environ.get(_ENDPOINT)
    if (chosen is None and not url) or (chosen is not None and "otlp" not in chosen):
        return None
    protocol = otlp.protocol or _protocol(name, environ) or _protocol_of_port(url)
    timeout_given = environ.get(f"OTEL_EXPORTER_OTLP_{name}_TIMEOUT") or environ.get("OTEL_EXPORTER_OTLP_TIMEOUT")
    return PushTarget(
        signal,
        protocol,
        _signal_url(otlp.endpoint, protocol, signal),
        None if timeout_given and otlp.timeout == _DEFAULTS.timeout else otlp.timeout,
        _receiver(url or ("localhost:4317" if protocol == "grpc" else "localhost:4318")),
    )


def push_interval_s(otlp: Otlp, environ: Mapping[str, str]) -> float:
    """Return the seconds between two pushes of the metrics: ``OTEL_METRIC_EXPORT_INTERVAL`` is the default.

    Raises:
        ConfigError: That variable is not a positive number of milliseconds.
    """
    given = environ.get("OTEL_METRIC_EXPORT_INTERVAL")
    if not given or otlp.interval != _DEFAULTS.interval:
        return otlp.interval
    try:
        interval = float(given) / 1000
    except ValueError:
        interval = 0.0
    if not 0 < interval < float("inf"):
        raise ConfigError(
            "OTEL_METRIC_EXPORT_INTERVAL", f"{given!r} is not a number of milliseconds", "write for example 15000"
        )
    return interval


def _chosen_exporters(variable: str, environ: Mapping[str, str]) -> set[str] | None:
    """Return the exporters that a variable names, None when it names none."""
    names = {name.strip().lower() for name in environ.get(variable, "").split(",")} - {""}
    # Prometheus is the pull side, which is always on.
    for name in sorted(names - {"otlp", "none", "prometheus"}):
        logger.warning("%s: the exporter %r is not supported; otlp and none are", variable, name)
    return names or None


def _protocol(signal: str, environ: Mapping[str, str]) -> OtlpProtocol | None:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        value = environ.get(variable, "").strip().lower()
        if value == "grpc":
            return "grpc"
        if value == "http/protobuf":
            return "http/protobuf"
        if value:
            raise ConfigError(variable, f"{value!r} is not supported", "write http/protobuf or grpc")
    return None


def _protocol_of_port(url: str | None) -> OtlpProtocol:
    return "grpc" if url and _split(url)[1] == _GRPC_PORT else "http/protobuf"


def _signal_url(endpoint: str | None, protocol: OtlpProtocol, signal: Signal) -> str | None:
    if endpoint is None or protocol == "grpc":
        return endpoint
    return f"{endpoint.rstrip('/')}/v1/{signal}"


def _receiver(url: str) -> str:
    """Return host and port of *url*, without its credentials."""
    host, port = _split(url)
    return f"{host}:{port}" if port is not None else host


def _split(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
        return parts.hostname or "", parts.port
    except ValueError:
        return "an invalid URL", None
