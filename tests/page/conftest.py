"""A real Chromium, and pages whose errors fail the test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.page.support import Served

if TYPE_CHECKING:  # not all tests here need a browser
    from playwright.sync_api import Browser, Page

FLAGS = [
    "--no-sandbox",  # tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

Open = Callable[..., "Page"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", metavar="FOLDER", help="where demo_screenshots.py puts its pictures")


@pytest.fixture(scope="package")  # closed then, since Playwright keeps an event loop running in its thread
def browser() -> Iterator[Browser]:
    # Chromium without its own windows, which take half of its time.
    chromium = shutil.which("chromium-headless-shell")
    assert chromium is not None, "no chromium-headless-shell here: .ci/tools installs it"

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, headless=True, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open a page with a fresh profile. Afterwards check for console messages and requests to other hosts."""
    opened: list[tuple[Page, list[str]]] = []

    def open_one(
        url: str,
        *,
        width: int = 1440,
        height: int = 900,
        theme: Literal["light", "dark"] = "light",
        quiet: bool = True,
        until: str = "live",
        **options: Any,
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=theme, service_workers="block", **options
        )
        page = context.new_page()
        page.set_default_timeout(60_000)
        complaints: list[str] = []
        host = urlsplit(url).netloc

        def check_host(seen: Request) -> None:
            if urlsplit(seen.url).netloc != host:
                complaints.append(f"asked {seen.url}")

        page.on("request", check_host)
        page.on("pageerror", lambda error: complaints.append(f"failed: {error}"))
        if quiet:  # a refused connection is always logged on the console
            page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        opened.append((page, complaints))
        page.goto(url)
        page.wait_for_selector(f"body[data-connection={until}]")
        return page

    yield open_one
    said = [complaint for _, complaints in opened for complaint in complaints]
    for page, _ in opened:
        page.context.close()
    assert said == []


@pytest.fixture
def served() -> Iterator[Served]:
    running = Served()
    yield running
    running.stop()
