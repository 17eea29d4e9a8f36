"""Protection against DNS rebinding: the host names that clients may use for this server.

A web site can point its own name to this server's address. Its script then reads our answers in the browser of a user
who can reach this server. Such a request carries the web site's name as its ``Host``.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Final

__all__ = ["AllowedHosts", "is_host"]

_HOST: Final = re.compile(
    r"(?P<name>[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9_-]*[A-Za-z0-9])?)*\.?|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(:(?P<port>[0-9]{1,5}))?"
)
_MAX_HOST: Final = 255


def is_host(text: str | None, *, port_needed: bool = False) -> bool:
    """Return whether *text* is a host name, IPv4 or bracketed IPv6 address with an optional port."""
    found = _parse(text)
    if found is None:
        return False
    port = found["port"]
    return not port_needed if port is None else 0 < int(port) <= 65535


class AllowedHosts:
    """Accepts loopback names, every IP address, the machine's own name, and the names that are added.

    An IP address cannot be rebound. The machine's own name is controlled by its network, not by a web site.

    Args:
        names: Host names to add; ``*.example.com`` means every name below it, ``*`` every name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        added = {_canonical(name) for name in names}
        self._any = "*" in added
        own = _canonical(socket.gethostname())
        self._exact = {"localhost", own, own.partition(".")[0], *added}
        self._endings = (".localhost", *(name[1:] for name in added if name.startswith("*.")))

    def allow(self, host: str | None) -> bool:
        """Return whether a request with this ``Host`` header is accepted.

        Browsers always send one, so a request without it is accepted: it comes from no browser.
        """
        if self._any or not host:
            return True
        found = _parse(host)
        if found is None:
            return False
        name = _canonical(found["name"])
        return name in self._exact or name.endswith(self._endings) or _is_address(name)


def _parse(text: str | None) -> re.Match[str] | None:
    return None if text is None or len(text) > _MAX_HOST else _HOST.fullmatch(text)


def _canonical(name: str) -> str:
    return name.lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True
