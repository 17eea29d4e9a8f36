"""The page shows the exporter's conditions, and judges nothing itself."""

from __future__ import annotations

import time
from dataclasses import replace

from playwright.sync_api import Page

from exporter.model.condition import Condition
from exporter.model.snapshot import LastKnown, PartitionStatus
from exporter.model.storage import LastAnswer, StorageState
from tests.page.conftest import Open
from tests.page.support import FLOWS, UNKNOWN, Served, cells, many, running, text, wait_for_text

STALLED = Condition(
    "DataPlaneQueueStalled",
    "training",
    "critical",
    True,
    degrades=True,
    text="13 groups are ready and none has left for 20 min",
    remedy="Look at the trainer.",
    runbook="docs/runbooks/DataPlaneQueueStalled.md",
)
FULL = Condition(
    "DataPlaneStorageFull",
    "queue",
    "critical",
    True,
    degrades=True,
    since=time.time() // 86400 * 86400 + 43200,
    text="storage unit 0 is 100 % full: puts fail",
    remedy="Clear keys.",
)
STALE = Condition(
    "DataPlaneStalenessAboveWindow",
    "training",
    "warning",
    True,
    text="a group is 9 versions behind",
    remedy="Evict them.",
)
QUIET = Condition("DataPlaneArrivalsQuiet", "generation", "notice", True, text="no group has arrived for 2 min")
SILENT = Condition(
    "DataPlaneStorageUnitSilent", "queue", "warning", True, degrades=True, text="1 of 3 storage units does not answer"
)
NOT_STUCK = Condition("DataPlaneWeightVersionStuck", "training", "warning", False)
UNKNOWN_YET = Condition("DataPlaneTrainerStarved", "generation", "critical", None, degrades=True)


def show(served: Served, *conditions: Condition) -> None:
    served.show(replace(running(), taken_at=time.time(), conditions=conditions))


def tones(page: Page) -> list[str | None]:
    return [page.get_attribute(f"#{part}", "data-tone") for part in ("status", "generation", "queue", "training")]


def test_while_all_is_well_it_says_so(served: Served, open_page: Open) -> None:
    show(served, NOT_STUCK, UNKNOWN_YET, FLOWS)
    page = open_page(served.url)
    assert text(page, "#state") == "Running"
    assert text(page, "#verdict") == "Groups flow through generation, queue and training."
    assert page.locator("#reason").is_hidden()
    assert tones(page) == ["ok", "ok", "ok", "ok"]


def test_without_both_flows_it_does_not_say_that_all_is_well(served: Served, open_page: Open) -> None:
    show(served, NOT_STUCK, replace(FLOWS, holds=False))
    page = open_page(served.url)
    assert (
        text(page, "#verdict") == "TransferQueue answers; groups have not both arrived and left within the usual time."
    )


def test_it_says_so_while_nobody_knows_what_is_usual(served: Served, open_page: Open) -> None:
    show(served, NOT_STUCK, replace(FLOWS, holds=None))
    said = "TransferQueue answers; too few groups have arrived and left to know whether they flow."
    assert text(open_page(served.url), "#verdict") == said


def test_a_critical_condition_is_the_headline_and_causes_come_first(served: Served, open_page: Open) -> None:
    show(served, STALLED, FULL, STALE, replace(FLOWS, holds=False))
    page = open_page(served.url, timezone_id="UTC")
    assert text(page, "#state") == "Degraded"
    assert page.title() == "Degraded · TransferQueue"
    assert text(page, "#verdict") == "Check training: 13 groups are ready and none has left for 20 min."
    assert text(page, "#remedy") == "What to do: Look at the trainer. More in docs/runbooks/DataPlaneQueueStalled.md."
    others = page.locator("#others li").all_inner_texts()
    assert [" ".join(said.split()) for said in others] == [
        "critical Storage unit 0 is 100 % full: puts fail. Since 12:00:00. What to do: Clear keys. "
        "DataPlaneStorageFull",
        "warning A group is 9 versions behind. What to do: Evict them. DataPlaneStalenessAboveWindow",
    ]
    assert page.locator("#others a").first.get_attribute("href") == "docs/metrics#DataPlaneStorageFull"
    # The strip is as red as the headline.
    assert text(page, "#timeline-legend").startswith("Degraded ")
    assert page.locator("#timeline rect").last.get_attribute("data-tone") == "bad"
    assert tones(page) == ["bad", "ok", "bad", "bad"]
    show(served, NOT_STUCK, FLOWS)
    wait_for_text(page, "#state", lambda said: said == "Running")
    assert text(page, "#announcer").startswith("Running.")


def test_a_warning_does_not_change_the_state(served: Served, open_page: Open) -> None:
    show(served, STALE)
    page = open_page(served.url)
    assert text(page, "#state") == "Running"
    assert text(page, "#verdict") == "Check training: a group is 9 versions behind."
    assert tones(page) == ["warn", "ok", "ok", "warn"]


def test_a_notice_is_no_problem(served: Served, open_page: Open) -> None:
    show(served, QUIET, FLOWS)
    page = open_page(served.url)
    assert text(page, "#verdict") == (
        "Groups flow through generation, queue and training. No group has arrived for 2 min."
    )
    assert tones(page) == ["ok", "ok", "ok", "ok"]


def test_what_cannot_be_judged_is_not_known(served: Served, open_page: Open) -> None:
    unread = Condition(
        "DataPlanePartitionUnreadable", "queue", "warning", True, text="partition “train” cannot be read (timed out)"
    )
    now = running()
    statuses = (replace(now.statuses[0], readable=False, reason="timeout"), *now.statuses[1:])
    sources = tuple(replace(one, reason="ok", up=True, detail="") for one in now.sources)
    served.show(replace(now, statuses=statuses, sources=sources, conditions=(unread, replace(FLOWS, holds=None))))
    page = open_page(served.url)
    assert text(page, "#verdict") == "Check the queue: partition “train” cannot be read (timed out)."
    assert tones(page) == ["warn", "idle", "warn", "idle"]


def test_a_storage_unit_that_does_not_answer_keeps_its_row(served: Served, open_page: Open) -> None:
    at = time.time() - 90
    units = (
        StorageState(0, "u0", 100, 64, 2048),
        StorageState(1, "u1", error_type="DataPlaneTimeout", last_answer=LastAnswer(at, 100, 63, 1024)),
    )
    served.show(replace(running(), taken_at=time.time(), storage=units, conditions=(SILENT,)))
    page = open_page(served.url, timezone_id="UTC")
    assert text(page, "#state") == "Degraded"
    (_, row) = cells(page, "storage")
    shown = time.strftime("%H:%M:%S", time.gmtime(at))
    assert row == ["1", "silent", shown, "63", "100", "63 %", "1 KiB", "10.0.0.9", "501", "cd31"]
    assert page.locator("#storage td[data-old]").count() == 4
    assert text(page, "#storage-note").startswith("1 of 2 not answering")


def test_what_was_last_known_stays_dated_when_the_data_plane_is_gone(served: Served, open_page: Open) -> None:
    now = running()
    at = time.time() - 600
    parts = tuple(replace(part, listed_at=at) for part in now.partitions)
    statuses = tuple(PartitionStatus(part.partition, True, None, at, part.role) for part in parts)
    last = LastKnown(at, parts, statuses, (StorageState(0, "u0", 100, 64, 2048),))
    sources = tuple(replace(one, up=False, reason="stale") for one in now.sources)
    served.show(
        replace(
            now,
            taken_at=time.time(),
            up=False,
            discovery="lost",
            partitions=(),
            statuses=(),
            storage=(),
            unlisted_keys=None,
            sources=sources,
            conditions=(),
            last_known=last,
        )
    )
    page = open_page(served.url, timezone_id="UTC")
    assert text(page, "#state") == "Lost"
    assert text(page, "#ready") == UNKNOWN
    assert [row[4] for row in cells(page, "partitions")] == [str(part.groups["ready"]) for part in parts]
    assert page.locator("#partitions[data-old]").count() == 1
    shown = time.strftime("%H:%M:%S", time.gmtime(at))
    assert text(page, "#partitions-note").startswith(f"Not current: as listed at {shown}, 10 min ")
    assert cells(page, "storage")[0][3] == "64"
    assert page.locator("#storage[data-old]").count() == 1
    assert text(page, "#storage-note") == f"Not current: as of {shown}"


def test_many_partitions_are_shown_worst_first(served: Served, open_page: Open) -> None:
    parts = [replace(part, staleness_max=1) for part in many(12).partitions]
    parts[7] = replace(parts[7], staleness_max=9)
    statuses = tuple(PartitionStatus(part.partition, part is not parts[5], None, part.listed_at) for part in parts)
    statuses = tuple(one if one.readable else replace(one, reason="timeout") for one in statuses)
    named = (
        replace(STALE, partitions=("partition-009",)),
        replace(STALLED, partitions=("partition-011",)),
    )
    served.show(replace(many(12), partitions=tuple(parts), statuses=statuses, conditions=named))
    page = open_page(served.url)
    names = [row[0] for row in cells(page, "partitions")]
    assert names[:5] == [f"partition-{index:03}" for index in (11, 9, 5, 7, 0)]
    assert names[4:] == sorted(names[4:])  # without a difference they stay where they are
    tones = [row.get_attribute("data-tone") for row in page.locator("#partitions tbody tr").all()]
    assert tones == ["bad", "warn", *[None] * 10]
    title = str(page.get_by_role("button", name="partition-011").get_attribute("title"))
    assert title.endswith("13 groups are ready and none has left for 20 min")


def test_what_an_exporter_that_does_not_answer_said_is_not_repeated(served: Served, open_page: Open) -> None:
    show(served, STALLED)
    page = open_page(served.url, quiet=False)
    assert tones(page)[3] == "bad"
    served.stop()
    wait_for_text(page, "#verdict", lambda said: said.startswith("The current state is unknown"))
    assert text(page, "#state") == "Degraded (last known)"
    assert tones(page)[1:] == ["idle", "idle", "idle"]
