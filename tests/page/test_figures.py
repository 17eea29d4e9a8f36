"""The page shows every figure of the API, for 0 to 100 partitions, with any characters in their names."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from dataclasses import replace
from typing import Any

import pytest
from playwright.sync_api import Page

from dataplane.discovery.record import Endpoint
from dataplane.groups import GROUP_STATES
from exporter.model.snapshot import LAG_BUCKETS, ErrorCount, Incident, KeyEstimate, PartitionStatus, Snapshot
from tests.page.conftest import Open
from tests.page.support import UNKNOWN, Served, cells, many, number, running, text, wait_for_text

ODD_NAMES = [
    "<img src=x onerror=alert(1)>",
    "</script><script>document.title='taken'</script>",
    "\"'`quotes & &amp; <b>bold</b>",
    "line\nbreak\r\n\ttab",
    "\u202eright to left\u202c",
    "zero\u200bwidth",
    "${template} {{mustache}} javascript:alert(1)",
    "ünïcödé 測試 🚂",
    "",
    "__proto__",
    "constructor",
    "n" * 300,
]


def shown(name: str) -> str:
    """Return a name as the page shows it, with every character visible."""
    for code in range(0x20):
        name = name.replace(chr(code), chr(0x2400 + code))
    for hidden in "\u202e\u202c\u200b":
        name = name.replace(hidden, f"\\u{ord(hidden):04x}")
    return name or "(empty name)"


def api(served: Served, path: str = "api/v1/snapshot") -> dict[str, Any]:
    with urllib.request.urlopen(served.url + path, timeout=20) as answer:
        decoded: dict[str, Any] = json.load(answer)
        return decoded


def bars(page: Page, table: str) -> dict[str, str]:
    return {row[0]: row[2] for row in cells(page, table)}


def test_every_figure_is_the_apis(served: Served, open_page: Open) -> None:
    served.show(replace(running(), errors=(ErrorCount("ping", "DataPlaneTimeout", 3),)))
    page = open_page(served.url)
    seen = api(served)
    parts = seen["partitions"]
    assert text(page, "#state") == "Running"
    assert number(page, "#ready") == sum(part["groups"]["ready"] for part in parts) == 14
    assert text(page, "#queue-note") == "17 incomplete · 20 uncommitted · 23 failed · 26 taken"
    assert text(page, "#run") == seen["endpoint"]["run"]
    facts = text(page, "#facts")
    assert seen["endpoint"]["address"] in facts
    assert "Controller id TQ_CONTROLLER_5a1f Actor id ab12 Node 10.0.0.7 Process 4711" in facts
    assert "tq-exporter 1.2.3, up for " in text(page, "#about")
    assert f"Restarts {seen['generation'] - 1}" in facts
    assert list(bars(page, "lags")) == list(LAG_BUCKETS)
    assert bars(page, "lags") == {
        bucket: str(sum(part["staleness"][bucket] for part in parts)) for bucket in parts[0]["staleness"]
    }
    said = r"largest 12, mean 1.75 · from version 41, the newest seen \(lower bounds\), unchanged for .+"
    assert re.fullmatch(said + " · stepped back once", text(page, "#lag-note"))
    versions = bars(page, "versions")
    assert versions == {"41": "14", "40": "14", "39": "14", "older": "15", "unknown": "3"}
    assert list(versions) == ["41", "40", "39", "older", "unknown"]
    left = sum(flow["departed"] for flow in seen["flows"])
    assert f"Since start {left}" in text(page, "#out-facts")
    assert "By last state 120 ready · 4 incomplete · 8 uncommitted · 20 failed · 40 taken" in text(page, "#out-facts")
    assert "Completed 220" in text(page, "#in-facts")
    assert sum(int(count) for count in bars(page, "residence").values()) == 28
    for row, part in zip(cells(page, "partitions"), parts, strict=True):
        assert row[0] == shown(part["partition"])
        assert row[1:3] == [f"{part['role']} · nemo-rl", "yes"]
        assert row[4:9] == [str(part["groups"][state]) for state in GROUP_STATES]
        assert row[9] == str(part["keys"])
        assert row[11:14] == [str(part["newest_version"]), str(part["staleness_max"]), str(part["staleness_mean"])]
        assert row[14] == f"{part['reference_version']} newest seen"
    assert [row[0] for row in cells(page, "sources")] == [one["source"] for one in seen["sources"]]
    assert [row[1] for row in cells(page, "sources")] == ["ok", "ok", "stretched", "failing", "ok"]
    assert cells(page, "sources")[2][4] == "12.5 s"
    assert cells(page, "storage") == [
        ["0", "ok", "", "2,500", "10,000", "25 %", "942 MiB", "10.0.0.8", "500", "cd30"],
        # A figure that a unit does not report is unknown, not 0.
        ["1", "ok", "", "2,400", UNKNOWN, UNKNOWN, UNKNOWN, "10.0.0.9", "501", "cd31"],
        ["2", "silent", "the start", *[UNKNOWN] * 4, "10.0.0.10", "502", "cd32"],
        ["3", "ok", "", UNKNOWN, "256 MiB", "75 %", "191 MiB", UNKNOWN, UNKNOWN, UNKNOWN],  # a segment of Mooncake
    ]
    assert cells(page, "tasks") == [
        ["stream", "200", "all", UNKNOWN, "75 %", ""],
        ["stream", "200", "ref", "25 %", "75 %", "depth of the partition"],
        ["stream", "200", "train", "60 %", "75 %", ""],
        ["train", "448", UNKNOWN, UNKNOWN, UNKNOWN, ""],
    ]
    assert text(page, "#tasks-note").endswith("2 tasks left out")
    assert text(page, "#storage-note").endswith("12 keys that no partition lists")
    assert cells(page, "errors") == [["ping", "DataPlaneTimeout", "3"]]
    assert cells(page, "failures")[0][1:] == ["storage_metrics", "DataPlaneTimeout", "unit 1 is silent", "1"]
    # What is for machines is not in the navigation.
    assert [link.get_attribute("href") for link in page.locator("nav a").all()] == ["docs/metrics"]
    for link in ("metrics", "api/v1/snapshot", "api/v1/conditions", "sd", "healthz", "readyz"):
        assert page.locator(f'footer a[href="{link}"]').count() == 1
        urllib.request.urlopen(served.url + link, timeout=20).close()


def test_an_estimate_says_what_it_is_made_from_and_how_old_it_is(served: Served, open_page: Open) -> None:
    snapshot = running()
    at = snapshot.taken_at - 4
    statuses = (*snapshot.statuses, PartitionStatus("huge", False, "refused"))
    estimates = (KeyEstimate("huge", 1_000_064, "storage", at), KeyEstimate("train", 77, "clients", at))
    served.show(replace(snapshot, statuses=statuses, estimates=estimates))
    page = open_page(served.url)
    keys = {row[0]: row[9] for row in cells(page, "partitions")}
    assert re.fullmatch(r"about 1,000,064, from storage, \d+ s ago", keys["huge"])
    assert re.fullmatch(r"about 77, from clients, \d+ s ago", keys["train"])


@pytest.mark.parametrize("partitions", [0, 1, 50, 100])
def test_any_number_of_partitions(served: Served, open_page: Open, partitions: int) -> None:
    served.show(many(partitions))
    page = open_page(served.url)
    assert len(cells(page, "partitions")) == partitions
    assert number(page, "#ready") == sum(range(partitions))
    if partitions == 0:
        assert page.locator("#partitions").is_hidden()
        assert "Partitions TransferQueue has none" in text(page, "#folded")
        assert text(page, "#lag-note") == "no partition is listed"
    assert page.locator("#scope option").count() == partitions + 1
    assert page.locator("#filter").is_visible() == (partitions > 8)
    if partitions > 8:
        page.fill("#filter", "partition-00")
        assert len(cells(page, "partitions")) == 10
        page.fill("#filter", "none such")
        assert text(page, "#partitions") == "No partition matches."


def test_the_history_of_a_hundred_partitions_stays_small(served: Served) -> None:
    served.show(many(100))
    with urllib.request.urlopen(served.url + "api/v1/history/recent", timeout=20) as answer:
        assert len(answer.read()) < 20_000


def test_names_are_inert_text(served: Served, open_page: Open) -> None:
    part = running().partitions[0]
    flow = running().flows[0]
    served.show(
        replace(
            running(),
            partitions=tuple(replace(part, partition=name) for name in ODD_NAMES),
            flows=tuple(replace(flow, partition=name) for name in ODD_NAMES),
            endpoint=replace_endpoint(running(), run=ODD_NAMES[0], backend=ODD_NAMES[1]),
            incidents=tuple(Incident(time.time(), "ping", "ping", "DataPlaneTimeout", name) for name in ODD_NAMES),
        )
    )
    page = open_page(served.url)
    assert [row[0] for row in cells(page, "partitions")] == [shown(name) for name in ODD_NAMES]
    assert text(page, "#run") == ODD_NAMES[0]
    assert page.title() == "Running · TransferQueue"
    assert page.locator("main img, main script, main b:not(.legend b), main iframe").count() == 0
    for index in range(len(ODD_NAMES)):  # each can be selected, by its button and in the list
        page.locator("#partitions .name").nth(index).click()
        assert number(page, "#ready") == part.groups["ready"]
        chosen = page.locator("#scope option:checked").text_content()
        assert chosen == shown(ODD_NAMES[index])
        page.locator("#partitions .name").nth(index).click()


@pytest.mark.parametrize("name", ["partition-01", 'odd & "name"/#?=%'])
def test_the_address_has_the_choices(served: Served, open_page: Open, name: str) -> None:
    three = many(3)
    three = many(3)
    served.show(replace(three, partitions=(*three.partitions[:2], replace(three.partitions[2], partition=name))))
    page = open_page(served.url)
    assert page.url == served.url
    page.locator("#scope").select_option(label=name)
    page.locator("input[name=window][value=hour]").check(force=True)
    link = page.url
    assert "range=hour" in link

    other = open_page(link)
    assert other.locator("#scope option:checked").text_content() == name
    assert other.locator("input[name=window]:checked").get_attribute("value") == "hour"
    other.locator("#scope").select_option(label="All partitions")
    other.locator("input[name=window][value=recent]").check(force=True)
    assert other.url == served.url


def test_an_address_with_choices_that_do_not_exist_shows_what_there_is(served: Served, open_page: Open) -> None:
    page = open_page(f"{served.url}?partition=gone&range=year")
    assert page.locator("input[name=window]:checked").get_attribute("value") == "recent"
    assert page.locator("#scope option:checked").text_content() == "gone"
    assert number(page, "#ready") is None


def replace_endpoint(snapshot: Snapshot, **changes: str) -> Endpoint:
    from msgspec.structs import replace as replace_struct

    assert snapshot.endpoint is not None
    return replace_struct(snapshot.endpoint, **changes)


def test_a_change_is_followed(served: Served, open_page: Open) -> None:
    page = open_page(served.url)
    for groups in (31, 7, 0, 1_234_567):
        part = replace(served.snapshot.partitions[0], groups=dict.fromkeys(GROUP_STATES, 0) | {"ready": groups})
        before = served.asked
        served.show(replace(served.snapshot, partitions=(part,)))
        wait_for_text(page, "#ready", f"{groups:,}".__eq__)
        # Turns of the page are counted, not seconds. The first one after the change shows it; on slow machines one or
        # two more.
        assert served.asked - before <= 3


def test_unknown_is_never_zero(served: Served, open_page: Open) -> None:
    part = replace(
        running().partitions[0],
        size_bytes=None,
        staleness_max=None,
        staleness_mean=None,
        newest_version=None,
        reference_version=None,
        reference=None,
        weight_versions=(("unknown", 7),),
        oldest=(),
    )
    served.show(replace(running(), partitions=(part,), controller_busy_ratio=None, errors=()))
    page = open_page(served.url)
    row = cells(page, "partitions")[0]
    assert [row[column] for column in range(10, 16)] == [UNKNOWN] * 6
    assert text(page, "#lag-note") == "no weight version is known"
    assert text(page, "#in-rate") == UNKNOWN  # one sample gives no rate
    assert "Size" not in text(page, "#queue-facts")


def test_a_partition_that_cannot_be_read_is_shown_with_its_reason(served: Served, open_page: Open) -> None:
    now = running()
    hidden = PartitionStatus("eval_data", False, "not_listable", None, "eval")
    kept = replace(now.statuses[1], readable=False, reason="held")  # its last listing is still valid
    served.show(replace(now, statuses=(now.statuses[0], kept, now.statuses[2], hidden)))
    page = open_page(served.url)
    rows = {row[0]: row for row in cells(page, "partitions")}
    reason = "not listable: samples were put without keys"
    assert rows["eval_data"][1:3] == ["eval", reason]
    assert set(rows["eval_data"][4:18]) == {UNKNOWN}
    assert rows["eval_data"][18] == "never"
    assert rows["val"][2] == "backing off after a failed listing"
    assert rows["val"][4] == "0"
    assert text(page, "#partitions-note").startswith("3 listed, 1 not")
    page.get_by_role("button", name="eval_data").click()
    assert number(page, "#ready") is None
    assert text(page, "#queue-note") == f"cannot be read: {reason}"


def test_groups_that_merely_lie_there_are_not_called_a_flow(served: Served, open_page: Open) -> None:
    still = tuple(
        replace(flow, arrived=0, departed_by_state=dict.fromkeys(GROUP_STATES, 0)) for flow in running().flows
    )
    served.show(replace(running(), flows=still, conditions=()))
    said = "TransferQueue answers; no group has arrived or left since the exporter started."
    assert text(open_page(served.url), "#verdict") == said
