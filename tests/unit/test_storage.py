"""What the storage units report: keys that no partition lists, and requests by operation."""

from __future__ import annotations

import pytest
from opentelemetry.trace import NoOpTracer

from dataplane.adapters.wire import StorageUnitMetrics, UnitRequests
from dataplane.discovery.record import StorageUnitEndpoint
from exporter.config import Config
from exporter.model.results import Ok
from exporter.model.storage import StorageRequests, StorageState, Unlisted
from exporter.polling.sources.storage import StorageSource
from tests.support.clock import StoppedClock


def after(*events: tuple[str, int | None]) -> int | None:
    """Return the unlisted keys after readings (``held``) and listings (``listed``)."""
    unlisted = Unlisted()
    for name, count in events:
        (unlisted.storage_read if name == "held" else unlisted.listed)(count)
    return unlisted.value


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], None),
        ([("listed", 5)], None),
        ([("held", 9), ("listed", 5)], None),
        ([("listed", 5), ("held", 9)], None),
        ([("held", 9), ("listed", 5), ("listed", 5)], None),
        ([("listed", 5), ("held", 9), ("listed", 5)], 4),
        ([("listed", 5), ("held", 5), ("listed", 5)], 0),
        ([("listed", 5), ("held", 3), ("listed", 5)], 0),
    ],
    ids=["nothing", "no reading", "no listing before", "no listing after", "reading first", "known", "none", "no data"],
)
def test_a_reading_between_two_listings_tells(events: list[tuple[str, int | None]], expected: int | None) -> None:
    assert after(*events) == expected


def test_rows_that_come_or_go_in_between_are_not_unlisted() -> None:
    assert after(("listed", 5), ("held", 9), ("listed", 9)) == 0
    assert after(("listed", 9), ("held", 9), ("listed", 5)) == 0


def test_the_smallest_of_several_readings_counts() -> None:
    assert after(("listed", 5), ("held", 7), ("held", 6), ("held", 9), ("listed", 5)) == 1


def test_a_listing_without_a_new_reading_keeps_the_value() -> None:
    assert after(("listed", 5), ("held", 9), ("listed", 5), ("listed", 8)) == 4


@pytest.mark.parametrize("gap", [("held", None), ("listed", None)], ids=["unit", "partition"])
def test_what_cannot_be_read_makes_it_unknown(gap: tuple[str, None]) -> None:
    known = [("listed", 5), ("held", 9), ("listed", 5)]
    assert after(*known, gap) is None
    assert after(("listed", 5), ("held", 9), gap, ("listed", 5)) is None
    assert after(*known, gap, *known) == 4


def test_nothing_remains_after_forgetting() -> None:
    unlisted = Unlisted()
    unlisted.listed(5)
    unlisted.storage_read(9)
    unlisted.forget()
    unlisted.listed(5)
    assert unlisted.value is None


class Unit:
    """A storage unit with given figures."""

    def __init__(self, metrics: StorageUnitMetrics) -> None:
        self._metrics = metrics

    def read(self) -> StorageUnitMetrics:
        return self._metrics

    def close(self) -> None: ...


def ask(metrics: StorageUnitMetrics) -> StorageState:
    endpoint = StorageUnitEndpoint(0, "u0", "tcp://127.0.0.1:1")
    source = StorageSource([(endpoint, Unit(metrics))], Config(), tracer=NoOpTracer(), clock=StoppedClock())
    result = source.poll()
    assert isinstance(result, Ok)
    return result.value.units[0]


def test_a_unit_keeps_all_that_it_reports() -> None:
    requests = {"GET_DATA": UnitRequests(2), "PUT_DATA": UnitRequests(3, 3, 0.5)}
    assert ask(StorageUnitMetrics(100, 7, 5, requests, 4096, 8, 1, 0.25, 2)) == StorageState(
        0,
        "u0",
        capacity=100,
        keys=7,
        memory_bytes=5,
        requests=(StorageRequests("PUT_DATA", 3, 3, 0.5), StorageRequests("GET_DATA", 2)),
        ssd_bytes=4096,
        ssd_values=8,
        ssd_fallbacks=1,
        accept_queue_peak_ratio=0.25,
        socket_drops=2,
    )


def test_operations_that_are_not_declared_are_summed() -> None:
    requests = {"NEW": UnitRequests(2, 1, 0.5), "x" * 1000: UnitRequests(3), "PUT_DATA": UnitRequests(1)}
    assert ask(StorageUnitMetrics(None, 0, None, requests)).requests == (
        StorageRequests("PUT_DATA", 1),
        StorageRequests("other", 5, 1, 0.5),
    )
