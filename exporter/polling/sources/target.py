"""A controller that is polled: its endpoint, its sources, and the readers that they use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from dataplane.discovery.record import Endpoint
from exporter.polling.readers import Readers
from exporter.polling.sources.base import Source

__all__ = ["Target"]

_SIMPLE_STORAGE: Final = "SimpleStorage"


@dataclass(frozen=True, eq=False)
class Target:
    """One controller.

    Attributes:
        endpoint: Where it is.
        readers: The readers of the sources; closed once no poll uses them.
        sources: Its sources, in the order of a first round; the first shows whether the controller is up.
    """

    endpoint: Endpoint
    readers: Readers
    sources: tuple[Source[Any], ...]

    @property
    def mute_storage(self) -> str | None:
        """Why the storage of this controller cannot be asked for figures, None where it can or is unknown."""
        endpoint = self.endpoint
        if endpoint.backend in (None, _SIMPLE_STORAGE) or endpoint.store_metrics is not None:
            return None
        return f"TransferQueue's backend {endpoint.backend} has no figures that can be requested"

    def is_at(self, endpoint: Endpoint) -> bool:
        """Whether *endpoint* names the same controller with the same storage and metrics."""
        return _identity(self.endpoint) == _identity(endpoint)


def _identity(endpoint: Endpoint) -> tuple[object, ...]:
    return (
        endpoint.address,
        endpoint.controller_id,
        endpoint.actor_id,
        endpoint.storage_units,
        endpoint.metrics_endpoint,
        endpoint.store_metrics,
    )
