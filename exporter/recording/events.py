"""Events of a run: what began, what ended and what happened, as it follows from one snapshot to the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from exporter.model.condition import Condition
from exporter.model.samples import plane_state
from exporter.model.snapshot import Incident, Snapshot

__all__ = ["KINDS", "Event", "Kind", "Watch"]

Kind = Literal["exporter", "state", "controller", "condition", "version", "incident", "departure"]
KINDS: Final[tuple[Kind, ...]] = ("exporter", "state", "controller", "condition", "version", "incident", "departure")
"""``exporter``: a process of the exporter; ``state``: a state of the data plane; ``controller``: one controller;
``condition``: one that held; ``version``: a weight version of the trainer; ``incident``: equal failures in a row;
``departure``: a group that left unusually."""

_MAX_TEXT: Final = 500
_MAX_FIELD: Final = 200
_MAX_FIELDS: Final = 20
_MAX_ITEMS: Final = 16
_SAME_FAILURE_S: Final = 60.0
_FRESH_TEXT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Event:
    """One event. Written again when it goes on or ends.

    Attributes:
        key: Its number, unique in this process and ascending.
        kind: What it is about.
        name: What began or happened: a state, the name of a condition, the id of a controller or group, an operation.
        at: When it began, seconds since the epoch.
        until: When it ended, the same as ``at`` for what has no duration, None while it lasts.
        severity: Of a condition its severity, of an incident its error type, of a departure the group's last state.
        count: How often it happened.
        detail: What else is known, ready for JSON.
    """

    key: int
    kind: Kind
    name: str
    at: float
    until: float | None = None
    severity: str = ""
    count: int = 1
    detail: Mapping[str, Any] = field(default_factory=dict)


class Watch:
    """Compares each snapshot with the one before, and returns the events that began, went on or ended.

    Cheap when nothing has changed. Not thread-safe.

    Args:
        process: What is known of this process of the exporter, ready for JSON; ``version`` names the event.
    """

    def __init__(self, process: Mapping[str, Any]) -> None:
        self._process = process
        self._keys = 0
        self._open: dict[tuple[Kind, str], Event] = {}
        self._said_at: dict[str, float] = {}
        self._conditions: tuple[Condition, ...] = ()
        self._version: int | None = None
        self._newest_incident: Incident | None = None
        self._failures: dict[tuple[str, str, str], Event] = {}

    def see(self, snapshot: Snapshot) -> list[Event]:
        """Return the events that *snapshot* changes."""
        found: list[Event] = []
        now = snapshot.taken_at
        if ("exporter", "") not in self._open:
            name = str(self._process.get("version", ""))
            found.append(self._begin(("exporter", ""), name, snapshot.started_at, detail=self._process))
        found += self._state(snapshot, now)
        found += self._controller(snapshot, now)
        found += self._see_conditions(snapshot.held, now)
        found += self._see_version(snapshot, now)
        found += self._see_incidents(snapshot.incidents)
        return found

    def departures(self, departures: Iterable[Mapping[str, object]], now: float) -> list[Event]:
        """Return an event for each group that left unusually.

        Args:
            departures: What is known of each. ``group_id`` names it, ``at`` is when it left (seconds since the epoch,
                by default *now*), ``state`` its last state; all else is kept as text, numbers as they are.
            now: The time, seconds since the epoch.
        """
        found = []
        for one in departures:
            at = one.get("at")
            when = float(at) if isinstance(at, int | float) else now
            detail = {
                str(key)[:_MAX_FIELD]: value if isinstance(value, int | float) else str(value)[:_MAX_FIELD]
                for key, value in list(one.items())[:_MAX_FIELDS]
                if value is not None and key not in ("at", "group_id", "state")
            }
            name, state = (str(one.get(key, ""))[:_MAX_FIELD] for key in ("group_id", "state"))
            found.append(Event(self._key(), "departure", name, when, when, state, detail=detail))
        return found

    @property
    def lasting(self) -> list[Event]:
        """The events that have not ended."""
        return list(self._open.values())

    def end(self, now: float) -> list[Event]:
        """Return the end of all that lasts: this process ends in order."""
        ended = [replace(event, until=now) for event in self._open.values()]
        self._open.clear()
        return ended

    def _key(self) -> int:
        self._keys += 1
        return self._keys

    def _begin(self, place: tuple[Kind, str], name: str, at: float, severity: str = "", **more: Any) -> Event:
        event = Event(self._key(), place[0], name[:_MAX_FIELD], at, None, severity, **more)
        self._open[place] = event
        return event

    def _end(self, place: tuple[Kind, str], now: float) -> Iterator[Event]:
        event = self._open.pop(place, None)
        if event is not None:
            yield replace(event, until=max(now, event.at))

    def _state(self, snapshot: Snapshot, now: float) -> Iterator[Event]:
        state = "degraded" if snapshot.degraded else plane_state(snapshot)
        place: tuple[Kind, str] = ("state", "")
        known = self._open.get(place)
        if known is not None and known.name == state:
            return
        yield from self._end(place, now)
        said = {one.source: one.detail for one in snapshot.sources}
        why = "" if state in ("found", "degraded") else said.get("ping") or said.get("discovery") or ""
        yield self._begin(place, state, now, detail={"reason": why[:_MAX_TEXT]} if why else {})

    def _controller(self, snapshot: Snapshot, now: float) -> Iterator[Event]:
        endpoint = snapshot.endpoint if snapshot.up else None
        if endpoint is None:  # of one that is gone nobody knows whether it comes back: the next one ends it
            return
        place: tuple[Kind, str] = ("controller", "")
        known = self._open.get(place)
        same = (snapshot.generation, endpoint.controller_id, endpoint.actor_id)
        if known is not None and known.detail["identity"] == same:
            return
        yield from self._end(place, now)
        detail = {
            "identity": same,
            "address": endpoint.address,
            "backend": endpoint.backend,
            "run": endpoint.run,
            "node": endpoint.node_id,
            "process": endpoint.pid,
            "versions": dict(list((endpoint.versions or {}).items())[:_MAX_ITEMS]),
            "generation": snapshot.generation,
        }
        yield self._begin(
            place,
            endpoint.controller_id or endpoint.address,
            now,
            detail={key: value for key, value in detail.items() if value},
        )

    def _see_conditions(self, held: tuple[Condition, ...], now: float) -> Iterator[Event]:
        names = {one.name for one in held}
        for _, name in [place for place in self._open if place[0] == "condition" and place[1] not in names]:
            yield from self._end(("condition", name), now)
        for one in held:
            place: tuple[Kind, str] = ("condition", one.name)
            known = self._open.get(place)
            if known is None:
                since = now if one.since is None else one.since
                self._said_at[one.name] = now
                yield self._begin(place, one.name, since, one.severity, detail=_described(one))
            elif now - self._said_at[one.name] >= _FRESH_TEXT_S:
                self._said_at[one.name] = now
                self._open[place] = replace(known, detail=_described(one))
                yield self._open[place]
            else:  # kept for its end, and written with it
                self._open[place] = replace(known, detail=_described(one))

    def _see_version(self, snapshot: Snapshot, now: float) -> Iterator[Event]:
        version = snapshot.reference_version
        if version is None or version == self._version:
            return
        before, self._version = self._version, version
        detail = {"reference": snapshot.reference} if before is None else {"before": before}
        severity = "warning" if before is not None and version < before else ""
        when = snapshot.reference_changed_at or now
        yield Event(self._key(), "version", str(version), when, when, severity, detail=detail)

    def _see_incidents(self, incidents: Iterable[Incident]) -> Iterator[Event]:
        fresh: list[Incident] = []
        for incident in incidents:
            if incident is self._newest_incident:
                break
            fresh.append(incident)
        if fresh:
            self._newest_incident = fresh[0]
        for incident in reversed(fresh):
            yield self._failure(incident)

    def _failure(self, incident: Incident) -> Event:
        """Return the event of a failure: the one of an equal failure shortly before, where there is one."""
        kind = (incident.source, incident.operation, incident.error_type)
        known = self._failures.get(kind)
        detail = {"source": incident.source, "reason": incident.detail[:_MAX_TEXT]}
        if known is not None and known.until is not None and incident.at - known.until <= _SAME_FAILURE_S:
            event = replace(known, until=max(incident.at, known.at), count=known.count + 1, detail=detail)
        else:
            event = Event(
                self._key(), "incident", incident.operation, incident.at, incident.at, incident.error_type, 1, detail
            )
        self._failures[kind] = event
        return event


def _described(one: Condition) -> dict[str, Any]:
    return {
        "stage": one.stage,
        "text": one.text[:_MAX_TEXT],
        "evidence": dict(list(one.evidence.items())[:_MAX_ITEMS]),
        "partitions": list(one.partitions[:_MAX_ITEMS]),
        "groups": list(one.groups[:_MAX_ITEMS]),
        "remedy": one.remedy,
        "runbook": one.runbook,
    }
