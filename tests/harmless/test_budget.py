"""The exporter uses at most its share of the controller's time, even when the controller becomes slow."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from exporter.config import Config, Metadata
from tests.support.cluster import TQCluster
from tests.support.exporter_process import ExporterProcess, Exposition
from tests.support.fake_router import FakeRouter, reply
from tests.support.faulty_proxy import FaultyProxy
from tests.unit.test_poller import Fixture

HOUR_S = 3600.0


Make = Callable[[float, float], Fixture]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes a poller on a stopped clock, given the largest share and stall."""
    made: list[Fixture] = []

    def one(share: float, stall_s: float) -> Fixture:
        made.append(Fixture(Config(metadata=Metadata(max_controller_share=share, max_controller_stall=stall_s))))
        made[-1].poller.start(loop=False)
        return made[-1]

    yield one
    for fixture in made:
        assert fixture.poller.stop(10.0)


def spend(at: Fixture, seconds: float) -> float:
    """Let time pass; return the ratio of it that listings took."""
    before = at.reader.controller_seconds
    at.step(seconds)
    return (at.reader.controller_seconds - before) / seconds


@pytest.mark.parametrize("share", [0.01, 0.001])
def test_a_controller_that_slows_down_tenfold_costs_no_larger_share(make: Make, share: float) -> None:
    at = make(share, 10.0)
    at.reader.partitions = {"a": 1, "b": 1}
    at.reader.rows = {"a": 40_000, "b": 80_000}
    at.reader.cost = {"a": 0.02, "b": 0.04}
    at.find()
    at.step()
    assert 0 < spend(at, HOUR_S) <= share + 0.0601 / HOUR_S  # one extra: polls may fall on both ends of the hour
    at.reader.cost = {"a": 0.2, "b": 0.4}
    # One poll at the old rate notices it; from then on the share is kept.
    assert 0 < spend(at, HOUR_S) <= share + 0.601 / HOUR_S
    assert (at.source("metadata").interval or 99.0) <= 30.0
    every = re.search(r"1000 rows or more are listed every (\S+) s", at.source("metadata").detail)
    assert every is not None
    assert float(every[1]) == pytest.approx(0.6 / share, rel=0.01)
    assert at.source("metadata").reason == "budget"
    at.reader.cost = {"a": 0.001, "b": 0.001}
    at.step(0.6 / share + 30.0)
    assert at.source("metadata").interval == pytest.approx(10.0)


@pytest.mark.parametrize(("stall_s", "listings"), [(0.25, 12), (0.5, 144)])
def test_a_partition_that_becomes_ten_times_as_slow_is_held_back_by_the_stall_it_may_cause(
    make: Make, stall_s: float, listings: int
) -> None:
    at = make(0.01, stall_s)
    at.reader.cost["train"], at.reader.rows["train"] = 0.03, 50_000
    at.find()
    at.step()
    at.reader.cost["train"] = 0.3
    at.step(60.0)  # the second slow listing decides
    at.reader.listed.clear()
    share = spend(at, HOUR_S)
    # Held back: listed once in five minutes. Otherwise as often as the share allows: every 30 s, and with its poll.
    assert listings * 0.8 <= len(at.reader.listed) <= listings
    assert share <= 0.0105 + 0.3 / HOUR_S


def test_waiting_for_a_real_controller_is_not_taken_for_its_work(cluster: TQCluster) -> None:
    cluster.put("train", ["a_g0"], tags=[{"weight_version": 1}])
    with (
        FaultyProxy(cluster.controller.address) as relay,
        ExporterProcess("--controller", relay.address, "--metadata-interval", "500ms", env=RARE_PINGS) as exporter,
    ):
        exporter.wait_for(lambda seen: bool(seen.samples("dataplane_partition_keys")), "the rows")
        relay.delay(0.05)  # a round of two requests takes 0.1 s: 20 times what the share allows in half a second
        times = [listed_at(exporter.scrape())]
        for _ in range(4):
            seen = exporter.wait_for(lambda seen: listed_at(seen) > times[-1], "a listing")
            assert interval(seen) <= 1.5
            times.append(listed_at(seen))


def test_a_partition_that_stalls_the_controller_is_not_asked_for_again() -> None:
    listing = {f"a{row}_g0": {"weight_version": 1} for row in range(5_000)}

    def answer(request: dict[str, Any]) -> list[bytes]:
        if request["request_type"] == "GET_LIST_PARTITIONS":
            return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["train"]})
        time.sleep(0.3)  # the controller's thread works
        return reply("KV_LIST_RESPONSE", {"partition_info": {"train": listing}, "message": "success"})

    env = {"TQ_EXPORTER_METADATA_MAX_CONTROLLER_STALL": "50ms"}
    with (
        FakeRouter(answer) as router,
        ExporterProcess("--controller", router.address, "--metadata-interval", "500ms", env=env) as exporter,
    ):
        name = "tq_exporter_polls_total"

        def asked() -> int:
            return sum(request["request_type"] == "KV_LIST" for request in router.requests)

        exporter.wait_for(lambda seen: asked() > 0 and held(exporter), "the listing that stalls")
        listings = asked()  # more than one only if this machine is so busy that pings take as long
        before = exporter.scrape().value(name, source="metadata", outcome="ok") or 0.0
        exporter.wait_for(
            lambda seen: (seen.value(name, source="metadata", outcome="ok") or 0.0) >= before + 4, "polls"
        )
        assert asked() == listings
        assert exporter.scrape().value("dataplane_partition_keys", partition="train") == 5_000


RARE_PINGS = {"TQ_EXPORTER_PING_INTERVAL": "2s"}


def interval(seen: Exposition) -> float:
    return seen.value("dataplane_source_interval_seconds", source="metadata") or 0.0


def listed_at(seen: Exposition) -> float:
    return seen.value("dataplane_partition_listed_timestamp_seconds", partition="train") or 0.0


def sources(exporter: ExporterProcess) -> dict[str, Any]:
    return {one["source"]: one for one in exporter.snapshot()["sources"]}


def held(exporter: ExporterProcess) -> bool:
    return "'train'" in sources(exporter)["metadata"]["detail"]
