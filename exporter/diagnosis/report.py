"""The report at the top of a bundle: the verdict, the conditions, and what was seen, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Final

from dataplane.visible import visible
from exporter.conditions.words import clock, span
from exporter.diagnosis.evidence import Evidence
from exporter.model.condition import Condition
from exporter.model.snapshot import SourceState

__all__ = ["render_report", "verdict_lines"]

_MARKS: Final = {"critical": "!!", "warning": "! ", "notice": "- ", "ok": "  "}
_EVENTS: Final = 20


def verdict_lines(evidence: Evidence) -> list[str]:
    """Return the verdict, a sentence per line. One of an exporter that stands still is dated."""
    lines = [visible(one) for one in evidence.verdict.sentences]
    if evidence.alive:
        return lines
    at = clock(evidence.snapshot.taken_at)
    return [f"The exporter itself hangs: its polls have stopped, and what follows is as of {at}.", *lines]


def render_report(evidence: Evidence, files: Mapping[str, str]) -> str:
    """Return the report.

    Args:
        evidence: What is known. Secrets are still in it: they are masked in the text that this returns.
        files: What else is in the bundle: name and meaning.
    """
    snapshot = evidence.snapshot
    at = datetime.fromtimestamp(evidence.at, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    parts: list[tuple[str, list[str]]] = [
        (f"Diagnosis of TransferQueue, {at}, from {visible(evidence.origin)}", verdict_lines(evidence)),
        ("Conditions", [line for one in snapshot.held for line in _condition(one)] or ["none holds"]),
        ("Not evaluated", [", ".join(one.name for one in snapshot.conditions if one.holds is None) or "nothing"]),
        ("Groups concerned", list(_groups(evidence)) or ["none is named"]),
        ("Events", list(_events(evidence)) or ["none is known"]),
        ("Last failures", [_incident(one) for one in snapshot.incidents[:_EVENTS]] or ["none"]),
        ("Polls", [_source(one, snapshot.taken_at) for one in snapshot.sources]),
        ("Ray", list(_ray(evidence.ray))),
        ("Left out", [f"{visible(what)}: {visible(why)}" for what, why in evidence.missing.items()]),
        ("Files", [f"{name}: {meaning}" for name, meaning in files.items()]),
    ]
    return "\n\n".join("\n".join([title, "-" * len(title), *lines]) for title, lines in parts if lines) + "\n"


def _condition(one: Condition) -> Iterator[str]:
    since = "" if one.since is None else f", since {clock(one.since)}"
    yield f"{_MARKS[one.severity]} {visible(one.text)} ({one.stage.replace('_', ' ')}, {one.name}{since})"
    figures = ", ".join(f"{visible(name)} {value:g}" for name, value in one.evidence.items())
    if figures:
        yield f"   evidence: {figures}"
    if one.remedy:
        yield f"   first: {visible(one.remedy)} {visible(one.runbook)}"


def _groups(evidence: Evidence) -> Iterator[str]:
    for name, groups in evidence.groups.items():
        yield f"{visible(name)}:"
        for one in groups:
            shown = one if isinstance(one, Mapping) else {}
            figures = [
                f"{key} {shown[key]}"
                for key in ("state", "version", "lag", "keys", "age_seconds")
                if shown.get(key) is not None
            ]
            where = f"{shown.get('group_id') or '(id left out)'} of {shown.get('partition', '?')}"
            yield visible(f"  {where}: {', '.join(figures)}")


def _events(evidence: Evidence) -> Iterator[str]:
    hour = evidence.windows.get("hour")
    for one in [] if hour is None else hour.changes[:_EVENTS]:
        detail = f" ({one['detail']})" if one.get("detail") else ""
        yield visible(f"{clock(float(one.get('at', 0)))} the data plane is {one.get('state')}{detail}")


def _incident(one: Any) -> str:
    return visible(f"{clock(one.at)} {one.source}, {one.operation}: {one.error_type}: {one.detail}")


def _source(one: SourceState, now: float) -> str:
    took = "" if one.duration is None else f", took {one.duration * 1000:.1f} ms"
    every = "" if one.interval is None else f", every {one.interval:g} s"
    last = "never succeeded" if one.last_success is None else f"last success {span(now - one.last_success)} ago"
    return visible(f"{one.source}: {one.reason}, {last}{took}{every}" + (f": {one.detail}" if one.detail else ""))


def _ray(ray: Mapping[str, Any] | None) -> Iterator[str]:
    for one in (ray or {}).get("actors", []):
        place = f"process {one.get('pid')} on node {one.get('node_id')}"
        yield visible(
            f"{one.get('name') or one.get('class')}: {one.get('state')}, {place}, restarted {one.get('restarts')} times"
        )
