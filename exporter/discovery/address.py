"""Discovery by a fixed address: nothing to look up."""

from __future__ import annotations

from typing import Final

from dataplane.discovery.record import Endpoint
from exporter.discovery import DiscoveryKind
from exporter.model.results import Found

__all__ = ["AddressDiscovery"]


class AddressDiscovery:
    """Always returns the controller at *address*, without ids or storage units, which are not known."""

    kind: Final[DiscoveryKind] = "address"
    recheck_s: Final[float | None] = None

    def __init__(self, address: str) -> None:
        self._found = Found(Endpoint(address=address))

    def look(self, previous: Endpoint | None) -> Found:
        """See :meth:`exporter.discovery.Discovery.look`. Never fails; only a ping tells whether one answers."""
        return self._found

    def close(self) -> None:
        """See :meth:`exporter.discovery.Discovery.close`."""
