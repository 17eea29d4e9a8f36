"""The terminal's page: what is wrong first, then the queue, its flow, storage, polls and failures.

Every line fits the width, and what matters least is cut when the height does not suffice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from dataplane.visible import visible
from exporter.conditions.words import clock, count, percent, span
from exporter.diagnosis.verdict import give_verdict
from exporter.model.snapshot import PartitionState, Snapshot, SourceState
from exporter.model.storage import StorageState
from exporter.model.window import Window
from exporter.terminal.findings import MARKS
from exporter.terminal.frame import Frame
from exporter.terminal.outside import visible_snapshot
from exporter.terminal.sparkline import growth, sparkline

__all__ = ["page_lines"]

_RATE_S: Final = 60.0
_WIDE: Final = 96
_MAX_UNITS: Final = 4
_MAX_INCIDENTS: Final = 5
_LINES_PER_CONDITION: Final = 3
_LEAST_HEIGHT: Final = 5


def page_lines(frame: Frame, console: Console, now: float, *, height: int | None = None) -> list[Text]:
    """Return the lines of the page, none longer than the console is wide.

    Args:
        frame: What to show.
        console: Where it will be printed; it is only asked for its width and encoding.
        now: The present time, seconds since the epoch.
        height: Lines at most, None for all.
    """
    width = console.width
    lines = list(_banner(frame, now))
    if frame.snapshot is not None:
        seen = visible_snapshot(frame.snapshot)
        body = [*_top(seen, frame.recent, console), *_body(seen, frame.recent, console)]
        if frame.lost_since is not None:
            for line in body:
                line.stylize("dim")
        lines += body
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    if height is not None and len(lines) > max(height, _LEAST_HEIGHT):
        cut = len(lines) - max(height, _LEAST_HEIGHT) + 1
        lines = [*lines[:-cut], Text(f"({cut} more lines)", style="dim")]
    return lines


def _banner(frame: Frame, now: float) -> Iterator[Text]:
    if frame.lost_since is not None:
        age = span(now - frame.lost_since)
        yield Text(f"NO ANSWER since {clock(frame.lost_since)} ({age})", style="bold red")
        yield Text(visible(frame.why), style="red")
        if frame.snapshot is not None:
            yield Text(f"below is what was seen {span(now - frame.snapshot.taken_at)} ago", style="red")
    elif frame.snapshot is None:
        yield Text(f"waiting for {visible(frame.origin)}", style="dim")


def _top(snapshot: Snapshot, recent: Window | None, console: Console) -> Iterator[Text]:
    up = ("degraded", "bold red") if snapshot.degraded else ("up", "bold green")
    line = Text("TransferQueue ", style="bold")
    line.append(*(up if snapshot.up else (f"down ({snapshot.discovery.replace('_', ' ')})", "bold red")))
    endpoint = snapshot.endpoint
    line.append(f" {clock(snapshot.taken_at)}")
    line.append("" if endpoint is None else f" {endpoint.address}{f' {endpoint.run}' if endpoint.run else ''}")
    yield line
    if not snapshot.held:
        verdict = give_verdict(snapshot, recent)
        yield from _wrapped(Text(verdict.sentences[0], style="green" if snapshot.up else ""), console)
    for one in snapshot.held:
        mark, style = MARKS[one.severity]
        since = "" if one.since is None else f" (since {clock(one.since)})"
        yield from _wrapped(Text(f"{mark} {one.text}{since}", style=style), console)
        if one.severity == "critical":
            yield Text(f"   {one.remedy}", style="dim")


def _wrapped(text: Text, console: Console) -> list[Text]:
    lines = list(text.wrap(console, console.width))
    for line in lines:
        line.rstrip()
    if len(lines) > _LINES_PER_CONDITION:
        lines = lines[:_LINES_PER_CONDITION]
        lines[-1].truncate(console.width - 1)
        lines[-1].append("…")
    return lines


def _body(snapshot: Snapshot, recent: Window | None, console: Console) -> Iterator[Text]:
    wide = console.width >= _WIDE
    if snapshot.up:
        yield from _partitions(snapshot, wide=wide, width=console.width)
        yield from _flow(snapshot, recent, console)
    yield from _storage(snapshot.storage)
    yield from _sources(snapshot.sources)
    if snapshot.incidents:
        yield Text("Last failures", style="bold")
        for one in snapshot.incidents[:_MAX_INCIDENTS]:
            yield Text(f"{clock(one.at)[:8]} {one.operation}: {one.error_type}: {one.detail}")


def _partitions(snapshot: Snapshot, *, wide: bool, width: int) -> Iterator[Text]:
    names = ("ready", "taken", "unfinished", "failed", "lag")
    titles = (*names, "keys", "versions") if wide else ("ready", "taken", "unfin", "fail", "lag")
    sizes = [max(len(title), 6) + 1 for title in titles]
    if wide:
        sizes[-1] = 16
    longest = max((len(one.partition) for one in snapshot.statuses), default=0) + 2
    first = min(width - sum(sizes), max(longest, len("Partitions") + 2))
    yield Text(
        "Partitions".ljust(first) + "".join(t.rjust(n) for t, n in zip(titles, sizes, strict=True)), style="bold"
    )
    unread = {one.partition: one for one in snapshot.statuses if not one.readable}
    for part in snapshot.partitions:
        if part.partition not in unread:
            yield _row(part.partition, first, _figures(part, wide=wide), sizes)
    for name, one in unread.items():
        row = _row(name, first, [], sizes)
        yield row.append(f" cannot be read: {(one.reason or '').replace('_', ' ')}", style="yellow")
    if not snapshot.partitions and not unread:
        yield Text("(none)" if snapshot.total is not None else "(not known)", style="dim")


def _row(name: str, first: int, figures: Sequence[str], sizes: Sequence[int]) -> Text:
    cell = Text(name)
    cell.truncate(max(first, 8), overflow="ellipsis", pad=bool(figures))
    return cell.append("".join(one.rjust(size) for one, size in zip(figures, sizes, strict=False)))


def _figures(part: PartitionState, *, wide: bool) -> list[str]:
    groups = part.groups
    unfinished = groups["uncommitted"] + groups["incomplete"]
    figures = [count(one) for one in (groups["ready"], groups["taken"], unfinished, groups["failed"])]
    figures.append("?" if part.staleness_max is None else str(part.staleness_max))
    if wide:
        figures += [count(part.keys), f"{_known(part.oldest_version)}..{_known(part.newest_version)}"]
    return figures


def _known(value: int | None) -> str:
    return "?" if value is None else str(value)


def _flow(snapshot: Snapshot, recent: Window | None, console: Console) -> Iterator[Text]:
    version = _known(snapshot.reference_version)
    changed = snapshot.reference_changed_at
    since = "" if changed is None else f" for {span(snapshot.taken_at - changed)}"
    yield Text(f"Training data, version {version}{since}", style="bold")
    if recent is None:
        train = next((one for one in snapshot.role_flows if one.role == "train"), None)
        if train is not None:
            left = sum(train.departed.values())
            yield Text(f"arrived {count(train.arrived)}, completed {count(train.completed)}, left {count(left)} in all")
        return
    ascii_only = console.options.ascii_only
    bars = max(console.width - 26, 10)
    for title, column in (("arrive", "arrived"), ("complete", "completed"), ("leave", "departed")):
        rate = recent.rate(column, _RATE_S)
        said = "?" if rate is None else f"{rate * 60:.3g}/min"
        drawn = sparkline(growth(recent.trained.get(column, [])), bars, ascii_only=ascii_only)
        yield Text(f"{title:<9}{said:>12}  {drawn}")
    ready = recent.trained.get("ready", [])
    last = next((one for one in reversed(ready) if one is not None), None)
    drawn = sparkline(ready, bars, ascii_only=ascii_only)
    yield Text(f"{'ready':<9}{'?' if last is None else count(last):>12}  {drawn}")
    ping = next((one for one in reversed(recent.ping) if one is not None), None)
    said = "?" if ping is None else f"{ping * 1000:.1f} ms"
    yield Text(f"{'ping':<9}{said:>12}  {sparkline(recent.ping, bars, ascii_only=ascii_only)}")


def _storage(units: Sequence[StorageState]) -> Iterator[Text]:
    if not units:
        return
    up = sum(unit.up for unit in units)
    fills = [unit.fill for unit in units if unit.fill is not None]
    fullest = f", the fullest at {percent(max(fills))}" if fills else ""
    yield Text(f"Storage: {up} of {len(units)} units answer{fullest}", style="bold" if up == len(units) else "bold red")
    ranked = sorted(units, key=lambda unit: (unit.up, -(unit.fill or 0.0)))
    for unit in ranked[:_MAX_UNITS]:
        said = unit if unit.last_answer is None else unit.last_answer
        keys = "? keys" if said.keys is None else f"{count(said.keys)} keys"
        of = "" if said.capacity is None else f" of {count(said.capacity)}"
        memory = "" if said.memory_bytes is None else f", {said.memory_bytes / 2**20:,.0f} MiB"
        state = (
            ""
            if unit.up
            else ", no answer" + ("" if unit.last_answer is None else f" since {clock(unit.last_answer.at)}")
        )
        yield Text(f"unit {unit.index}: {keys}{of}{memory}{state}", style="" if unit.up else "red")
    if len(units) > _MAX_UNITS:
        yield Text(f"({len(units) - _MAX_UNITS} more)", style="dim")


def _sources(sources: Sequence[SourceState]) -> Iterator[Text]:
    well = [one for one in sources if one.reason in ("ok", "disabled", "unsupported")]
    works = [one.source if one.duration is None else f"{one.source} {one.duration * 1000:.1f} ms" for one in well]
    yield Text(f"Polls: {', '.join(works) or 'none succeeds'}", style="bold")
    for one in sources:
        if one not in well:
            yield Text(f"{one.source} {one.reason}: {one.detail}", style="yellow" if one.reason == "budget" else "red")
