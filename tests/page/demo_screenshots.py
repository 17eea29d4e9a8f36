"""Takes the screenshots in docs/images: the page on the real demo. Run by ``make screenshots``.

pytest does not collect it by name: it runs for minutes, so that the charts contain enough data.
"""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page

from tests.page.support import number, text, wait_for_text
from tests.support.demo_process import DemoProcess
from tests.support.waiting import wait_until

RUN_S = float(os.environ.get("RUN_S", "240"))


INCIDENTS = {
    "stalled-trainer": "DataPlaneTrainingQuiet",
    "failing-rollouts": "DataPlaneNoGroupCompleted",
    "dead-weight-sync": "DataPlaneRolloutsBehind",
}
"""The condition that names the culprit of each of the demo's incidents."""


@pytest.fixture
def shoot(browser: Browser, request: pytest.FixtureRequest) -> Callable[..., None]:
    option = request.config.getoption("--screenshots", default=None)
    assert option, "--screenshots FOLDER says where they go"
    folder = Path(option)
    folder.mkdir(parents=True, exist_ok=True)

    def take(
        name: str, url: str, *, width: int = 1440, height: int = 900, theme: str = "light", whole: bool = True
    ) -> None:
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
        page.goto(url)
        page.wait_for_selector("body[data-connection=live]")
        wait_for_text(page, "#partitions", bool)
        page.wait_for_timeout(3000)
        page.screenshot(path=folder / f"page-{name}.png", full_page=whole)
        page.close()

    return take


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scenario", INCIDENTS)
def test_an_incident(scenario: str, shoot: Callable[..., None]) -> None:
    with DemoProcess("--scenario", scenario) as demo:
        demo.wait_until_ready()
        url = demo.urls["exporter"].removesuffix("metrics")

        def is_named() -> bool:
            with urllib.request.urlopen(f"{url}api/v1/conditions", timeout=10) as answer:
                conditions = json.load(answer)["conditions"]
            return any(one["name"] == INCIDENTS[scenario] and one["holds"] for one in conditions)

        wait_until(is_named, INCIDENTS[scenario], 600.0)
        time.sleep(RUN_S / 8)
        shoot(scenario, url)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("convention", ["verl", "nemo-rl"])
def test_a_framework(convention: str, shoot: Callable[..., None]) -> None:
    """The page of examples/verl and examples/nemo-rl: the demo's rollouts write their tags."""
    with DemoProcess("--convention", convention) as demo:
        demo.wait_until_ready()
        time.sleep(RUN_S / 2)
        seen = demo.scrape()
        assert {labels["convention"] for labels, _ in seen.samples("dataplane_partition_info")} == {convention}
        assert seen.value("dataplane_up") == 1
        shoot(convention, demo.urls["exporter"].removesuffix("metrics"), height=1140, whole=False)  # without the polls


@pytest.mark.timeout(1200)
def test_the_four_states(browser: Browser, shoot: Callable[..., None]) -> None:
    with DemoProcess("--rollouts", "2") as demo:
        wait_until(lambda: "logs   " in demo.out, "the demo is up", 300.0)
        url = demo.urls["exporter"].removesuffix("metrics")
        page: Page = browser.new_page()
        page.goto(url)
        wait_for_text(page, "#ready", lambda said: said.isdigit(), 120.0)
        time.sleep(RUN_S)
        assert text(page, "#state") == "Running"
        shoot("light", url)
        shoot("dark", url, theme="dark")
        shoot("phone", url, width=375, height=812, whole=False)
        os.kill(controller_pid(), signal.SIGKILL)
        wait_for_text(page, "#state", lambda said: said == "Lost")
        shoot("outage", url)
        assert number(page, "#ready") is None


def controller_pid() -> int:
    """The demo's controller: it descends from this process, as the demo does."""
    for process in psutil.Process().children(recursive=True):
        if "TransferQueueController" in " ".join(process.cmdline()):
            return process.pid
    raise AssertionError("the demo has no controller")
