"""Layout: legible on phones and wide screens, light and dark, also in an outage; accessible without a mouse."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from exporter.model.condition import Condition
from exporter.model.snapshot import ErrorCount, Incident, Snapshot
from tests.page.conftest import Open
from tests.page.support import Served, cells, many, running, text

LONG = "the controller at tcp://10.0.0.7:40123 is gone: the connection is refused or was reset " * 3

CLIPPED = """() => {
  const problems = [];
  const root = document.documentElement;
  if (root.scrollWidth > innerWidth) problems.push(`the page is ${root.scrollWidth} wide in ${innerWidth}`);
  const boxes = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || parent.closest(".visually-hidden, .skip, noscript, option, script")) continue;
    if (!parent.checkVisibility({ visibilityProperty: true })) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    let clip = { left: 0, right: root.scrollWidth, top: -Infinity, bottom: Infinity };
    let scrolls = false;
    for (let up = parent; up !== document.body; up = up.parentElement) {
      const style = getComputedStyle(up);
      const box = up.getBoundingClientRect();
      if (style.clipPath !== "none") clip = null;
      if (!clip) break;
      if (style.overflowX !== "visible" || style.overflowY !== "visible") {
        scrolls ||= /auto|scroll/.test(style.overflowX + style.overflowY);
        if (!scrolls && up.scrollWidth > up.clientWidth + 1) problems.push(`cut off: ${node.data.trim().slice(0, 40)}`);
        clip = { left: Math.max(clip.left, box.left), right: Math.min(clip.right, box.right),
                 top: Math.max(clip.top, box.top), bottom: Math.min(clip.bottom, box.bottom) };
      }
    }
    if (!clip) continue;
    const panel = parent.closest(".panel, .stage-head, .stage-body, .status, .notice, .bar, .controls, footer");
    const frame = panel.getBoundingClientRect();
    for (const line of range.getClientRects()) {
      if (line.width < 1) continue;
      if (!scrolls && (line.left < frame.left - 1 || line.right > frame.right + 1)) {
        problems.push(`outside its panel: ${node.data.trim().slice(0, 40)}`);
      }
      const box = { left: Math.max(line.left, clip.left), right: Math.min(line.right, clip.right),
                    top: Math.max(line.top, clip.top), bottom: Math.min(line.bottom, clip.bottom) };
      const sticky = parent.closest("thead") !== null;
      if (box.right - box.left <= 1 || box.bottom - box.top <= 1) continue;
      boxes.push([box, node.data.trim().slice(0, 40), sticky, parent]);
    }
  }
  // A line box is taller than its letters: a fifth of it may lie under its neighbour.
  boxes.forEach(([one, said, sticky, parent], index) => {
    for (const [other, also, alsoSticky, alsoParent] of boxes.slice(index + 1)) {
      if (sticky !== alsoSticky || parent === alsoParent) continue;
      const wide = Math.min(one.right, other.right) - Math.max(one.left, other.left);
      const high = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
      const lower = Math.min(one.bottom - one.top, other.bottom - other.top);
      if (wide > 1.5 && high > lower / 5) problems.push(`overlap: ${said} / ${also}`);
    }
  });
  return problems;
}"""

SMALL = """() => {
  const problems = new Set();
  const shown = (element) => element.checkVisibility() && !element.closest(".visually-hidden, .skip");
  for (const element of document.querySelectorAll("body *")) {
    const said = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    const size = parseFloat(getComputedStyle(element).fontSize);
    if (said && shown(element) && size < 13) problems.add(`${size} px: ${element.textContent.trim().slice(0, 40)}`);
  }
  for (const element of document.querySelectorAll("a, button, select, summary, input[type=search], fieldset label")) {
    const box = element.getBoundingClientRect();
    if (shown(element) && (box.width < 24 || box.height < 24)) {
      problems.add(`${box.width} x ${box.height}: ${element.textContent.trim().slice(0, 40)}`);
    }
  }
  return [...problems];
}"""
"""Text below 13 px, and targets below 24 px."""

BROKEN = """() => {
  const problems = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!parent.checkVisibility() || parent.closest(".visually-hidden, .skip, option, .name")) continue;
    const head = parent.closest("thead");
    if (head && getComputedStyle(head).clipPath !== "none") continue;
    for (const word of node.data.matchAll(/[\\p{L}\\p{N}]+/gu)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map((box) => Math.round(box.top))).size > 1) problems.add(word[0]);
    }
  }
  return [...problems];
}"""
"""Words that go over two lines. Names of partitions are not ours, and may."""


def outage() -> Snapshot:
    """The controller is gone, its last listing is still kept, and the texts are long."""
    now = running()
    return replace(
        now,
        up=False,
        discovery="lost",
        sources=tuple(
            replace(one, up=False, reason="failing", detail=LONG) if one.source in ("ping", "metadata") else one
            for one in now.sources
        ),
        conditions=(
            Condition(
                "DataPlaneStorageUnitFlapping",
                "queue",
                "warning",
                True,
                text="a storage unit did not answer",
                remedy="Check whether the unit's node swaps.",
                runbook="docs/runbooks/DataPlaneStorageUnitFlapping.md",
            ),
        ),
        errors=(ErrorCount("list_partitions", "DataPlaneUnavailable", 1234), ErrorCount("ping", "DataPlaneTimeout", 7)),
        incidents=tuple(
            Incident(time.time() - index, "ping", "storage_metrics", "DataPlaneUnavailable", f"{index}: {LONG}")
            for index in range(30)
        ),
    )


SCENES: dict[str, Callable[[], Snapshot]] = {"running": running, "outage": outage}


@pytest.mark.parametrize(
    ("scene", "theme", "width"),
    [("running", "light", 360), ("running", "dark", 1440), ("outage", "light", 1440), ("outage", "dark", 360)],
)
def test_it_is_legible(served: Served, open_page: Open, scene: str, theme: str, width: int) -> None:
    served.show(SCENES[scene]())
    page = open_page(served.url, width=width, theme=theme)
    page.locator(".help summary").click()
    page.wait_for_timeout(400)  # wait for the bars' animation
    assert page.evaluate(CLIPPED) == []
    assert page.evaluate(SMALL) == []
    assert page.evaluate(BROKEN) == []
    # Contrast of all text, names of all controls, headings, landmarks, tables.
    found = Axe().run(
        page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
    )
    problems = [
        f"{one['id']}: {node['html'][:120]} {node['failureSummary'][:300]}"
        for one in found.response["violations"]
        for node in one["nodes"]
    ]
    assert problems == []


@pytest.mark.parametrize("width", [375, 1440])
def test_fifty_partitions_fit(served: Served, open_page: Open, width: int) -> None:
    served.show(many(50))
    assert open_page(served.url, width=width).evaluate(CLIPPED) == []


@pytest.mark.parametrize("width", [320, 768, 1024, 1180, 1920])
def test_it_fits_between(served: Served, open_page: Open, width: int) -> None:
    served.show(outage())
    assert open_page(served.url, width=width).evaluate(CLIPPED) == []


def ground(page: Page) -> str:
    colour: str = page.evaluate("getComputedStyle(document.body).backgroundColor")
    return colour


def test_the_theme_follows_the_system_until_it_is_chosen(served: Served, open_page: Open) -> None:
    page = open_page(served.url, theme="light")
    light = ground(page)
    page.emulate_media(color_scheme="dark")
    dark = ground(page)
    assert light != dark
    theme = page.get_by_role("button", name="Theme")
    theme.click()
    assert (text(page, "#theme"), ground(page)) == ("Theme: light", light)
    page.reload()
    page.wait_for_selector("body[data-connection=live]")
    assert (text(page, "#theme"), ground(page)) == ("Theme: light", light)
    theme.click()
    page.emulate_media(color_scheme="light")
    assert (text(page, "#theme"), ground(page)) == ("Theme: dark", dark)
    theme.click()
    assert (text(page, "#theme"), ground(page)) == ("Theme: auto", light)


def focused(page: Page) -> str:
    said: str = page.evaluate(
        "() => { const e = document.activeElement;"
        " return (e.getAttribute('aria-label') || e.textContent || e.value).trim() }"
    )
    return said


def test_everything_is_reached_by_keyboard(served: Served, open_page: Open) -> None:
    served.show(many(12))
    page = open_page(served.url)
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the figures"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    reached: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(focused(page))
        outline = page.evaluate(
            "() => { const e = document.activeElement;"
            " const shown = e.matches('[type=radio]') ? e.nextElementSibling : e;"
            " return getComputedStyle(shown).outlineStyle }"
        )
        assert outline != "none", f"nothing shows that {reached[-1]!r} has the focus"
        if reached[-1] == "How to read this page":
            break
    said = "\n".join(reached)
    for name in (
        "Groups arriving per second",
        "Groups in the queue",
        "Ready",
        "partition-000",
        "How to read this page",
    ):
        assert name in said, f"{name!r} is not among {reached}"


def test_a_chart_is_read_with_the_arrow_keys(served: Served, open_page: Open) -> None:
    page = open_page(served.url)
    chart = page.locator("#queue-chart svg")
    assert "now ready 14, incomplete 17" in str(chart.get_attribute("aria-label"))
    chart.focus()
    page.keyboard.press("Home")
    assert "ago" in text(page, "#queue-chart .when")
    page.keyboard.press("Escape")
    assert text(page, "#queue-chart .when") == ""


def test_a_table_is_sorted_by_its_heads(served: Served, open_page: Open) -> None:
    served.show(many(12))
    page = open_page(served.url)
    names = [row[0] for row in cells(page, "partitions")]
    ready = page.get_by_role("button", name="Ready", exact=True)
    ready.click()
    assert [row[0] for row in cells(page, "partitions")] == names[::-1]
    assert page.get_by_role("columnheader", name="Ready").get_attribute("aria-sort") == "descending"
    ready.click()
    assert [row[0] for row in cells(page, "partitions")] == names
    ready.click()
    assert page.get_by_role("columnheader", name="Ready").get_attribute("aria-sort") is None
