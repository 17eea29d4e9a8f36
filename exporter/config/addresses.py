"""Addresses in a configuration: where to listen, the controller, a Ray cluster, receivers, trackers, views."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from dataplane.net.addresses import is_host_name, is_ip, join_host_port, parse_address, split_host_port
from exporter.config.values import BadValue, Form, show, text

__all__ = [
    "ControllerAddress",
    "HostNames",
    "HttpUrl",
    "Listen",
    "ListenAddress",
    "OtlpUrl",
    "RayAddress",
    "StoreUrl",
    "TraceUrl",
    "TrackingUri",
    "controller_address",
    "http_url",
    "mask_url",
    "otlp_base",
    "ray_address",
]


_SIGNAL_PATH = re.compile(r"/v1/(metrics|traces|logs)/?$")


class Listen(msgspec.Struct, frozen=True):
    """Where the exporter serves HTTP. Port 0 takes any free port; the log names it."""

    host: str = "0.0.0.0"  # noqa: S104 - Prometheus scrapes from another machine
    port: int = 9464

    def __str__(self) -> str:
        return join_host_port(self.host, self.port)


def _listen(value: object) -> Listen:
    given = value if isinstance(value, str) else ""
    try:
        return Listen(*split_host_port(f"{Listen().host}{given}" if given.startswith(":") else given))
    except ValueError:
        remedy = "write ADDRESS:PORT, such as 0.0.0.0:9464 or [::1]:9464, or :PORT for all addresses"
        raise BadValue(f"{show(value)} is not an address with a port", remedy) from None


def controller_address(value: object) -> str:
    """Return the address of a controller's request socket, ``tcp://IP:PORT``."""
    try:
        if isinstance(value, str) and is_ip(parse_address(value)[0]):
            return value
    except ValueError:
        pass
    remedy = "write tcp://IP:PORT, with the IP and port of the controller's request socket"
    raise BadValue(f"{show(value)} is not the address of a controller", remedy)


def ray_address(value: object) -> str:
    """Return the address of a Ray cluster: ``auto``, ``HOST:PORT`` of its GCS, or ``ray://HOST:PORT``."""
    remedy = "write auto, HOST:PORT of the head node (6379 by default) or ray://HOST:PORT"
    if value == "local":
        raise BadValue("'local' would start a new Ray", remedy)
    try:
        if isinstance(value, str) and (value == "auto" or split_host_port(value.removeprefix("ray://"))[1] > 0):
            return value
    except ValueError:
        pass
    raise BadValue(f"{show(value)} cannot be the address of a Ray cluster", remedy)


def _otlp_url(value: object) -> str:
    """Return the base URL of an OTLP receiver, ``http://HOST:PORT``: the path of a signal is added to it."""
    if isinstance(value, str):
        value = otlp_base(value)
    if _is_http_url(value):
        return str(value)
    shown = mask_url(value) if isinstance(value, str) else value
    remedy = "write http://HOST:4318, or http://HOST:4317 with protocol grpc"
    raise BadValue(f"{show(shown)} is not the URL of an OTLP receiver", remedy)


def otlp_base(url: str) -> str:
    """Return *url* without the path of a signal, such as ``/v1/metrics``: other programs want it in the URL."""
    return _SIGNAL_PATH.sub("", url)


def http_url(value: object) -> str:
    """Return the base URL of an HTTP server, without a slash at its end."""
    if _is_http_url(value):
        return str(value).rstrip("/")
    shown = mask_url(value) if isinstance(value, str) else value
    raise BadValue(f"{show(shown)} is not the URL of a server", "write http://HOST:PORT")


def _is_http_url(value: object) -> bool:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^\s?]+", value, re.IGNORECASE):
        return False
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _store_url(value: object) -> str:
    """Return the base URL of the metrics of Mooncake's master, ``http://HOST:PORT``."""
    try:
        if isinstance(value, str) and value.startswith("http://"):
            host, port = split_host_port(value.removeprefix("http://").rstrip("/"))
            if port > 0:
                return f"http://{join_host_port(host, port)}"
    except ValueError:
        pass
    raise BadValue(
        f"{show(value)} is not the URL of a Mooncake master's metrics", "write http://HOST:9003, without a path"
    )


def _trace_url(value: object) -> str:
    """Return the URL of a trace, with a placeholder for its id."""
    url = value if isinstance(value, str) else ""
    remedy = "write one such as https://tempo.example/trace/{trace_id}"
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise BadValue(f"{show(mask_url(url) if url else value)} is not an http or https URL", remedy)
    if "@" in parts.netloc:
        raise BadValue(f"{show(mask_url(url))} has credentials, which every visitor of the page would see", remedy)
    if "{trace_id}" not in url.removeprefix(f"{parts.scheme}://{parts.netloc}"):
        raise BadValue(f"{show(url)} has no {{trace_id}} after the host", remedy)
    return url


def _host_names(value: object) -> tuple[str, ...]:
    """Return host names, from a list or a text with commas between them; ``*.`` may begin a name, ``*`` is any."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadValue(f"{show(value)} is not a list of host names", "write - NAME lines below it")
    stripped = tuple(name.strip() for name in names)
    for name in stripped:
        if name != "*" and not is_host_name(name.removeprefix("*.")):
            raise BadValue(
                f"{show(name)} is not a host name", "write it without scheme and port, such as exporter.example"
            )
    return stripped


def mask_url(url: str) -> str:
    """Return *url* without user name, password and query."""
    masked = re.sub(r"^([a-z][a-z0-9+.-]*://)?.*@", r"\1***@", url, flags=re.IGNORECASE | re.DOTALL)
    return re.sub(r"\?.+", "?***", masked, flags=re.DOTALL)


ListenAddress = Annotated[Listen, Meta(extra={"form": Form("ADDRESS:PORT", _listen, str)})]
ControllerAddress = Annotated[str, Meta(extra={"form": Form("tcp://IP:PORT", controller_address)})]
RayAddress = Annotated[str, Meta(extra={"form": Form("ADDRESS", ray_address)})]
HostNames = Annotated[tuple[str, ...], Meta(extra={"form": Form("NAME,NAME", _host_names, list)})]
StoreUrl = Annotated[str, Meta(extra={"form": Form("URL", _store_url)})]
TraceUrl = Annotated[str, Meta(extra={"form": Form("URL", _trace_url)})]
OtlpUrl = Annotated[str, Meta(extra={"form": Form("URL", _otlp_url, mask_url)})]
HttpUrl = Annotated[str, Meta(extra={"form": Form("URL", http_url, mask_url)})]
TrackingUri = Annotated[str, Meta(extra={"form": Form("URI", text, mask_url)})]
