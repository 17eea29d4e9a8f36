"""Discovery by a fixed address: nothing to look up."""

from __future__ import annotations

from typing import Final

from dataplane.discovery.record import Endpoint
from exporter.discovery import DiscoveryKind
from exporter.model.results import Found

__all__ = ["AddressDiscovery"]


class AddressDiscovery:
    """Always finds the controller at *address*, and knows nothing else of it: no ids, no storage units."""

    kind: Final[DiscoveryKind] = "address"
    recheck_s: Final[float | None] = None

    def __init__(self, address: str) -> None:
        self._found = Found(Endpoint(address=address))

    def look(self, previous: Endpoint | None) -> Found:
        """See :meth:`exporter.discovery.Discovery.look`. Never fails: only a ping tells whether one is there."""
        return self._found

    def close(self) -> None:
        """See :meth:`exporter.discovery.Discovery.close`."""
