"""The page with a recording: any range of the run with its events, a replay that says what it is, and the report."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from exporter.config import Listen
from exporter.model.recording import RecorderState
from exporter.model.snapshot import Snapshot
from exporter.recording.archive import Archive
from exporter.recording.player import Player
from exporter.recording.report import render_report
from exporter.web import WebServer
from tests.page.conftest import Open
from tests.page.support import Served, running, text, wait_for_text
from tests.recording.support import close, kill, record, recorder_of
from tests.support.clock import StoppedClock
from tests.support.simulated_run import SimulatedRun

LENGTH_S = 3000


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ends now: it starved, and its exporter was killed and begun again ten minutes later."""
    path = tmp_path_factory.mktemp("recording") / "run.tqr"
    run = SimulatedRun(StoppedClock(time.time() - LENGTH_S))
    recorder = recorder_of(path, run)
    record(recorder, run, 900, every_s=10.0)
    run.starved = True
    record(recorder, run, 300, every_s=10.0)
    kill(recorder)
    run.clock.advance(600)
    run.begin_again()
    again = recorder_of(path, run)
    record(again, run, LENGTH_S - 1800, every_s=10.0)
    close(again)
    return path


@pytest.fixture
def with_recording(recording: Path) -> Iterator[Served]:
    begin, _ = Archive(recording).span()
    served = Served(recorded=Archive(recording))
    served.show(replace(running(), recorder=RecorderState(True, begin, 1000)))
    yield served
    served.stop()


@pytest.fixture(scope="module")
def replayed(recording: Path) -> Iterator[str]:
    web = WebServer(
        Listen("127.0.0.1", 0),
        scrape=lambda accept, names: (b"", ""),
        snapshot=lambda: Snapshot(0.0, 0.0, ready=True),
        alive=lambda: True,
        replay=Player(Archive(recording)),
    )
    host, port = web.listen()
    web.start()
    yield f"http://{host}:{port}/"
    web.stop()


def test_without_a_recording_there_is_nothing_to_choose(served: Served, open_page: Open) -> None:
    page = open_page(served.url)
    expect(page.locator("#controls fieldset label:visible")).to_have_count(2)
    assert page.locator("#events-panel").is_hidden()
    assert page.locator("#replay").is_hidden()


def test_the_whole_run_is_shown_with_its_events(with_recording: Served, open_page: Open) -> None:
    page = open_page(with_recording.url)
    page.get_by_text("Whole run").click()
    page.wait_for_selector("#events-panel:not([hidden])")
    assert "range=run" in page.url
    names = page.locator("#events tbody tr td:nth-child(3)").all_inner_texts()
    assert "DataPlaneTrainerStarved" in names
    assert names.count("TQ_CONTROLLER_1") == 2
    marks = page.locator("#marks rect title").all_text_contents()
    assert any(mark.startswith("Condition: DataPlaneTrainerStarved") for mark in marks)
    said = page.locator("#timeline").get_attribute("aria-label") or ""
    assert re.search(r"Running \d+ min.*Degraded \d+ min.*Not recorded 10 min", said), said
    # The gap is no line: the path has a part before and one after it.
    assert (page.locator("#in-chart path.line").first.get_attribute("d") or "").count("M") >= 2


def test_a_link_shows_the_times_of_its_sender(with_recording: Served, recording: Path, open_page: Open) -> None:
    begin, _ = Archive(recording).span()
    page = open_page(f"{with_recording.url}?from={begin + 800:.0f}&to={begin + 1100:.0f}")
    page.wait_for_selector("#events-panel:not([hidden])")
    assert page.locator("#custom-from").input_value() != ""
    assert text(page, "#timeline-to") != "now"
    names = page.locator("#events tbody tr td:nth-child(3)").all_inner_texts()
    assert "DataPlaneTrainerStarved" in names
    page.locator("#controls").get_by_text("5 min", exact=True).click()
    page.wait_for_selector("#events-panel", state="hidden")
    assert text(page, "#timeline-to") == "now"


def test_a_recording_that_fails_is_said(served: Served, open_page: Open) -> None:
    served.show(replace(running(), recorder=RecorderState(False, None, None, 0, "no space left on device")))
    page = open_page(served.url)
    wait_for_text(page, "#recorder-note", lambda said: said == "Not recorded: no space left on device")


def shown_at(page: Page) -> str:
    return text(page, "#replay-why")


def test_a_replay_says_what_it_is_and_goes_to_any_time(replayed: str, recording: Path, open_page: Open) -> None:
    begin, end = Archive(recording).span()
    page = open_page(replayed, until="replay")
    assert "run.tqr, from " in shown_at(page)
    assert "It does not show the present" in shown_at(page)
    assert text(page, "#live") == "Recording"
    assert page.locator("#unreachable").is_hidden()
    assert page.locator("#machines").is_hidden()
    slider = page.locator("#replay-at")
    assert float(slider.get_attribute("max") or 0) == pytest.approx(end)
    slider.evaluate("(one, at) => { one.value = at; one.dispatchEvent(new Event('input')); }", begin + 1000)
    wait_for_text(page, "#state", lambda said: said == "Degraded")
    assert "at=" in page.url
    assert "no group is ready" in text(page, "#verdict")
    again = open_page(page.url, until="replay")  # the link shows the same
    wait_for_text(again, "#state", lambda said: said == "Degraded")


def test_the_report_opens_without_a_network(browser: Browser, recording: Path, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(render_report(Archive(recording)))
    context = browser.new_context(offline=True)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda one: complaints.append(one.url) if not one.url.startswith("file:") else None)
    page.goto((tmp_path / "report.html").as_uri())
    assert page.locator("h2").all_inner_texts()[:3] == ["In short", "Timeline", "What was wrong"]
    assert page.locator(".lane-bars rect").count() >= 5
    widths = json.loads(page.evaluate("() => JSON.stringify([document.body.scrollWidth, window.innerWidth])"))
    assert widths[0] <= widths[1]
    context.close()
    assert complaints == []
