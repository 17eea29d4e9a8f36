"""A snapshot as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dataplane.groups import GROUP_STATES
from exporter.conditions.words import clock
from exporter.model.snapshot import (
    ALL_PARTITIONS,
    LAG_BUCKETS,
    PartitionState,
    RoleFlow,
    Snapshot,
    SourceState,
    StorageState,
)
from exporter.terminal.findings import findings, well
from exporter.terminal.outside import make_console, visible_snapshot
from exporter.terminal.sizes import size_text

__all__ = ["PLAIN_WIDTH", "print_snapshot", "render_snapshot"]

_UNKNOWN: Final = "?"
# Without a terminal there is no width limit, and columns must not be cut.
PLAIN_WIDTH: Final = 200
_STYLES: Final = {
    "ok": "green",
    "failing": "red",
    "stale": "red",
    "budget": "yellow",
    "disabled": "dim",
    "unsupported": "dim",
}

_UNIT_STATES: Final = {None: "ok", "DataPlaneUnavailable": "gone", "DataPlaneTimeout": "silent"}


def print_snapshot(snapshot: Snapshot, console: Console | None = None, *, watched_s: float | None = None) -> None:
    """Print *snapshot* on *console*, by default standard output. *watched_s*: see :func:`render_snapshot`."""
    if console is None:
        console = make_console()
        if not console.is_terminal:
            console = make_console(width=PLAIN_WIDTH)
    console.print(render_snapshot(snapshot, watched_s=watched_s))


def render_snapshot(snapshot: Snapshot, *, watched_s: float | None = None) -> RenderableType:
    """Return *snapshot* as rich tables. ``?`` is unknown, ``-`` a capacity without limit or unknown.

    Args:
        snapshot: What to show.
        watched_s: For how many seconds the data plane was watched before, to show what happened meanwhile; None for a
            single poll, which shows no flow.
    """
    snapshot = visible_snapshot(snapshot)
    parts: list[RenderableType] = [_headline(snapshot), *well(snapshot), *findings(snapshot)]
    if snapshot.up:
        shown = list(snapshot.partitions)
        if len(shown) > 1 and snapshot.total is not None:
            shown.append(snapshot.total)
        parts.append(_partitions(shown, "(none)" if snapshot.total is not None else "(not known)"))
        if any(partition.groups for partition in shown):
            parts.append(_lags(shown))
        if watched_s is not None:
            parts.append(_flow(snapshot.role_flows, watched_s))
    if snapshot.samples:
        parts.append(_tasks(snapshot))
    if snapshot.storage:
        parts.append(_storage(snapshot.storage))
    parts.append(_sources(snapshot.sources))
    return Group(*parts)


def _headline(snapshot: Snapshot) -> Text:
    line = Text()
    line.append("TransferQueue ", style="bold")
    state, style = ("degraded", "bold red") if snapshot.degraded else ("up", "bold green")
    line.append(*((state, style) if snapshot.up else ("down", "bold red")))
    endpoint = snapshot.endpoint
    if snapshot.discovery != "found":
        line.append(f" ({snapshot.discovery.replace('_', ' ')})")
    if endpoint is not None:
        said = (endpoint.backend, endpoint.controller_id, endpoint.run)
        line.append(f" at {endpoint.address}" + "".join(f", {item}" for item in said if item))
    return line.append(f", {clock(snapshot.taken_at)}")


def _partitions(partitions: Iterable[PartitionState], nothing: str) -> Table:
    table = _table("Partitions", "partition", "role", *GROUP_STATES, "keys", "size", "versions", "reference")
    for partition in partitions:
        table.add_row(
            Text(partition.partition),
            "" if partition.partition == ALL_PARTITIONS else partition.role,
            *(str(partition.groups.get(state, 0)) for state in GROUP_STATES),
            str(partition.keys),
            size_text(partition.size_bytes),
            f"{_number(partition.oldest_version)}..{_number(partition.newest_version)}",
            " ".join([_number(partition.reference_version), (partition.reference or "").replace("_", " ")]).strip(),
        )
    if not table.row_count:
        table.add_row(nothing)
    return table


def _lags(partitions: Iterable[PartitionState]) -> Table:
    table = _table("Groups by lag in weight versions", "partition", *LAG_BUCKETS, "mean", "max")
    for partition in partitions:
        mean = partition.staleness_mean
        counts = (str(partition.staleness.get(bucket, 0)) for bucket in LAG_BUCKETS)
        average = _UNKNOWN if mean is None else f"{mean:.2f}"
        table.add_row(Text(partition.partition), *counts, average, _number(partition.staleness_max))
    return table


def _flow(flows: Iterable[RoleFlow], watched_s: float) -> Table:
    title = f"Groups in the last {watched_s:g} s, at least"
    departed = (f"left {state}" for state in GROUP_STATES)
    table = _table(title, "role", "arrived", "completed", *departed, "lost", "restored")
    for flow in flows:
        left = (str(flow.departed[state]) for state in GROUP_STATES)
        table.add_row(flow.role, str(flow.arrived), str(flow.completed), *left, str(flow.lost), str(flow.restored))
    return table


def _tasks(snapshot: Snapshot) -> Table:
    table = _table("Samples and tasks (* judges the partition)", "partition", "samples", "task", "consumed", "produced")
    for partition in snapshot.samples:
        name, samples = Text(partition.partition), str(partition.samples)
        for task in snapshot.tasks:
            if task.partition == partition.partition:
                judges = "*" if task.task == partition.task else ""
                shares = (_share(task.consumed_ratio), _share(task.produced_ratio))
                table.add_row(name, samples, Text(f"{task.task}{judges}"), *shares)
                name, samples = Text(), ""
        if samples:
            table.add_row(name, samples)
        if partition.tasks_left_out:
            table.add_row("", "", f"({partition.tasks_left_out} more)")
    return table


def _share(ratio: float | None) -> str:
    return _UNKNOWN if ratio is None else f"{ratio:.1%}"


def _storage(units: Iterable[StorageState]) -> Table:
    table = _table("Storage units", "unit", "state", "keys", "capacity", "memory", "no answer since")
    for unit in units:
        last = unit.last_answer
        said = unit if last is None else last  # what it last reported, dated
        table.add_row(
            Text(f"{unit.index} {unit.unit_id}"),
            Text(_UNIT_STATES.get(unit.error_type, "failing"), style="green" if unit.up else "red"),
            _number(said.keys),
            (_UNKNOWN if last is None and not unit.up else "-") if said.capacity is None else str(said.capacity),
            size_text(said.memory_bytes)
            if said.memory_limit_bytes is None
            else f"{size_text(said.memory_bytes)} of {size_text(said.memory_limit_bytes)}",
            "" if unit.up else "the start" if last is None else clock(last.at),
            style="" if unit.up else "dim",
        )
    return table


def _sources(sources: Iterable[SourceState]) -> Table:
    table = _table("Sources", "source", "state", "took", "last success", "detail")
    for column in table.columns[1:]:
        column.justify = "left"
    for source in sources:
        table.add_row(
            source.source,
            _source_state(source),
            _UNKNOWN if source.duration is None else f"{source.duration * 1000:.1f} ms",
            "never" if source.last_success is None else clock(source.last_success),
            Text(source.detail),
        )
    return table


def _source_state(source: SourceState) -> Text:
    if source.reason == "ok" and not source.up:
        return Text("not polled yet", style="dim")
    return Text("nothing to poll" if source.reason == "disabled" else source.reason, style=_STYLES[source.reason])


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", header_style="", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    return table


def _number(value: int | None) -> str:
    return _UNKNOWN if value is None else str(value)
