"""What happened in a run, in sentences: the head of the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from dataplane.labels import LAG_BOUNDS
from exporter.conditions.words import count, percent, span
from exporter.recording.archive import StoredEvent
from exporter.recording.drawing import time_of
from exporter.recording.summary import Summary

__all__ = ["STATES", "describe", "lasted", "state_word"]

STATES: Final = {
    "found": ("Running", "ok"),
    "degraded": ("Degraded", "bad"),
    "silent": ("No answer", "bad"),
    "lost": ("Lost", "bad"),
    "ended": ("Ended", "idle"),
    "never_found": ("Not found yet", "idle"),
    "starting": ("Starting", "warn"),
    "unreachable": ("Unreachable", "bad"),
}
"""The states of the data plane: the page's word and tone."""

_OUT: Final = ("silent", "lost", "unreachable")
_MOST: Final = 5


def state_word(state: str) -> str:
    """Return the word for a state."""
    return STATES.get(state, (state, ""))[0]


def lasted(event: StoredEvent, end: float) -> str:
    """Return how long something lasted, and whether that is its end."""
    if event.until is None:
        return f"{span(end - event.at)}, still true at the end"
    return f"{span(event.until - event.at)}{', until the recording stopped' if event.cut else ''}"


def describe(
    begin: float,
    end: float,
    events: Sequence[StoredEvent],
    gaps: Sequence[tuple[float, float]],
    summary: Summary,
) -> Iterator[str]:
    """Yield the sentences.

    Args:
        begin: Time of the first row, seconds since the epoch.
        end: Time of the last row.
        events: All events, oldest first.
        gaps: Times in which nothing was recorded.
        summary: What the run came to.
    """
    processes = sum(one.kind == "exporter" for one in events)
    by = "one process" if processes == 1 else f"{count(processes)} processes"
    yield f"The recording covers {span(end - begin)}, by {by} of the exporter."
    if gaps:
        longest = max(other - one for one, other in gaps)
        yield (
            f"Nothing was recorded in {_times(len(gaps), 'gap')}, together {span(sum(b - a for a, b in gaps))}, the "
            f"longest {span(longest)}: what happened then is unknown."
        )
    yield from _answers(events, end)
    yield from _wrong(events, end)
    yield from _groups(summary)
    yield from _weights(events)


def _answers(events: Sequence[StoredEvent], end: float) -> Iterator[str]:
    states = [one for one in events if one.kind == "state"]
    whole = _seconds(states, end)
    if not whole:
        return
    answered = _seconds([one for one in states if one.name in ("found", "degraded")], end)
    yield f"TransferQueue answered for {percent(answered / whole)} of the recorded time."
    first = next((one.at for one in states if one.name in ("found", "degraded")), end)
    outages = _joined([one for one in states if one.name in _OUT and one.at >= first], end)
    if outages:
        at, until = max(outages, key=lambda one: one[1] - one[0])
        yield (
            f"It stopped answering {_times(len(outages))}; the longest outage began at {time_of(at)} and took "
            f"{span(until - at)}."
        )
    controllers = dict.fromkeys(one.name for one in events if one.kind == "controller")
    if len(controllers) > 1:
        yield f"{count(len(controllers))} controllers answered, one after another."


def _joined(events: Sequence[StoredEvent], end: float) -> list[tuple[float, float]]:
    """Return the times of *events*, those that follow on each other as one."""
    found: list[tuple[float, float]] = []
    for one in events:
        until = one.until or end
        if found and one.at - found[-1][1] < 0.01:
            found[-1] = found[-1][0], until
        else:
            found.append((one.at, until))
    return found


def _wrong(events: Sequence[StoredEvent], end: float) -> Iterator[str]:
    held: dict[tuple[str, str], list[StoredEvent]] = defaultdict(list)
    for one in events:
        if one.kind == "condition" and one.severity in ("critical", "warning"):
            held[one.severity, one.name].append(one)
    if not held:
        yield "No warning and no critical condition held."
        return
    for severity in ("critical", "warning"):
        same = [(name, all_of) for (how, name), all_of in held.items() if how == severity]
        same.sort(key=lambda one: -_seconds(one[1], end))
        for name, all_of in same[:_MOST]:
            text = str(all_of[-1].detail.get("text", ""))
            yield (
                f"{name} ({severity}) held {_times(len(all_of))}, together {span(_seconds(all_of, end))}, first at "
                f"{time_of(all_of[0].at)}{f': {text}' if text else ''}."
            )
        if len(same) > _MOST:
            yield f"{count(len(same) - _MOST)} more kinds of {severity} conditions held."


def _seconds(events: Sequence[StoredEvent], end: float) -> float:
    return sum(max((one.until or end) - one.at, 0.0) for one in events)


def _groups(summary: Summary) -> Iterator[str]:
    if not summary.watched_s:
        return
    by_state = [f"{count(number)} {state}" for state, number in summary.evicted.items() if number]
    not_ready = ", ".join(by_state) or "none"
    yield (
        f"At least {count(summary.groups_in)} groups arrived. {count(summary.trained)} left complete, so at most "
        f"that many of those seen were trained; left not ready: {not_ready}; lost: {count(summary.lost)}."
    )
    if summary.mean_lag is not None and summary.p95_lag is not None:
        bound = f"at most {summary.p95_lag:g}" if summary.p95_lag <= LAG_BOUNDS[-1] else f"above {LAG_BOUNDS[-1]:g}"
        yield (
            f"Groups left with a mean lag of {summary.mean_lag:.2g} versions, the 95th percentile {bound}; "
            f"{count(summary.too_old)} had more than {summary.window:g}."
        )
    if summary.starved_s or summary.stalled_s:
        yield (
            f"The trainer starved for at least {span(summary.starved_s)} and was stalled for at least "
            f"{span(summary.stalled_s)}."
        )


def _weights(events: Sequence[StoredEvent]) -> Iterator[str]:
    versions = [one for one in events if one.kind == "version"]
    if versions:
        back = sum(one.severity != "" for one in versions)
        stepped = f"; it stepped back {_times(back)}" if back else ""
        yield f"The trainer's weight version went from {versions[0].name} to {versions[-1].name}{stepped}."


def _times(number: int, noun: str = "") -> str:
    if noun:
        return f"one {noun}" if number == 1 else f"{count(number)} {noun}s"
    return {1: "once", 2: "twice"}.get(number, f"{count(number)} times")
