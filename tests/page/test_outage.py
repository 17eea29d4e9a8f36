"""Old data is never shown as current: TransferQueue or the exporter down, its loop dead, the page hidden."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from playwright.sync_api import Page

from exporter.model.samples import plane_state
from exporter.model.snapshot import DiscoveryState, Snapshot
from tests.page.conftest import Open
from tests.page.support import UNKNOWN, Served, cells, number, running, text, wait_for_text

REASON = "the controller at tcp://10.0.0.7:40123 is gone"
FIGURES = ("#in-rate", "#ready", "#out-rate")


def down(discovery: DiscoveryState) -> Snapshot:
    """TransferQueue stopped answering a moment ago. The last listing is still in the snapshot."""
    now = running()
    ping = replace(now.sources[1], up=False, reason="failing", detail=REASON)
    return replace(
        now, taken_at=time.time(), up=False, discovery=discovery, sources=(now.sources[0], ping, *now.sources[2:])
    )


def assert_nothing_is_of_now(page: Page) -> None:
    assert [number(page, figure) for figure in FIGURES] == [None, None, None]
    assert cells(page, "lags") == cells(page, "versions") == []
    assert page.locator("#partitions[data-old]").count() == 1
    assert text(page, "#partitions-note").startswith("Not current: as listed at ")
    assert {row[1 + column] for row in cells(page, "partitions") for column in (15, 16)} == {UNKNOWN}
    for chart in ("in", "queue", "out", "lag"):
        assert "now" in str(page.locator(f"#{chart}-chart svg").get_attribute("aria-label"))
        assert set(page.locator(f"#{chart}-chart .legend b").all_inner_texts()) == {UNKNOWN}


def order(page: Page) -> list[str]:
    ids: list[str] = page.evaluate("[...document.querySelectorAll('main > *')].map(one => one.id)")
    return [one for one in ids if one in ("controls", "path", "partitions-panel", "health", "troubles")]


def assert_one_colour(page: Page, word: str) -> None:
    """The state has one colour in the headline, in the strip, in its legend and in the list of changes."""
    colours: list[str] = page.evaluate(
        """word => {
          const colour = (element, key) => getComputedStyle(element)[key];
          const said = (list) => [...list].find((element) => element.textContent.trim().startsWith(word));
          const rect = said(document.querySelectorAll("#timeline rect"));
          const badge = said(document.querySelectorAll("#changes .badge"));
          const legend = said(document.querySelectorAll("#timeline-legend li"));
          return [colour(document.getElementById("state"), "color"), colour(rect, "fill"), colour(badge, "color"),
                  colour(legend.querySelector(".swatch"), "backgroundColor")];
        }""",
        word,
    )
    assert len(set(colours)) == 1, colours
    shown = page.locator("#timeline rect title").all_text_contents()[-1]
    assert re.fullmatch(rf"{word} from [\d:]+ to [\d:]+, \d+ s", shown)


@pytest.mark.parametrize(
    ("discovery", "word", "says"),
    [
        ("found", "No answer", "The controller does not answer, since "),
        ("lost", "Lost", "The data plane is gone, since "),
    ],
)
def test_transfer_queue_is_down(
    served: Served, open_page: Open, discovery: DiscoveryState, word: str, says: str
) -> None:
    page = open_page(served.url)
    assert number(page, "#ready") == 14
    served.show(down(discovery))
    wait_for_text(page, "#state", lambda said: said == word)
    assert text(page, "#verdict").startswith(says)
    assert text(page, "#reason") == f"Reason: {REASON}"
    assert_nothing_is_of_now(page)
    assert "last known 14 at " in text(page, "#queue-note")
    assert page.title().startswith(word)
    assert text(page, "#announcer").startswith(f"{word}. {says}")
    assert order(page) == ["troubles", "health", "controls", "path", "partitions-panel"]  # failures first
    while not page.locator("#timeline rect title", has_text=f"{word} from").count():
        served.show(down(discovery))  # a sample of the history is taken every two seconds
        page.wait_for_timeout(100)
    assert_one_colour(page, word)
    assert cells(page, "changes")[0][1:] == [word, REASON]
    assert page.get_attribute("#status", "data-tone") == "bad"
    served.show(replace(running(), taken_at=time.time()))
    wait_for_text(page, "#state", lambda said: said == "Running")
    assert number(page, "#ready") == 14
    assert page.locator("[data-old]").count() == 0
    assert text(page, "#announcer").startswith("Running.")
    assert order(page) == ["controls", "path", "partitions-panel", "health", "troubles"]


@pytest.mark.parametrize(
    ("discovery", "tone", "word", "says"),
    [
        ("ended", "idle", "Ended", "The job ended on purpose, since "),
        ("never_found", "idle", "Not found yet", "No data plane has answered since the exporter started, "),
        ("starting", "warn", "Starting", "A controller exists and cannot be used yet, since "),
        ("unreachable", "bad", "Unreachable", "The controller's address is known, but it has not answered yet, since "),
    ],
)
def test_there_is_none(
    served: Served, open_page: Open, discovery: DiscoveryState, tone: str, word: str, says: str
) -> None:
    sources = (replace(running().sources[discovery == "unreachable"], detail="no such actor"),)
    served.begin_again(Snapshot(time.time(), time.time() - 60, discovery=discovery, ready=True, sources=sources))
    page = open_page(served.url)
    assert text(page, "#state") == word
    assert text(page, "#verdict").startswith(says)
    assert text(page, "#reason") == "Reason: no such actor"
    assert [number(page, figure) for figure in FIGURES] == [None, None, None]
    # Panels without anything to show are named, with the reason, and take no room.
    assert page.locator("#partitions").is_hidden()
    assert page.locator("#path").is_hidden()
    folded = text(page, "#folded")
    assert "Partitions not known now" in folded
    assert "Storage units not known now" in folded
    assert "Errors none since the exporter started" in folded
    assert page.locator("#sources").is_visible()
    assert page.get_attribute("#status", "data-tone") == tone


def test_the_exporter_does_not_answer(served: Served, open_page: Open) -> None:
    page = open_page(served.url, quiet=False)
    served.stop()
    page.wait_for_selector("#unreachable:not([hidden])")
    assert text(page, "#unreachable-title") == "This exporter does not answer"
    assert "No connection. Its last answer is " in text(page, "#unreachable-why")
    assert text(page, "#live") == "Not updating"
    assert text(page, "#state") == "Running (last known)"
    assert_nothing_is_of_now(page)
    assert page.title() == "No answer from the exporter · TransferQueue"
    assert text(page, "#announcer") == "This exporter does not answer: no connection."
    # It retries with growing pauses, and shows the time until the next try.
    wait_for_text(
        page, "#unreachable-why", lambda said: any(f"Next try in {wait} s" in said for wait in (4, 5, 6, 7, 8))
    )
    served.start()
    page.get_by_role("button", name="Try now").click()
    page.wait_for_selector("#unreachable", state="hidden")
    assert text(page, "#state") == "Running"
    assert number(page, "#ready") == 14
    assert text(page, "#live").startswith("Live")


def test_an_error_of_the_exporter_is_said(served: Served, open_page: Open) -> None:
    page = open_page(served.url, quiet=False)
    page.route("**/api/v1/snapshot", lambda route: route.fulfill(status=503, body="busy"))
    wait_for_text(page, "#unreachable", lambda said: "It answered with status 503" in said)
    page.unroute("**/api/v1/snapshot")
    page.route("**/api/v1/snapshot", lambda route: route.fulfill(status=200, body='{"taken_at": 1'))
    wait_for_text(page, "#unreachable", lambda said: "Its answer was cut off or is not JSON" in said)
    assert_nothing_is_of_now(page)


def test_the_poll_loop_is_dead(served: Served, open_page: Open) -> None:
    served.show(replace(running(), taken_at=time.time() - 120), frozen=True)
    page = open_page(served.url, until="frozen")
    assert text(page, "#unreachable-title") == "This exporter has stopped polling"
    assert text(page, "#live") == "Not polling"
    assert_nothing_is_of_now(page)


def test_a_hidden_page_asks_nothing(served: Served, open_page: Open) -> None:
    page = open_page(served.url)
    page.evaluate(
        "Object.defineProperty(document, 'hidden', {get: () => window.away === true, configurable: true});"
        "window.away = true; document.dispatchEvent(new Event('visibilitychange'))"
    )
    page.wait_for_timeout(2500)  # a turn that was already due may still happen
    asked = served.asked
    page.wait_for_timeout(3500)  # longer than one turn
    assert served.asked == asked
    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    wait_for_text(page, "#live", lambda said: served.asked > asked and said.startswith("Live"))


@pytest.mark.parametrize(
    ("up", "discovery", "state"), [(True, "found", "found"), (False, "found", "silent"), (False, "lost", "lost")]
)
def test_silent_is_found_without_an_answer(up: bool, discovery: DiscoveryState, state: str) -> None:
    assert plane_state(replace(running(), up=up, discovery=discovery)) == state
