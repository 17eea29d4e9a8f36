"""Conditions of the controller: whether it is there and answers."""

from __future__ import annotations

from typing import Final

from exporter.conditions.base import CLEAR, Finding, Scene, Verdict, rule
from exporter.conditions.words import span

__all__ = [
    "controller_restarting",
    "lost",
    "ping_slow",
    "starting",
    "timeouts",
    "unavailable",
    "unreachable",
]

_START_S: Final = 600.0
"""A controller that starts, or does not answer for the first time, for less than this may still do so."""
_LEAST_PINGS: Final = 5


@rule("DataPlaneLost", "data_plane", "critical", remedy="Find out why the controller died, and restart the job.")
def lost(scene: Scene) -> Verdict:
    """The data plane was found, is gone, and was not ended on purpose."""
    if scene.snapshot.discovery != "lost":
        return CLEAR
    return Finding(
        "the data plane is gone, and was not ended on purpose", _ping_age(scene), since=scene.past.state_since
    )


@rule(
    "DataPlaneUnavailable",
    "data_plane",
    "critical",
    remedy="Check whether the controller's process and node are alive.",
)
def unavailable(scene: Scene) -> Verdict:
    """The last ping could not connect to the controller."""
    return _unanswered(scene, timed_out=False, text="the controller is unavailable")


@rule(
    "DataPlaneTimeouts",
    "data_plane",
    "critical",
    remedy="Check whether the controller is stopped or busy: TransferQueue's own calls have no deadline.",
)
def timeouts(scene: Scene) -> Verdict:
    """The last ping timed out."""
    return _unanswered(scene, timed_out=True, text="the controller does not answer in time")


@rule(
    "DataPlaneUnreachable",
    "data_plane",
    "warning",
    remedy="Check the controller's address, and the network between it and the exporter.",
)
def unreachable(scene: Scene) -> Verdict:
    """The controller's address is known, but it has not answered for ten minutes."""
    return _stays(scene, "unreachable", "the controller's address is known, but it has not answered")


@rule(
    "DataPlaneStarting",
    "data_plane",
    "warning",
    remedy="Compare the job's demands in `ray status` with what is free.",
)
def starting(scene: Scene) -> Verdict:
    """The controller has been starting for more than ten minutes."""
    return _stays(scene, "starting", "the controller has been starting")


@rule(
    "DataPlaneControllerRestarting",
    "data_plane",
    "warning",
    remedy="Read the training driver's log of the last restarts. Each of them loses the queue.",
)
def controller_restarting(scene: Scene) -> Verdict:
    """New controllers replaced old ones several times within an hour."""
    seen = scene.past.values("generation")
    if not seen:
        return None
    restarts = max(scene.snapshot.generation, 1) - max(seen[0], 1)
    if restarts < scene.limit("restarts_per_hour"):
        return CLEAR
    return Finding(f"{restarts:.0f} new controllers were seen within an hour", {"restarts": restarts})


@rule(
    "DataPlanePingSlow",
    "data_plane",
    "warning",
    remedy="Find out what keeps the controller busy: large listings, or calls that wait for data.",
)
def ping_slow(scene: Scene) -> Verdict:
    """Too many pings of the last minutes took longer than the objective."""
    pings = sorted(scene.pings)
    if not scene.snapshot.up or len(pings) < _LEAST_PINGS:
        return None
    objective = scene.limit("ping_slo_objective")
    duration = pings[min(int(objective * len(pings)), len(pings) - 1)]
    if duration <= scene.limits.ping_slo_s:
        return CLEAR
    said = f"{(1 - objective) * 100:.0f} % of the pings take {duration * 1000:,.0f} ms or longer"
    return Finding(said, {"ping_seconds": duration, "slo_seconds": scene.limits.ping_slo_s})


def _unanswered(scene: Scene, *, timed_out: bool, text: str) -> Verdict:
    """Judge by whether the newest failed ping timed out. One that is on its way has no error: it does not answer."""
    if scene.snapshot.discovery != "found" or scene.snapshot.up:
        return CLEAR
    newest = next((one for one in scene.snapshot.incidents if one.source == "ping"), None)
    if timed_out != (newest is None or newest.error_type == "DataPlaneTimeout"):
        return CLEAR
    return Finding(text, _ping_age(scene), since=scene.past.state_since)


def _ping_age(scene: Scene) -> dict[str, float]:
    ping = scene.source("ping")
    return {} if ping is None or ping.last_success is None else {"ping_age_seconds": scene.now - ping.last_success}


def _stays(scene: Scene, state: str, text: str) -> Verdict:
    if scene.snapshot.discovery != state:
        return CLEAR
    since = scene.past.state_since
    if since is None:
        return None
    waited = scene.now - since
    if waited < _START_S:
        return CLEAR
    return Finding(f"{text} for {span(waited)}", {"waited_seconds": waited}, since=since)
