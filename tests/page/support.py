"""Helpers for the page's tests: a server whose snapshot a test sets, and reading figures from the page."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from exporter.clock import SystemClock
from exporter.conditions import Limits
from exporter.config import Listen
from exporter.groups import Groups
from exporter.model.condition import Condition
from exporter.model.groups import GroupsView
from exporter.model.history import History
from exporter.model.snapshot import PartitionFlow, PartitionState, Snapshot
from exporter.web import WebServer
from exporter.web.recorded import Recorded
from tests.support.snapshots import flow, partition, rich_snapshot, with_totals
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["FLOWS", "UNKNOWN", "Served", "cells", "many", "number", "running", "text", "wait_for_text"]


UNKNOWN = "\u2013"
"""The page's text for an unknown figure."""

FLOWS = Condition("DataPlaneFlows", "training", "ok", True, text="groups flow")
"""What the exporter says when groups come and go as usual."""


class Served:
    """The exporter's web server and history in this process, on a snapshot that a test can replace.

    The snapshot's times advance with the clock, as with running polls.
    """

    def __init__(self, port: int = 0, recorded: Recorded | None = None) -> None:
        self._recorded = recorded
        self.view: Callable[[], GroupsView] | None = None
        self.trace_url: str | None = None
        self.hide_groups = False
        self.history = History(SystemClock())
        self.alive = True
        self.asked = 0
        self._port = port
        self.web: WebServer | None = None
        self.show(running())
        self.start()

    def start(self) -> None:
        """Listen, on the same port as before."""
        self.web = WebServer(
            Listen("127.0.0.1", self._port),
            scrape=lambda accept, names: (b"", "text/plain"),
            snapshot=self._snapshot,
            alive=lambda: self.alive,
            history=self.history,
            recorded=self._recorded,
            groups=None if self.hide_groups else self._groups,
        )
        self._port = self.web.listen()[1]
        self.web.start()

    def stop(self) -> None:
        """Stop answering."""
        if self.web is not None:
            self.web.stop()
            self.web = None

    def begin_again(self, snapshot: Snapshot) -> None:
        """Serve *snapshot* as an exporter does that has just started: without a past."""
        self.stop()
        self.history = History(SystemClock())
        self.show(snapshot)
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def show(self, snapshot: Snapshot, *, frozen: bool = False) -> None:
        """Serve *snapshot* with its totals from now on. *frozen* keeps its time fixed."""
        metadata = next((one for one in snapshot.sources if one.source == "metadata"), None)
        listed = metadata is not None and metadata.up is True and metadata.reason in ("ok", "budget")
        self.snapshot = snapshot = with_totals(snapshot, listed=listed)
        self._frozen = frozen
        self.history.observe(snapshot)
        if snapshot.degraded:
            self.history.note_degraded()

    def _groups(self, parameters: list[tuple[str, str]]) -> bytes:
        view = self.view or GroupsView
        return Groups(view, self._snapshot, Limits(), self.trace_url).encode(parameters)

    def _snapshot(self) -> Snapshot:
        self.asked += 1
        return self.snapshot if self._frozen else replace(self.snapshot, taken_at=time.time())


@cache  # the same failure in all of them
def running() -> Snapshot:
    """Return ``rich_snapshot`` with present times: everything is known and current, and groups flow."""
    then = rich_snapshot()
    late = time.time() - then.taken_at

    def moved(part: PartitionState) -> PartitionState:
        oldest = tuple(replace(one, created_at=one.created_at + late) for one in part.oldest)
        return replace(part, listed_at=part.listed_at + late, oldest=oldest)

    return replace(
        then,
        conditions=(FLOWS,),
        recorder=None,
        taken_at=then.taken_at + late,
        started_at=then.started_at + late,
        partitions=tuple(moved(part) for part in then.partitions),
        statuses=tuple(replace(one, listed_at=(one.listed_at or 0) + late) for one in then.statuses),
        reference_changed_at=(then.reference_changed_at or 0) + late,
        sources=tuple(
            replace(one, last_success=None if one.last_success is None else one.last_success + late)
            for one in then.sources
        ),
        incidents=tuple(replace(one, at=one.at + late) for one in then.incidents),
    )


def many(number_of: int) -> Snapshot:
    """Return a snapshot with this many partitions."""
    names = [f"partition-{index:03}" for index in range(number_of)]
    parts: list[PartitionState] = []
    flows: list[PartitionFlow] = []
    for index, name in enumerate(names):
        parts.append(replace(partition(name, groups=index), listed_at=time.time()))
        flows.append(flow(name))
    sources = tuple(replace(one, reason="ok", up=True, detail="") for one in running().sources)
    return replace(running(), partitions=tuple(parts), flows=tuple(flows), sources=sources)


def text(page: Page, selector: str) -> str:
    """Return an element's text."""
    return " ".join(page.locator(selector).inner_text().split())


def number(page: Page, selector: str) -> float | None:
    """Return the figure in an element, None for unknown."""
    said = text(page, selector).replace(",", "")
    return None if said == UNKNOWN else float(said)


def cells(page: Page, table: str) -> list[list[str]]:
    """Return the rows of a table, each as a list of texts."""
    rows: list[list[str]] = page.evaluate(
        "id => [...document.querySelectorAll(`#${id} tbody tr`)]"
        ".map(row => [...row.children].map(cell => cell.textContent.trim()))",
        table,
    )
    return rows


def wait_for_text(page: Page, selector: str, condition: Callable[[str], bool], timeout_s: float = 60.0) -> str:
    """Wait until an element's text meets *condition*, and return the text."""
    said: list[str] = []

    def holds() -> bool:
        page.wait_for_timeout(50)  # lets the page's events be handled
        said[:] = [text(page, selector)]
        return condition(said[0])

    try:
        wait_until(holds, f"the text of {selector}", timeout_s)
    except AssertionError as error:
        raise AssertionError(f"{error}; it says {said}") from None
    return said[0]
