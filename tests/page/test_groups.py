"""A partition opens into its groups: the oldest, the stalest, those that are stuck, and those that left."""

from __future__ import annotations

import time
from dataclasses import replace
from urllib.parse import quote

import pytest
from playwright.sync_api import Page

from exporter.model.condition import Condition
from exporter.model.groups import GroupsView
from exporter.model.snapshot import PartitionStatus
from exporter.model.versions import VersionReference
from tests.groups.support import Listings, group
from tests.page.conftest import Open
from tests.page.support import Served, cells, running, text, wait_for_text
from tests.page.test_figures import ODD_NAMES, shown

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Stage:
    """A served page whose groups a test lists."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.seen = Listings()
        self.seen.reference = VersionReference(41, "published")
        self.late = time.time() - self.seen.now
        served.view = self.view
        served.show(running())

    def view(self) -> GroupsView:
        """Return the view with present times."""
        view = self.seen.view()
        moved = tuple(
            replace(part, epoch=part.epoch + self.late, listed_at=part.listed_at + self.late)
            for part in view.partitions
        )
        return replace(view, partitions=moved)

    def list(self, *groups: object, **fields: object) -> None:
        """List these groups of ``train``, and show a snapshot of that listing."""
        self.seen.list({"train": groups})  # type: ignore[dict-item]
        statuses = tuple(
            replace(one, listed_at=time.time()) if one.partition == "train" else one for one in running().statuses
        )
        self.served.show(replace(running(), statuses=statuses, **fields))  # type: ignore[arg-type]


@pytest.fixture
def stage(served: Served) -> Stage:
    staged = Stage(served)
    staged.list(
        group("old", "uncommitted", created_at=time.time() - 7200, weight_version=40, keys=["k1", "k2"]),
        group("stale", weight_version=30, expected_num_keys=1),
        group("plain", weight_version=41, tags={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}, size_bytes=2048),
    )
    return staged


def ids(page: Page) -> list[str]:
    return [row[0] for row in cells(page, "groups")]


def wait_for_ids(page: Page, *expected: str) -> None:
    wait_for_text(page, "#groups-panel", lambda _: ids(page) == list(expected))


def test_a_partition_opens_into_its_groups(stage: Stage, open_page: Open) -> None:
    page = open_page(stage.served.url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "groups" in request.url else None)
    assert page.locator("#groups").is_hidden()
    page.wait_for_timeout(2500)
    assert asked == [], "nothing is asked while no groups are open"
    page.click("#partitions button.name >> text=train")
    wait_for_ids(page, "old", "plain", "stale")
    assert text(page, "#groups-title") == "Groups of train"
    row = cells(page, "groups")[0]
    assert row[1:4] == ["train", "uncommitted", "2 h"]
    assert row[4].startswith("\u2264 "), "it was in this state at first sight"
    assert row[5:8] == ["40", "1", "2"]
    assert row[10] == "k1 k2"
    assert cells(page, "groups")[1][3].startswith("\u2265 ")
    page.select_option("#groups-view", "stalest")
    wait_for_ids(page, "stale", "old", "plain")
    page.select_option("#groups-view", "stuck")
    wait_for_ids(page, "old")
    assert "3 " not in text(page, "#groups-note")
    assert "partition=train" in page.url
    assert "groups=stuck" in page.url
    page.select_option("#groups-view", "")
    assert page.locator("#groups").is_hidden()
    assert "groups" not in page.url


def test_the_same_listing_is_asked_about_once(stage: Stage, open_page: Open) -> None:
    page = open_page(f"{stage.served.url}?groups=oldest")
    wait_for_ids(page, "old", "plain", "stale")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "groups" in request.url else None)
    page.wait_for_timeout(4500)
    assert asked == []
    stage.list(group("next"))
    wait_for_ids(page, "next")
    assert len(asked) == 1


def test_a_link_shows_what_its_sender_sees_and_a_poll_keeps_it(stage: Stage, open_page: Open) -> None:
    page = open_page(stage.served.url)
    page.fill("#groups-search", "k2")
    wait_for_ids(page, "old")
    link = page.locator("#groups-link").get_attribute("href")
    assert link == "?groups=oldest&search=k2#groups-panel"
    other = open_page(stage.served.url + link)
    wait_for_ids(other, "old")
    assert other.input_value("#groups-search") == "k2"
    stage.list(group("again", keys=["k2", "k9"]), group("not"))
    wait_for_ids(other, "again")
    other.reload()
    wait_for_ids(other, "again")
    other.click("#groups a.name")
    assert other.input_value("#groups-search") == "again"
    assert "search=again" in other.url
    assert "partition=train" in other.url


def test_a_group_that_left_is_looked_for_among_the_departed(stage: Stage, open_page: Open) -> None:
    stage.list()
    page = open_page(f"{stage.served.url}?groups=oldest&search=old")
    assert wait_for_text(page, "#groups-state", lambda said: "may have left" in said)
    page.click("#groups-left")
    wait_for_ids(page, "old")
    assert "was never ready" in cells(page, "groups")[0][11]
    page.fill("#groups-search", "none")
    assert wait_for_text(page, "#groups-state", lambda said: said == "No group that left unusually matches.")


def test_a_condition_shows_its_groups(stage: Stage, open_page: Open) -> None:
    leaking = Condition(
        "DataPlaneUncommittedLeaking", "generation", "warning", True, text="one is old", about_groups=True
    )
    other = Condition("DataPlanePingSlow", "data_plane", "warning", True, text="slow")
    seen = stage.served.snapshot
    stage.served.show(replace(seen, conditions=(leaking, other)))
    page = open_page(stage.served.url)
    assert page.locator("#others .show").is_hidden()
    page.click("#first-groups")
    wait_for_ids(page, "old")
    assert "groups=DataPlaneUncommittedLeaking" in page.url
    assert cells(page, "groups")[0][11] == "DataPlaneUncommittedLeaking"
    assert "one is old" in text(page, "#groups-note")
    stage.served.show(replace(seen, conditions=(other, leaking)))
    wait_for_text(page, "#others", lambda said: "Show the groups" in said)


def test_hostile_ids_are_inert_text(stage: Stage, open_page: Open) -> None:
    names = [name for name in ODD_NAMES if name]
    stage.list(*(group(name, keys=[f"{name}-1"]) for name in names))
    page = open_page(f"{stage.served.url}?groups=oldest&partition=train")
    wait_for_text(page, "#groups-panel", lambda _: len(ids(page)) == len(names))
    assert sorted(ids(page)) == sorted(map(shown, names))
    assert page.title().endswith("TransferQueue")
    assert page.locator("#groups img, #groups script").count() == 0
    for name in names:
        wanted = page.locator("#groups a.name", has_text=shown(name)).first.get_attribute("href")
        assert wanted is not None
        assert f"search={quote(name[:5], safe='')[:3]}".replace("%20", "+")[:8] in wanted
    page.goto(f"{stage.served.url}?groups=%3Cscript%3E&search=x")
    page.wait_for_selector("body[data-connection=live]")
    assert page.locator("#groups").is_hidden()


def test_a_trace_is_linked_where_a_view_of_traces_is_configured(stage: Stage, open_page: Open) -> None:
    page = open_page(f"{stage.served.url}?groups=oldest&search=plain")
    wait_for_ids(page, "plain")
    assert cells(page, "groups")[0][12] == TRACE
    assert page.locator("#groups td a").count() == 0
    stage.served.trace_url = "https://tempo.example/trace/{trace_id}?x=1"
    page.reload()
    wait_for_ids(page, "plain")
    link = page.locator("#groups td a")
    assert link.get_attribute("href") == f"https://tempo.example/trace/{TRACE}?x=1"
    assert link.get_attribute("rel") == "noopener noreferrer"


def test_what_is_not_current_is_marked_and_dated(stage: Stage, open_page: Open) -> None:
    stage.seen.fresh = set()
    unread = (PartitionStatus("train", False, "timeout", time.time() - 100),)
    stage.served.show(replace(running(), statuses=unread))
    page = open_page(f"{stage.served.url}?groups=oldest&partition=train")
    wait_for_ids(page, "old", "plain", "stale")
    assert page.locator("#groups[data-old]").count() == 1
    note = text(page, "#groups-note")
    assert "train cannot be read now: timed out" in note
    assert "not current: as listed at " in note
    page.goto(f"{stage.served.url}?groups=oldest&partition=nowhere")
    wait_for_text(page, "#groups-state", lambda said: said.startswith("This partition no longer exists."))


def test_who_may_not_see_groups_sees_no_trace_of_them(served: Served, open_page: Open) -> None:
    served.stop()
    served.hide_groups = True
    served.start()
    leaking = Condition("DataPlaneUncommittedLeaking", "generation", "warning", True, text="old", about_groups=True)
    served.show(replace(running(), conditions=(leaking,)))
    page = open_page(f"{served.url}?groups=oldest")
    for hidden in ("#groups-panel", "#first-groups", "a.groups-only"):
        assert page.locator(hidden).is_hidden()


@pytest.mark.parametrize("width", [320, 390, 1440])
def test_nothing_is_wider_than_the_screen(stage: Stage, open_page: Open, width: int) -> None:
    stage.list(*(group("x" * 400 + str(n), "incomplete", keys=["k" * 400 + str(n)]) for n in range(3)))
    page = open_page(f"{stage.served.url}?groups=oldest", width=width)
    wait_for_text(page, "#groups-panel", lambda _: len(ids(page)) == 3)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width < 600:
        assert page.evaluate("document.querySelector('#groups tbody').scrollWidth") <= width
    page.emulate_media(media="print")
    assert page.locator("#groups-search").is_hidden()
    assert page.locator("#groups tbody tr").first.is_visible()
