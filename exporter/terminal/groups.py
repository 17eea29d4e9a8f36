"""Groups for a terminal: a table, or a few lines for each group where a table is too wide."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from exporter.conditions.words import UNREADABLE, clock, count, quoted, span
from exporter.groups import Answer, Group, PartitionListed, Query
from exporter.model.departures import WHY
from exporter.terminal.outside import make_console, visible_copy
from exporter.terminal.sizes import size_text

__all__ = ["print_groups", "render_groups"]

_UNKNOWN: Final = "?"
# Without a terminal nothing is cut or folded: each group is one line.
_PLAIN_WIDTH: Final = 5000
_NARROW: Final = 120
_NAMED: Final = 5
_STYLES: Final = {"ready": "green", "taken": "cyan", "failed": "red", "incomplete": "yellow", "uncommitted": ""}
_ORDERS: Final = {
    None: "the newest departures first",
    "age": "the oldest first",
    "lag": "the most versions behind first",
    "keys": "the most keys first",
}


def print_groups(answer: Answer, query: Query, console: Console | None = None) -> None:
    """Print *answer* to *query* on *console*, by default standard output."""
    if console is None:
        console = make_console()
        if not console.is_terminal:
            console = make_console(width=_PLAIN_WIDTH)
    for part in render_groups(answer, query, width=console.width):
        console.print(part)


def render_groups(answer: Answer, query: Query, *, width: int) -> Iterator[RenderableType]:
    """Yield *answer* to *query* as parts that fit into *width* columns. ``?`` is unknown."""
    answer = visible_copy(answer)
    yield _headline(answer, query)
    yield from _not_current(answer)
    if not answer.groups:
        yield Text(_nothing(answer, query))
    elif width < _NARROW:
        for group in answer.groups:
            yield from _lines(group, answer.taken_at)
    else:
        yield _table(answer, query)
    if answer.trace_url is not None and any(group.trace_id for group in answer.groups):
        yield Text(f"Traces: {answer.trace_url}", style="dim")


def _headline(answer: Answer, query: Query) -> Text:
    line = Text("Departed groups" if query.departed else "Groups", style="bold")
    if query.partition is not None:
        line.append(f" of partition {quoted(query.partition)}")
    order = _ORDERS[query.sort or (None if query.departed else "age")]
    shown = len(answer.groups)
    if answer.matched:
        some = f"{count(shown)} of {count(answer.matched)}" if shown < answer.matched else count(shown)
        line.append(f": {some}, {order}")
    version = "unknown" if answer.reference_version is None else str(answer.reference_version)
    kind = "" if answer.reference is None else f" ({answer.reference.replace('_', ' ')})"
    line.append(f"; the trainer's version is {version}{kind}, {clock(answer.taken_at)}", style="dim")
    if answer.cut:
        line.append("; the list was cut at 2 MB", style="yellow")
    return line


def _not_current(answer: Answer) -> Iterator[Text]:
    """Yield which partitions' groups are not known to be so now."""
    old = [part for part in answer.partitions if not part.current]
    for part in old[:_NAMED]:
        yield Text(f"! partition {quoted(part.partition)} {_listed(part, up=answer.up)}", style="yellow")
    if len(old) > _NAMED:
        yield Text(f"! and {count(len(old) - _NAMED)} more partitions are not current", style="yellow")


def _listed(part: PartitionListed, *, up: bool) -> str:
    listed = "was never listed" if part.listed_at is None else f"is not current: listed at {clock(part.listed_at)}"
    why = f" ({UNREADABLE[part.reason]})" if part.reason is not None else "" if up else " (no answer since)"
    return listed + why


def _nothing(answer: Answer, query: Query) -> str:
    if query.departed:
        return "No group left in an unusual way, as far as is known."
    if not answer.known:
        return "The groups are not known: no partition was listed."
    if not answer.partitions:
        return "No such partition is listed now." if query.partition else "TransferQueue has no partitions."
    if query.state or query.condition or query.search:
        return "No group matches."
    return "No groups." if any(part.groups is not None for part in answer.partitions) else "The groups are not known."


def _table(answer: Answer, query: Query) -> Table:
    traced = any(group.trace_id for group in answer.groups)
    sessions = any(group.sessions is not None for group in answer.groups)
    names = ["partition", "group", "state", "age", "in this state since", "version", "lag", "keys"]
    names += ["sessions"] if sessions else []
    names += ["size", "first key", "left at" if query.departed else "note"]
    names += ["why"] if query.departed else []
    names += ["trace"] if traced else []
    table = Table(header_style="", box=None, pad_edge=False)
    right = {"age", "version", "lag", "keys", "sessions", "size"}
    for name in names:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for group in answer.groups:
        cells: list[Text | str] = [
            Text(group.partition),
            Text(group.group_id),
            Text(group.state, style=_STYLES[group.state]),
            _age(group),
            _since(group, answer.taken_at),
            _number(group.version),
            _number(group.lag),
            _keys(group),
        ]
        cells += [_number(group.sessions)] if sessions else []
        cells += [size_text(group.size_bytes), Text(group.first_keys[0] if group.first_keys else "")]
        if group.departed_at is None:
            cells.append(_note(group))
        else:
            cells += [clock(group.departed_at), "; ".join(WHY.get(why, why) for why in group.why)]
        cells += [group.trace_id or ""] if traced else []
        table.add_row(*cells)
    return table


def _lines(group: Group, now: float) -> Iterator[Text]:
    """Yield a group as lines that may be folded anywhere."""
    head = Text(group.group_id, style="bold")
    yield head.append(f" {group.state}", style=_STYLES[group.state]).append(f" in {group.partition}", style="dim")
    facts = [f"age {_age(group)}", f"{group.state} since {_since(group, now)}", f"version {_number(group.version)}"]
    facts += [f"lag {_number(group.lag)}", f"{_keys(group)} keys"]
    facts += [] if group.sessions is None else [f"{group.sessions} sessions"]
    facts += [] if group.size_bytes is None else [size_text(group.size_bytes)]
    facts += [f"first key {key}" for key in group.first_keys[:1]]
    facts += [] if group.departed_at is None else [f"left at {clock(group.departed_at)}"]
    facts += [f"it {WHY.get(why, why)}" for why in group.why]
    facts += [note] if (note := _note(group)) else []
    facts += [f"trace {group.trace_id}"] if group.trace_id else []
    yield Text("  " + ", ".join(facts))


def _age(group: Group) -> str:
    """Return its age. One that counts from when it was first seen is a lower bound."""
    return f"{'≥ ' if group.age_basis == 'first_seen' else ''}{span(group.age_seconds)}"


def _since(group: Group, now: float) -> str:
    """Return since when it is in its state. One in which it was first seen may have begun before."""
    least = "≥ " if group.state_since == group.first_seen else ""
    end = now if group.departed_at is None else group.departed_at
    return f"{clock(group.state_since)} ({least}{span(end - group.state_since)})"


def _keys(group: Group) -> str:
    return str(group.keys) if group.expected is None or group.sessions is not None else f"{group.keys}/{group.expected}"


def _note(group: Group) -> str:
    said = ["orphaned"] if group.orphaned else []
    said += [f"{group.malformed} malformed rows"] if group.malformed else []
    return ", ".join([*said, *group.conditions])


def _number(value: int | None) -> str:
    return _UNKNOWN if value is None else str(value)
