"""Whether a data plane was found, which controller it has, and whether the controller answers."""

from __future__ import annotations

import logging

from dataplane.discovery.record import Endpoint
from dataplane.groups import DataPlaneCapabilities
from exporter.model.recorder import Recorder
from exporter.model.snapshot import DiscoveryState

__all__ = ["Lifecycle"]

logger = logging.getLogger(__name__)


class Lifecycle:
    """The discovery state and the controller in use. Not thread-safe.

    Attributes:
        discovery: Whether a data plane was found.
        endpoint: The controller in use, None when there is none.
        generation: How many controllers have been seen; 0 before the first.
        up: Whether the last ping succeeded.
        capabilities: What the reader supports, None while no ping has succeeded.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._last_endpoint: Endpoint | None = None
        self.discovery: DiscoveryState = "never_found"
        self.endpoint: Endpoint | None = None
        self.generation = 0
        self.up = False
        self.capabilities: DataPlaneCapabilities | None = None

    @property
    def running(self) -> bool:
        """Whether a failure counts as the data plane's: only after one was found and before it ended."""
        return self.discovery in ("found", "lost")

    def adopt(self, endpoint: Endpoint) -> bool:
        """Note the controller that is polled from now on; return whether it differs from the last one."""
        last, self._last_endpoint = self._last_endpoint, endpoint
        self.endpoint = endpoint
        return bool(last and last.actor_id and endpoint.actor_id and last.actor_id != endpoint.actor_id)

    def begin_generation(self) -> None:
        """Count a new controller, unless it is the first."""
        if self.generation:
            self.generation += 1
            self._recorder.restart()
            logger.warning("a new controller took over; %d controllers seen since the start", self.generation)

    def answered(self, capabilities: DataPlaneCapabilities) -> None:
        """Note a successful ping: the data plane is found and up."""
        self.up = True
        self.capabilities = capabilities
        if self.discovery != "found":
            logger.info("found TransferQueue at %s", self.endpoint.address if self.endpoint else "an unknown address")
        self.discovery = "found"
        self.generation = self.generation or 1

    def lose(self, detail: str) -> None:
        """Note that the controller is gone. *detail*: why."""
        if self.discovery == "found":
            self.discovery = "lost"
            logger.error("lost TransferQueue: %s", detail)

    def end(self, detail: str) -> None:
        """Note that the controller was ended on purpose. *detail*: how."""
        if self.running:
            self.discovery = "ended"
            logger.info("TransferQueue was ended on purpose: %s", detail or "its owner took it down")
        self.endpoint = None

    def forget_answers(self) -> None:
        """Forget the pings' results, since another controller or none is polled from now on."""
        self.up = False
        self.capabilities = None
