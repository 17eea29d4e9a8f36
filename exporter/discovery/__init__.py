"""Discovery: where is the controller? Three ways, one answer.

A look-up finds and never makes: it creates no controller, no cluster, and changes nothing in either.
"""

from __future__ import annotations

from typing import Literal, Protocol

from dataplane.discovery.record import Endpoint
from exporter.config import Config
from exporter.model.results import Absent, Found

__all__ = ["Discovery", "DiscoveryKind", "build_discovery"]

DiscoveryKind = Literal["address", "file", "ray"]


class Discovery(Protocol):
    """One way to find the controller.

    Attributes:
        kind: Which way it is.
        recheck_s: Seconds after which to look again while all is well; None to look only after a failed ping.
    """

    @property
    def kind(self) -> DiscoveryKind:
        """See above."""
        ...

    @property
    def recheck_s(self) -> float | None:
        """See above."""
        ...

    def look(self, previous: Endpoint | None) -> Found | Absent:
        """Look once. Blocks, but never longer than the configured deadline.

        Args:
            previous: The controller in use until now, None when there was none. It tells a controller that was
                ended from one that never was.

        Raises:
            DataPlaneError: The look-up itself failed, so nothing is known: ``DataPlaneTimeout`` when it took too
                long, ``DataPlaneUnavailable`` when it was refused, ``DataPlaneReadError`` when its answer
                cannot be read.
        """
        ...

    def close(self) -> None:
        """End a look-up in flight, in any thread, and refuse further ones. Idempotent."""
        ...


def build_discovery(config: Config) -> Discovery:
    """Return the way to find the controller that *config* names."""
    from exporter.discovery.address import AddressDiscovery
    from exporter.discovery.file import FileDiscovery
    from exporter.discovery.ray_child import RayDiscovery

    settings = config.discovery
    if settings.controller is not None:
        return AddressDiscovery(settings.controller)
    if settings.file is not None:
        return FileDiscovery(settings.file)
    return RayDiscovery(settings.ray_address, timeout_s=settings.timeout)
