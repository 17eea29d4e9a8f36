"""The report of a run as one HTML file, without scripts and without the network: what a post-mortem begins with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any, Final

import msgspec

from exporter.conditions.words import count, span
from exporter.model.condition import SEVERITIES
from exporter.model.samples import COLUMNS, PLANE_COLUMNS
from exporter.recording.archive import MAX_POINTS, Archive, StoredEvent, holes
from exporter.recording.drawing import Axis, Bar, Line, bars, chart, safe, time_of
from exporter.recording.frames import Figures, Frame
from exporter.recording.plain_words import STATES, describe, lasted, state_word
from exporter.recording.summary import together

__all__ = ["render_report"]

_TONES: Final = {"critical": "bad", "warning": "warn", "notice": "idle"}
_MOST: Final = 100
_SLOWEST: Final = 10
_RATE_S: Final = 30.0
_SHORTEST_S: Final = 4.0
_STYLES: Final = (("web", "page", "style.css"), ("recording", "report.css"))
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def render_report(archive: Archive) -> str:
    """Return the report of a recording as HTML.

    Raises:
        RecordingError: The file cannot be read.
    """
    begin, end = archive.span()
    events = archive.events(begin, end)
    # Each frame, without its figures: there may be many.
    raw = [
        msgspec.structs.replace(frame, total=None, trained=None, partitions={}) for frame in archive.walk(begin, end)
    ]
    step = max((end - begin) / MAX_POINTS, 10.0)
    frames = archive.frames(begin, end, step)
    summaries = archive.summaries()
    axis = Axis(begin, end)
    processes = [event for event in events if event.kind == "exporter"]
    run = next((str(event.detail["run"]) for event in reversed(processes) if event.detail.get("run")), "")
    title = f"TransferQueue run {run}".strip()
    gaps = holes(raw)
    parts = [
        _section("In short", _words(describe(begin, end, events, gaps, together(summaries)))),
        _section("Timeline", _timeline(axis, events, gaps)),
        _section("What was wrong", _conditions(events, end)),
        _section("Flow", _flow(axis, frames)),
        _section("Staleness", _staleness(axis, frames)),
        _section("Errors", _errors(events)),
        _section("Slowest polls", _slowest(raw)),
        _section("Groups that left unusually", _departures(events)),
        _section("Versions and processes", _versions(events, end)),
        _section("Terms", _words(_TERMS)),
    ]
    style = "\n".join(files("exporter").joinpath(*path).read_text("utf-8") for path in _STYLES)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{safe(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<main class="report">\n<h1>{safe(title)}</h1>\n'
        f'<p class="note">{time_of(begin)} to {time_of(end)}; all times are UTC. From the recording '
        f"{safe(archive.path.name)}.</p>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


_TERMS: Final = (
    "Counts of groups are lower bounds: a group that arrives and leaves between two listings is not seen. They cover "
    "the train partitions.",
    "Left complete: the group was last seen ready or taken. It was trained, or evicted while it was ready: a listing "
    "does not distinguish the two.",
    "Left not ready: the group was last seen uncommitted, incomplete or failed.",
    "Lost: the group disappeared with its controller, or when a checkpoint was loaded.",
    "Starved and stalled: seconds in which such a condition held. Lower bounds, because a condition holds only after "
    "some time.",
    "Lag: weight versions between the trainer and the group when it was last seen.",
    "Not recorded: no exporter wrote to the file. It does not mean that nothing happened.",
)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{safe(title)}</h2>\n{body}</section>\n"


def _words(sentences: Iterable[str]) -> str:
    return f'<ul class="words">{"".join(f"<li>{safe(one)}</li>" for one in sentences)}</ul>\n'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], empty: str) -> str:
    """Return a table. The cells are HTML."""
    if not rows:
        return f'<p class="note">{safe(empty)}</p>\n'
    head = "".join(f'<th scope="col">{safe(name)}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows[:_MOST])
    more = f'<p class="note">{count(len(rows) - _MOST)} more are in the recording.</p>\n' if len(rows) > _MOST else ""
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n{more}'


def _badge(severity: str) -> str:
    return f'<span class="badge" data-tone="{_TONES.get(severity, "idle")}">{safe(severity)}</span>'


def _timeline(axis: Axis, events: Sequence[StoredEvent], gaps: Sequence[tuple[float, float]]) -> str:
    states = [
        Bar(
            one.at,
            one.until or axis.end,
            STATES.get(one.name, ("", "idle"))[1],
            _said(state_word(one.name), one, axis.end),
        )
        for one in events
        if one.kind == "state"
    ]
    lanes: list[tuple[str, Sequence[Bar]]] = [("State", states)]
    held: dict[str, list[Bar]] = defaultdict(list)
    for one in _by_severity(events):
        bar = Bar(one.at, one.until or axis.end, _TONES.get(one.severity, "idle"), _said(one.name, one, axis.end))
        held[one.name].append(bar)
    lanes += list(held.items())[:20]
    for kind, name in (("controller", "Controllers"), ("exporter", "Exporter")):
        lives = [one for one in events if one.kind == kind]
        lanes.append(
            (name, [Bar(one.at, one.until or axis.end, "mark", _said(one.name, one, axis.end)) for one in lives])
        )
    back = [one for one in events if one.kind == "version" and one.severity]
    if back:
        lanes.append(
            ("Version stepped back", [Bar(one.at, one.at, "warn", _said(one.name, one, axis.end)) for one in back])
        )
    failures = [one for one in events if one.kind == "incident"]
    lanes.append(
        (
            "Failed calls",
            [Bar(one.at, one.until or one.at, "bad", _said(_call(one), one, axis.end)) for one in failures],
        )
    )
    lanes.append(
        ("Not recorded", [Bar(one, other, "idle", f"not recorded for {span(other - one)}") for one, other in gaps])
    )
    return bars(axis, lanes, label="What happened, over time")


def _said(what: str, one: StoredEvent, end: float) -> str:
    until = one.until or end
    times = (
        f"at {time_of(one.at)}" if until == one.at else f"{time_of(one.at)} to {time_of(until)}, {span(until - one.at)}"
    )
    return f"{what}: {times}{f', {one.count} times' if one.count > 1 else ''}"


def _by_severity(events: Iterable[StoredEvent]) -> list[StoredEvent]:
    """Return the conditions, the worst first."""
    rank: dict[str, int] = {severity: index for index, severity in enumerate(SEVERITIES)}
    found = [one for one in events if one.kind == "condition"]
    return sorted(found, key=lambda one: (-rank.get(one.severity, -1), one.at))


def _conditions(events: Sequence[StoredEvent], end: float) -> str:
    rows = [
        (
            _badge(one.severity),
            f"<strong>{safe(one.name)}</strong><br>{safe(one.detail.get('text', ''))}",
            f"{time_of(one.at)}<br>{safe(lasted(one, end))}",
            _evidence(one.detail),
            f"{safe(one.detail.get('remedy', ''))}<br><span class='note'>{safe(one.detail.get('runbook', ''))}</span>",
        )
        for one in _by_severity(events)
    ]
    return _table(("How bad", "What", "When (UTC)", "Evidence", "What to do"), rows, "No condition held.")


def _evidence(detail: dict[str, Any]) -> str:
    evidence = detail.get("evidence")
    said = []
    if isinstance(evidence, dict):
        said += [
            f"{safe(name)} {safe(f'{value:.6g}' if isinstance(value, float) else value)}"
            for name, value in evidence.items()
        ]
    for name in ("partitions", "groups"):
        listed = detail.get(name)
        if isinstance(listed, list) and listed:
            said.append(f"{name}: {', '.join(safe(one) for one in listed)}")
    return "<br>".join(said)


def _flow(axis: Axis, frames: Sequence[Frame]) -> str:
    times, gap_s = [frame.at for frame in frames], _gap_s(frames)
    trained = [frame.trained for frame in frames]
    rates = [
        Line("in per second", "in", _rates(frames, "arrived")),
        Line("completed per second", "ready", _rates(frames, "completed")),
        Line("out per second", "out", _rates(frames, "departed")),
    ]
    queue = [
        Line(name, name, _column(trained, name)) for name in ("ready", "incomplete", "uncommitted", "failed", "taken")
    ]
    ping = [Line("ping", "in", [frame.plane[PLANE_COLUMNS.index("ping")] for frame in frames])]
    fill = [Line("fullest unit", "incomplete", [frame.plane[PLANE_COLUMNS.index("fill")] for frame in frames])]
    return "".join(
        chart(axis, times, lines, title=title, gap_s=gap_s, unit=unit)
        for title, lines, unit in (
            ("Groups in and out", rates, "/s"),
            ("Groups in the queue, by state", queue, ""),
            ("Ping of the controller", ping, " s"),
            ("Storage used, 0 to 1", fill, ""),
        )
    )


def _staleness(axis: Axis, frames: Sequence[Frame]) -> str:
    times, gap_s = [frame.at for frame in frames], _gap_s(frames)
    trained = [frame.trained for frame in frames]
    lag = [
        Line("largest", "worst", _column(trained, "staleness_max")),
        Line("mean", "mean", _column(trained, "staleness_mean")),
    ]
    version = [Line("weight version", "lag", _column(trained, "reference_version"))]
    return chart(axis, times, lag, title="Lag in weight versions", gap_s=gap_s) + chart(
        axis, times, version, title="The trainer's weight version", gap_s=gap_s
    )


def _column(rows: Sequence[Figures | None], name: str) -> Figures:
    index = COLUMNS.index(name)
    return [None if row is None else row[index] for row in rows]


def _rates(frames: Sequence[Frame], name: str) -> Figures:
    """Return how fast a counter grows, from listing to listing, as a mean over half a minute or more."""
    trained = [frame.trained for frame in frames]
    counted, age = _column(trained, name), _column(trained, "listed")
    listed = [None if old is None else frame.at - old for frame, old in zip(frames, age, strict=True)]
    found: Figures = []
    start = 0
    for index, (value, at) in enumerate(zip(counted, listed, strict=True)):
        if value is None or at is None:
            start = index + 1
            found.append(None)
            continue
        while start < index and at - (listed[start + 1] or 0) >= _RATE_S:
            start += 1
        elapsed, grown = at - (listed[start] or 0), value - (counted[start] or 0)
        if grown < 0:  # another process counts from 0
            start = index
        found.append(None if grown < 0 or elapsed < _SHORTEST_S else grown / elapsed)
    return found


def _gap_s(frames: Sequence[Frame]) -> float:
    return 2.5 * max((frame.step for frame in frames), default=10.0)


def _call(one: StoredEvent) -> str:
    return f"{one.name} failed with {one.severity}"


def _errors(events: Sequence[StoredEvent]) -> str:
    kinds: dict[tuple[str, str], list[StoredEvent]] = defaultdict(list)
    for one in events:
        if one.kind == "incident":
            kinds[one.name, one.severity].append(one)
    rows = [
        (
            safe(operation),
            safe(kind),
            count(sum(one.count for one in same)),
            time_of(same[0].at),
            time_of(same[-1].until or same[-1].at),
            safe(same[-1].detail.get("reason", "")),
        )
        for (operation, kind), same in sorted(kinds.items(), key=lambda one: -sum(each.count for each in one[1]))
    ]
    return _table(("Operation", "Type", "Times", "First (UTC)", "Last (UTC)", "Last reason"), rows, "No call failed.")


def _slowest(frames: Sequence[Frame]) -> str:
    """Return the slowest polls. A frame repeats a poll's duration until the next one has ended."""
    calls: list[tuple[float, float, str]] = []
    before: dict[str, float] = {}
    for frame in frames:
        calls += [(took, frame.at, source) for source, took in frame.took.items() if before.get(source) != took]
        before = frame.took
    rows = [
        (safe(source), f"{took * 1000:,.1f} ms", time_of(at))
        for took, at, source in sorted(calls, reverse=True)[:_SLOWEST]
    ]
    return _table(("Poll", "Took", "When (UTC)"), rows, "No poll was recorded.")


def _departures(events: Sequence[StoredEvent]) -> str:
    rows = [
        (
            time_of(one.at),
            safe(one.name),
            safe(one.severity),
            safe(", ".join(f"{name} {value}" for name, value in one.detail.items())),
        )
        for one in reversed(events)
        if one.kind == "departure"
    ]
    return _table(("When (UTC)", "Group", "Last state", "What is known"), rows, "None was recorded.")


def _versions(events: Sequence[StoredEvent], end: float) -> str:
    rows = []
    for one in events:
        if one.kind in ("exporter", "controller"):
            known = {name: value for name, value in one.detail.items() if name not in ("identity", "version")}
            said = ", ".join(f"{name} {_flat(value)}" for name, value in known.items())
            killed = " (it was killed, or the machine stopped)" if one.cut and one.kind == "exporter" else ""
            rows.append(
                (safe(one.kind), safe(one.name), f"{time_of(one.at)}<br>{safe(lasted(one, end) + killed)}", safe(said))
            )
    return _table(("What", "Name", "When (UTC)", "What is known"), rows, "Nothing is known.")


def _flat(value: Any) -> str:
    return ", ".join(f"{name} {one}" for name, one in value.items()) if isinstance(value, dict) else str(value)
