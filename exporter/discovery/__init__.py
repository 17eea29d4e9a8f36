"""Finds the controller: at a fixed address, from a file, or through Ray.

A look-up never creates or changes a controller or a cluster.
"""

from __future__ import annotations

from typing import Literal, Protocol

import msgspec

from dataplane.discovery.record import Endpoint
from exporter.config import Config
from exporter.model.results import Absent, Found

__all__ = ["Discovery", "DiscoveryKind", "build_discovery"]

DiscoveryKind = Literal["address", "file", "ray"]


class Discovery(Protocol):
    """One way to find the controller.

    Attributes:
        kind: Which of the three ways it is.
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
        """Look the controller up once. Blocks for the configured deadline at most.

        Args:
            previous: The controller in use until now, None when there was none. With it, the look-up can tell a
                controller that has ended from one that never existed.

        Raises:
            DataPlaneNotReady: A controller is there and cannot be used yet: it is starting.
            DataPlaneError: The look-up itself failed, so nothing is known: ``DataPlaneTimeout`` when it took too
                long, ``DataPlaneUnavailable`` when it was refused, ``DataPlaneReadError`` when its answer
                cannot be read.
        """
        ...

    def close(self) -> None:
        """Abort a look-up in flight and refuse further ones. May be called from any thread. Idempotent."""
        ...


class _WithStore:
    """A discovery that names the metrics of Mooncake's master in the endpoints that *inner* finds."""

    def __init__(self, inner: Discovery, url: str) -> None:
        self._inner = inner
        self._store = url.removeprefix("http://")
        self.kind = inner.kind
        self.recheck_s = inner.recheck_s

    def look(self, previous: Endpoint | None) -> Found | Absent:
        """See :meth:`Discovery.look`."""
        found = self._inner.look(previous)
        if isinstance(found, Absent):
            return found
        return Found(msgspec.structs.replace(found.endpoint, store_metrics=self._store))

    def close(self) -> None:
        """See :meth:`Discovery.close`."""
        self._inner.close()


def build_discovery(config: Config) -> Discovery:
    """Return the discovery that *config* selects."""
    url = config.storage.mooncake_url
    return _selected(config) if url is None else _WithStore(_selected(config), url)


def _selected(config: Config) -> Discovery:
    from exporter.discovery.address import AddressDiscovery
    from exporter.discovery.file import FileDiscovery
    from exporter.discovery.ray_child import RayDiscovery

    settings = config.discovery
    if settings.controller is not None:
        return AddressDiscovery(settings.controller)
    if settings.file is not None:
        return FileDiscovery(settings.file)
    return RayDiscovery(settings.ray_address, timeout_s=settings.timeout)
