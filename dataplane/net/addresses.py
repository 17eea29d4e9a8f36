"""``HOST:PORT`` and ``tcp://HOST:PORT``: an IPv6 address is in brackets."""

from __future__ import annotations

import ipaddress
import re

__all__ = ["is_host_name", "is_ip", "join_host_port", "parse_address", "split_host_port"]

_HOST = re.compile(r"\w[\w.-]*")


def split_host_port(text: str) -> tuple[str, int]:
    """Split ``HOST:PORT`` into a host name or IP address, without brackets, and a port from 0 to 65535.

    Raises:
        ValueError: *text* is not of that form.
    """
    host, _, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        well_formed = ":" in host and is_ip(host)
    else:
        numeric = not host.strip("0123456789.")
        well_formed = is_ip(host) if numeric else is_host_name(host)
    if not well_formed or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"not an address of the form HOST:PORT: {text[:100]!r}")
    return host, int(port)


def join_host_port(host: str, port: int) -> str:
    """Return the inverse of :func:`split_host_port`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(address: str) -> tuple[str, int]:
    """Split ``tcp://HOST:PORT`` into host and port, which is not 0.

    Raises:
        ValueError: *address* is not of that form.
    """
    try:
        host, port = split_host_port(address.removeprefix("tcp://"))
    except ValueError:
        port = 0
    if port == 0 or not address.startswith("tcp://"):
        raise ValueError(f"not an address of the form tcp://HOST:PORT: {address[:100]!r}")
    return host, port


def is_host_name(host: str) -> bool:
    """Return whether *host* looks like a host name, without scheme and port."""
    return _HOST.fullmatch(host) is not None


def is_ip(host: str) -> bool:
    """Return whether *host* is an IPv4 or IPv6 address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
