"""The page where it is not a window on a screen: on a phone, on paper, and in colours that are not its own."""

from __future__ import annotations

import json
import urllib.request

import pytest
from playwright.sync_api import Page

from exporter.catalogue.metrics import METRICS, prometheus_name
from exporter.conditions import CONDITIONS
from tests.page.conftest import Open
from tests.page.support import Served
from tests.page.test_layout import BROKEN, SMALL, outage


def box(page: Page, selector: str) -> dict[str, float]:
    found = page.locator(selector).bounding_box()
    assert found is not None, f"{selector} is not shown"
    return {"x": found["x"], "y": found["y"], "width": found["width"], "height": found["height"]}


def test_on_a_phone_the_stages_are_side_by_side(served: Served, open_page: Open) -> None:
    page = open_page(served.url, width=360, height=780)
    heads = [box(page, f"#{stage} .stage-head") for stage in ("generation", "queue", "training")]
    assert len({head["y"] for head in heads}) == 1
    assert [head["x"] for head in heads] == sorted(head["x"] for head in heads)
    assert heads[2]["x"] + heads[2]["width"] <= 360
    bodies = [box(page, f"#{stage} .stage-body") for stage in ("generation", "queue", "training")]
    assert bodies[0]["y"] > heads[0]["y"] + heads[0]["height"]
    assert [body["y"] for body in bodies] == sorted(body["y"] for body in bodies)


def test_on_paper_everything_is_there_and_nothing_to_press(served: Served, open_page: Open) -> None:
    served.show(outage())
    page = open_page(served.url, width=760, theme="dark")
    page.emulate_media(media="print")
    for pressed in ("#theme", "nav", ".machines", ".controls fieldset", "#filter"):
        assert page.locator(pressed).is_hidden(), pressed
    regions = "document.querySelectorAll('.scroll, .bars-region')"
    cut = f"[...{regions}].filter(one => one.scrollHeight > one.clientHeight + 1 && one.checkVisibility()).length"
    assert page.evaluate(cut) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 760
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert ink == "rgb(18, 23, 29)", "dark text, whatever the theme"
    assert page.evaluate(BROKEN) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_with_forced_colours_what_a_colour_says_is_still_said(served: Served, open_page: Open, theme: str) -> None:
    served.show(outage())
    page = open_page(served.url, theme=theme, forced_colors="active")
    assert page.evaluate("matchMedia('(forced-colors: active)').matches")
    swatches = (
        "[...document.querySelectorAll('#queue-chart .swatch')].map(one => getComputedStyle(one).backgroundColor)"
    )
    assert len(set(page.evaluate(swatches))) == 5
    areas = "[...document.querySelectorAll('#queue-chart path')].map(one => getComputedStyle(one).fill)"
    assert page.evaluate(areas) == page.evaluate(swatches)
    strip = "[...document.querySelectorAll('#timeline rect')].map(one => getComputedStyle(one).fill)"
    assert "rgb(0, 0, 0)" not in page.evaluate(strip)
    badge = page.locator(".badge:visible").first
    assert badge.evaluate("one => getComputedStyle(one).borderTopStyle") == "solid"


def test_what_they_mean_is_a_page_to_read(served: Served, open_page: Open) -> None:
    page = open_page(served.url, width=360)
    page.get_by_role("link", name="Metrics and conditions").click()
    page.wait_for_selector("h1")
    assert page.locator("h1").inner_text() == "Metrics and conditions"
    named = [prometheus_name(metric) for metric in METRICS] + [rule.name for rule in CONDITIONS]
    missing = "names => names.filter(name => !document.getElementById(name))"
    assert page.evaluate(missing, named) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate(SMALL) == []
    assert page.evaluate(BROKEN) == []
    page.goto(f"{page.url}#DataPlaneQueueStalled")
    row = page.locator("tr:target")
    assert "The trainer has groups" in row.inner_text()
    # Every link within the page leads somewhere, and no mark of Markdown is left.
    dead = """[...document.querySelectorAll('a[href^="#"]')].filter(a => !document.getElementById(a.hash.slice(1)))"""
    assert page.evaluate(f"{dead}.length") == 0
    said = page.locator("main").inner_text()
    assert "**" not in said
    assert "](" not in said
    assert "`" not in said
    with urllib.request.urlopen(f"{served.url}docs/metrics", timeout=20) as answer:
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    page.get_by_role("link", name="TransferQueue").click()
    page.wait_for_selector("body[data-connection=live]")


def test_the_history_says_where_the_data_plane_was_degraded(served: Served) -> None:
    def degraded() -> list[bool]:
        with urllib.request.urlopen(f"{served.url}api/v1/history/recent", timeout=20) as answer:
            found: list[bool] = json.load(answer)["degraded"]
            return found

    assert degraded() == [False]
    served.history.note_degraded()
    assert degraded() == [True]
