"""A question about groups, as the parameters of a URL or the flags of a command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from dataplane.groups import GROUP_STATES, GroupState
from dataplane.nearest import choices
from exporter.conditions import CONDITIONS
from exporter.conditions.base import Selects
from exporter.conditions.registry import STUCK

__all__ = ["DEFAULT_LIMIT", "MAX_LIMIT", "SELECTING", "SORTS", "STUCK_NAME", "BadQuery", "Query", "Sort", "read_query"]

Sort = Literal["age", "lag", "keys"]

SORTS: Final[tuple[Sort, ...]] = get_args(Sort)
DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1000
MAX_TEXT: Final = 512

STUCK_NAME: Final = "stuck"
"""In place of a condition: any of those about groups that no process will finish or remove."""

SELECTING: Final[Mapping[str, tuple[tuple[str, Selects], ...]]] = {
    STUCK_NAME: tuple((one.name, one.selects) for one in STUCK if one.selects is not None),
    **{one.name: ((one.name, one.selects),) for one in CONDITIONS if one.selects is not None},
}
"""The conditions that are about groups, and :data:`STUCK_NAME`: by name, which conditions select."""

_NAMES: Final = ("partition", "state", "condition", "sort", "limit", "search", "departed")


class BadQuery(ValueError):
    """A parameter cannot be used. ``str()`` is one line that names it and what it may be."""

    def __init__(self, name: str, problem: str, remedy: str) -> None:
        super().__init__(f"{name}: {problem}; {remedy}")
        self.name, self.problem, self.remedy = name, problem, remedy


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for.

    Attributes:
        partition: Only of this partition, by its name or its label; None for all.
        state: Only in this state; of departed groups their last one.
        condition: Only those that this condition is about, a key of :data:`SELECTING`.
        sort: ``age`` (the oldest first), ``lag`` (the most versions behind first) or ``keys`` (the most keys first).
            None for the oldest first, of departed groups for the last to leave first.
        limit: How many at most.
        search: Only those whose id or one of whose keys contains this text.
        departed: Groups that left in an unusual way, not those that are there.
    """

    partition: str | None = None
    state: GroupState | None = None
    condition: str | None = None
    sort: Sort | None = None
    limit: int = DEFAULT_LIMIT
    search: str = ""
    departed: bool = False


def read_query(parameters: Iterable[tuple[str, str]]) -> Query:
    """Return the question in the parameters of a URL.

    Raises:
        BadQuery: One of them is unknown, given twice, or has a value that it cannot have.
    """
    given: dict[str, str] = {}
    for name, value in parameters:
        if name not in _NAMES:
            raise BadQuery(_shown(name), "is not a parameter", choices(name, _NAMES))
        if name in given:
            raise BadQuery(name, "is given twice", "give it once")
        if len(value) > MAX_TEXT:
            raise BadQuery(name, f"has {len(value)} characters", f"give at most {MAX_TEXT}")
        given[name] = value
    departed = _choice(given, "departed", ("false", "true")) == "true"
    condition = _choice(given, "condition", tuple(SELECTING))
    if departed and condition is not None:
        raise BadQuery("condition", "selects only groups in the queue", "remove condition or departed")
    return Query(
        partition=given.get("partition") or None,
        state=_choice(given, "state", GROUP_STATES),
        condition=condition,
        sort=_choice(given, "sort", SORTS),
        limit=_limit(given.get("limit") or str(DEFAULT_LIMIT)),
        search=given.get("search", ""),
        departed=departed,
    )


def _choice(given: Mapping[str, str], name: str, known: tuple[str, ...]) -> Any:
    value = given.get(name)
    if not value:
        return None
    if value not in known:
        raise BadQuery(name, f"{_shown(value)} is not one of them", choices(value, known))
    return value


def _limit(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= number <= MAX_LIMIT:
        raise BadQuery("limit", f"{_shown(text)} is out of range", f"give a number from 1 to {MAX_LIMIT}")
    return number


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
