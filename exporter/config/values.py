"""Values as people write them in a configuration: durations, sizes, addresses, names of choices.

Every parser takes what YAML, the environment or a flag gave, returns the typed value, and raises
:class:`BadValue` with the problem and the remedy when it cannot.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

__all__ = [
    "BadValue",
    "Parser",
    "boolean",
    "controller_address",
    "duration",
    "fraction",
    "host_names",
    "host_port",
    "integer",
    "mask_url",
    "one_of",
    "otlp_url",
    "ray_address",
    "show",
    "show_duration",
    "show_size",
    "size",
    "text",
]

Parser = Callable[[object], Any]

_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB)?")
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class BadValue(ValueError):
    """A value that cannot be used: what is wrong with it, and what to write instead."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem = problem
        self.remedy = remedy


def text(value: object) -> str:
    """Return a non-empty text."""
    if not isinstance(value, str):
        raise BadValue(f"{show(value)} is {_kind(value)}, not text", "put it in quotes")
    if not value.strip():
        raise BadValue("is empty", "give a text or leave the key out")
    return value


def boolean(value: object) -> bool:
    """Return a switch: a boolean, or a text such as ``true`` or ``off``."""
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else None
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise BadValue(f"{show(value)} is not true or false", "write true or false")


def integer(low: int, high: int | None = None) -> Parser:
    """Return a parser of whole numbers from *low* to *high*, both included."""
    wanted = f"give a whole number from {low} to {high}" if high is not None else f"give a whole number from {low} up"

    def parse(value: object) -> int:
        number: int | None = None
        if isinstance(value, int) and not isinstance(value, bool):
            number = value
        elif isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}", value.strip()):
            number = int(value)
        if number is None:
            raise BadValue(f"{show(value)} is not a whole number", wanted)
        if number < low or (high is not None and number > high):
            raise BadValue(f"{number} is out of range", wanted)
        return number

    return parse


def fraction(value: object) -> float:
    """Return a share of a whole, more than 0 and at most 1."""
    number = _number(value)
    if number is None or not 0 < number <= 1:
        raise BadValue(f"{show(value)} is not a share of the whole", "give a number above 0 and up to 1, such as 0.01")
    return number


def duration(low: float, high: float = 86400.0) -> Parser:
    """Return a parser of durations of *low* to *high* seconds: a number of seconds, or ``250ms``, ``5s``, ``2m``."""

    def parse(value: object) -> float:
        seconds = _number(value)
        if seconds is None and isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
            seconds = round(float(match[1]) * _SECONDS[match[2] or "s"], 9)
        if seconds is None:
            raise BadValue(f"{show(value)} is not a duration", "write it as 250ms, 5s, 2m or a number of seconds")
        if not low <= seconds <= high:
            limits = f"{show_duration(low)} to {show_duration(high)}"
            raise BadValue(f"{show(value)} is out of range", f"give a duration of {limits}")
        return seconds

    return parse


def show_duration(seconds: float) -> str:
    """Return *seconds* the way :func:`duration` reads it."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:.12g}ms"
    return f"{seconds:.12g}s"


def size(value: object) -> int:
    """Return a number of bytes: a positive number, or a text such as ``256MiB``."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match and int(match[1]) > 0:
        return int(match[1]) * _BYTES[match[2] or "B"]
    raise BadValue(f"{show(value)} is not a size", "write it as 256MiB, 1GiB or a number of bytes")


def show_size(count: int) -> str:
    """Return *count* bytes the way :func:`size` reads it."""
    for unit in ("GiB", "MiB", "KiB"):
        if count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}"
    return str(count)


def host_names(value: object) -> tuple[str, ...]:
    """Return host names, from a list or a text with commas between them; ``*.`` may begin a name, ``*`` is any."""
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadValue(f"{show(value)} is not a list of host names", "write - NAME lines below it")
    stripped = tuple(name.strip() for name in names)
    for name in stripped:
        if name != "*" and not _HOST.fullmatch(name.removeprefix("*.")):
            raise BadValue(
                f"{show(name)} is not a host name", "write it without scheme and port, such as exporter.example"
            )
    return stripped


def one_of(*choices: str) -> Parser:
    """Return a parser that accepts exactly *choices*."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise BadValue(f"{show(value)} is not known", f"choose one of {', '.join(choices)}")

    return parse


def host_port(value: object) -> tuple[str, int]:
    """Return host and port of ``ADDRESS:PORT``; an IPv6 address stands in brackets, port 0 is any free one."""
    remedy = "write ADDRESS:PORT, such as 0.0.0.0:9464 or [::1]:9464"
    parts = _split_host_port(value) if isinstance(value, str) else None
    if parts is None:
        raise BadValue(f"{show(value)} is not an address with a port", remedy)
    return parts


def controller_address(value: object) -> str:
    """Return the address of a controller's request socket, ``tcp://IP:PORT``."""
    remedy = "write tcp://IP:PORT, with the IP and port of the controller's request socket"
    if isinstance(value, str) and value.startswith("tcp://"):
        parts = _split_host_port(value.removeprefix("tcp://"))
        if parts is not None and parts[1] > 0 and _is_ip(parts[0]):
            return value
    raise BadValue(f"{show(value)} is not the address of a controller", remedy)


def ray_address(value: object) -> str:
    """Return the address of a Ray cluster: ``auto``, ``HOST:PORT`` of its GCS, or ``ray://HOST:PORT``."""
    remedy = "write auto, HOST:PORT of the head node (6379 by default) or ray://HOST:PORT"
    if value == "local":
        raise BadValue("'local' would start a new Ray", remedy)
    if isinstance(value, str):
        if value == "auto":
            return value
        parts = _split_host_port(value.removeprefix("ray://"))
        if parts is not None and parts[1] > 0:
            return value
    raise BadValue(f"{show(value)} cannot be the address of a Ray cluster", remedy)


def otlp_url(value: object) -> str:
    """Return the base URL of an OTLP receiver, ``http://HOST:PORT``."""
    remedy = "write http://HOST:4318, or http://HOST:4317 with protocol grpc"
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        usable = (
            parts is not None
            and parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and parts.port != 0
            and not parts.query
        )
    except ValueError:
        usable = False
    if not usable or not isinstance(value, str) or re.search(r"\s", value):
        shown = mask_url(value) if isinstance(value, str) else value
        raise BadValue(f"{show(shown)} is not the URL of an OTLP receiver", remedy)
    return value


def mask_url(url: str) -> str:
    """Return *url* without the user name, the password and the query that it may carry."""
    if "@" in url:
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = None
        if parts is not None and "@" in parts.netloc:
            url = urlunsplit(parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]))
        else:
            url = "***@" + url.rpartition("@")[2]
    before, asked, _ = url.partition("?")
    return f"{before}?***" if asked else before


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _split_host_port(address: str) -> tuple[str, int] | None:
    host, colon, port = address.rpartition(":")
    if not colon or not re.fullmatch(r"\d{1,5}", port) or int(port) > 65535:
        return None
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        return (host, int(port)) if _is_ip(host) and ":" in host else None
    if re.fullmatch(r"[\d.]+", host) and not _is_ip(host):
        return None
    return (host, int(port)) if _HOST.fullmatch(host) else None


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _kind(value: object) -> str:
    names = {bool: "a switch", int: "a number", float: "a number", list: "a list", dict: "a mapping"}
    return names.get(type(value), f"a {type(value).__name__}")


def show(value: object) -> str:
    """Return *value* for a one-line message: quoted, without line breaks, not longer than a glance."""
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
