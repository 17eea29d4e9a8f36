"""Rates on the page: computed from listing to listing, and unknown instead of 0 without a listing."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.page.conftest import Open
from tests.page.support import Served

Counter = list[float | None]


def rates(
    page: Page, at: list[float], listed_at: list[float], counter: Counter, states: list[str], window_s: float
) -> Counter:
    history = {"at": at, "state": states}
    ages = [when - listed for when, listed in zip(at, listed_at, strict=True)]
    series = {"arrived": counter, "listed": ages}
    found: Counter = page.evaluate(
        "([history, series, windowS]) => import(new URL('page/model.js', location).href)"
        ".then(model => model.rates(history, series, 'arrived', windowS))",
        [history, series, window_s],
    )
    return found


@pytest.mark.parametrize(
    ("listed_at", "counter", "states", "expected"),
    [
        ([0, 10, 20, 30], [0, 20, 60, 60], "uuuu", [None, 2, 3, 2]),
        # No listing after the second sample: the rate stays the same and does not fall to 0.
        ([0, 10, 10, 10], [0, 20, 20, 20], "uuuu", [None, 2, 2, 2]),
        ([0, 0, 0, 30], [0, 0, 0, 60], "uuuu", [None, None, None, 2]),
        # An outage is a gap; no rate spans it.
        ([0, 10, 10, 30], [0, 20, 20, 20], "uudu", [None, 2, None, None]),
        ([0, 10, 20, 30], [0, None, 20, 40], "uuuu", [None, None, None, 2]),
        # A counter reset gives no negative rate.
        ([0, 10, 20, 30], [50, 60, 0, 10], "uuuu", [None, 1, None, 1]),
    ],
)
def test_rates(
    served: Served, open_page: Open, listed_at: list[float], counter: Counter, states: str, expected: Counter
) -> None:
    page = open_page(served.url)
    named = [{"u": "found", "d": "lost"}[state] for state in states]
    assert rates(page, [0, 10, 20, 30], listed_at, counter, named, 20.0) == expected


@pytest.mark.parametrize(("listed_s_ago", "quiet_s"), [(0, 280), (280, 0)])
def test_what_was_not_looked_at_is_not_called_quiet(
    served: Served, open_page: Open, listed_s_ago: float, quiet_s: float
) -> None:
    at = [0.0, 10.0, 20.0, 300.0]
    ages = [0.0, 0.0, 0.0, listed_s_ago]
    history = {"at": at, "total": {"arrived": [0, 20, 40, 40], "listed": ages}}
    found = open_page(served.url).evaluate(
        "history => import(new URL('page/model.js', location).href)"
        ".then(model => model.pulse([history], null, 'arrived', 300))",
        history,
    )
    assert (found["last"], found["quietFor"]) == (20, quiet_s)
