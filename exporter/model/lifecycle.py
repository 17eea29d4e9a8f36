"""Whether a data plane was found, which controller it has, and whether the controller answers."""

from __future__ import annotations

import logging

import msgspec

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
        sender_id: The id that it answers under, None while it is not known.
        generation: How many controllers have been seen; 0 before the first.
        up: Whether the last ping succeeded.
        capabilities: What the reader supports, None while no ping has succeeded.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._last_endpoint: Endpoint | None = None
        self.discovery: DiscoveryState = "never_found"
        self.endpoint: Endpoint | None = None
        self.sender_id: str | None = None
        self.generation = 0
        self.up = False
        self.capabilities: DataPlaneCapabilities | None = None

    @property
    def counts_failures(self) -> bool:
        """Whether a failure counts as an error: there is, or was, a data plane that should answer."""
        return self.discovery not in ("never_found", "ended")

    @property
    def running(self) -> bool:
        """Whether a controller has answered and was not ended since."""
        return self.discovery in ("found", "lost")

    @property
    def known_endpoint(self) -> Endpoint | None:
        """The controller in use, with the id that it answers under: its checkpoint's once it has loaded one."""
        if self.endpoint is None or self.sender_id is None:
            return self.endpoint
        return msgspec.structs.replace(self.endpoint, controller_id=self.sender_id)

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
            logger.warning(
                "a new controller replaced the last one; %d controllers seen since the start", self.generation
            )

    def answered(self, capabilities: DataPlaneCapabilities) -> None:
        """Note a successful ping: the data plane is found and up."""
        self.up = True
        self.capabilities = capabilities
        if self.discovery != "found":
            logger.info("found TransferQueue at %s", self.endpoint.address if self.endpoint else "an unknown address")
        self.discovery = "found"
        self.generation = self.generation or 1

    def unanswered(self, detail: str, *, gone: bool) -> None:
        """Note a failed ping. *detail*: why. *gone*: nobody is there; a controller that is there may answer again."""
        self.up = False
        if not self.running:
            self.discovery = "unreachable"
        elif gone:
            self._lose(detail)

    def start(self, detail: str) -> None:
        """Note that the named controller cannot be used yet. *detail*: why.

        While another one is lost it stays lost: that job stands still until a controller answers.
        """
        if not self.running:
            self.discovery, self.endpoint = "starting", None
        elif not self.up:
            self._lose(detail)

    def absent(self, detail: str) -> None:
        """Note that there is no controller. *detail*: why. One that answers counts more than what the look-up says."""
        if not self.running:
            self._rest()
        elif not self.up:
            self._lose(detail)

    def end(self, detail: str) -> None:
        """Note that the controller was ended on purpose. *detail*: how."""
        if self.running:
            logger.info("TransferQueue was ended on purpose: %s", detail or "its owner stopped it")
        self._rest()

    def _rest(self) -> None:
        """Wait for a controller. Once one has answered, the state is ``ended`` rather than ``never_found``."""
        self.discovery = "ended" if self.generation else "never_found"
        self.endpoint = None

    def _lose(self, detail: str) -> None:
        if self.discovery != "lost":
            self.discovery = "lost"
            logger.error("lost TransferQueue: %s", detail)

    def forget_answers(self) -> None:
        """Forget what the controller said, since another one or none is polled from now on."""
        self.up = False
        self.capabilities = None
        self.sender_id = None
