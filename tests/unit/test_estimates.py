"""The number of keys between two listings: its basis, its age, and when there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dataplane.counts import MAX_COUNTED, Moved, decode_counts, encode_counts
from exporter.conditions import Judge
from exporter.model.estimates import ClientCounts, Estimates, KeyEstimate, ListedRows
from exporter.model.history import History
from tests.support.clock import StoppedClock
from tests.support.snapshots import rich_snapshot


class Fixture:
    """A large partition that is listed rarely, and a small one that always is."""

    def __init__(self) -> None:
        self.clock = StoppedClock()
        self.estimates = Estimates(self.clock)
        self.rows = {"huge": ListedRows(0, 0.0), "few": ListedRows(0, 0.0)}

    def listed(self, **rows: int) -> None:
        self.rows |= {name: ListedRows(count, self.clock.time()) for name, count in rows.items()}
        self.estimates.listed(self.rows, self.rows)

    def later(self, seconds: float = 60.0, few: int = 10) -> tuple[KeyEstimate, ...]:
        """Let time pass, in which only the small partition is listed."""
        self.clock.advance(seconds)
        self.listed(few=few)
        return self.now()

    def now(self) -> tuple[KeyEstimate, ...]:
        return self.estimates.current(self.rows, self.rows, str)

    def clients(self, **moved: Moved) -> None:
        beat = self.clock.time()
        self.estimates.clients_read(ClientCounts(name, beat, {"huge": counts}) for name, counts in moved.items())


@pytest.fixture
def at() -> Fixture:
    return Fixture()


def test_nothing_is_estimated_while_listings_are_fresh_or_nothing_else_is_known(at: Fixture) -> None:
    at.estimates.storage_read(110)
    at.listed(huge=100, few=10)
    at.clock.advance(5.0)
    at.estimates.storage_read(120)
    assert at.now() == ()
    at.estimates.storage_read(None)
    assert at.later() == ()


def test_storage_tells_the_only_partition_whose_listing_is_old(at: Fixture) -> None:
    at.estimates.storage_read(1_000_010)
    at.listed(huge=1_000_000, few=10)
    at.clock.advance(50.0)
    at.estimates.storage_read(1_200_030)
    time = at.clock.time()
    assert at.later(4.0, few=30) == (KeyEstimate("huge", 1_200_000, "storage", time),)


def test_rows_without_data_are_not_in_storage_and_still_counted(at: Fixture) -> None:
    at.estimates.storage_read(900_010)
    at.listed(huge=1_000_000, few=10)
    at.clock.advance(50.0)
    at.estimates.storage_read(950_010)
    assert [one.keys for one in at.later()] == [1_050_000]


def test_a_reading_soon_after_the_listing_tells_the_rows_without_data_too(at: Fixture) -> None:
    at.listed(huge=1_000_000, few=10)
    at.clock.advance(15.0)
    at.estimates.storage_read(900_010)
    at.clock.advance(35.0)
    at.estimates.storage_read(950_010)
    assert [one.keys for one in at.later()] == [1_050_000]


def test_two_partitions_whose_listings_are_old_cannot_be_told_apart_in_storage(at: Fixture) -> None:
    at.rows["vast"] = ListedRows(5, at.clock.time())
    at.listed(huge=100, few=10)
    at.clock.advance(50.0)
    at.estimates.storage_read(10_000)
    assert at.later() == ()


def test_a_reading_from_before_the_listing_tells_nothing_new(at: Fixture) -> None:
    at.estimates.storage_read(110)
    at.clock.advance(1.0)
    at.listed(huge=100, few=10)
    assert at.later() == ()


def test_transferqueues_own_count_comes_first_also_for_a_partition_that_was_never_listed(at: Fixture) -> None:
    del at.rows["huge"]
    at.listed(few=10)
    at.clock.advance(5.0)
    at.estimates.samples_read({"huge": 1_000_000, "few": 12})
    at.estimates.storage_read(7)
    names = ("huge", "few")
    assert [(one.keys, one.basis) for one in at.estimates.current(names, at.rows, str)] == [(1_000_000, "tq_metrics")]
    at.estimates.samples_read(None)
    at.estimates.storage_read(800_010)
    assert [(one.keys, one.basis) for one in at.estimates.current(names, at.rows, str)] == [(800_000, "storage")]


def test_samples_without_keys_are_no_keys(at: Fixture) -> None:
    at.estimates.samples_read({"huge": 1_100})
    at.listed(huge=1_000, few=10)
    at.clock.advance(50.0)
    at.estimates.samples_read({"huge": 1_300})
    assert [one.keys for one in at.later()] == [1_200]


def test_clients_are_believed_once_they_explained_what_changed_between_two_listings(at: Fixture) -> None:
    at.clients(a=(1_000, 0), b=(0, 0))
    at.listed(huge=1_000, few=10)
    at.clock.advance(50.0)
    at.clients(a=(2_000, 0), b=(0, 400))
    assert at.later(1.0) == ()
    at.listed(huge=1_600)
    at.clock.advance(50.0)
    at.clients(a=(2_500, 0), b=(0, 400))
    time = at.clock.time()
    assert at.later(5.0) == (KeyEstimate("huge", 2_100, "clients", time),)


def test_clients_whose_puts_update_rows_are_not_believed(at: Fixture) -> None:
    at.clients(a=(0, 0))
    at.listed(huge=0, few=10)
    at.clock.advance(50.0)
    at.clients(a=(2_000, 0))
    at.listed(huge=1_000)
    at.clock.advance(50.0)
    at.clients(a=(4_000, 0))
    assert at.later() == ()


def test_what_a_client_moved_before_it_closed_stays_counted(at: Fixture) -> None:
    at.clients(a=(0, 0), b=(0, 0))
    at.listed(huge=0, few=10)
    at.clock.advance(50.0)
    at.clients(a=(900, 0), b=(100, 0))
    at.listed(huge=1_000)
    at.clock.advance(1.0)
    at.clients(a=(900, 0), b=(600, 0))
    at.clock.advance(50.0)
    at.clients(a=(901, 0))  # b is gone
    assert [one.keys for one in at.later(1.0)] == [1_501]


def test_a_client_that_died_tells_nothing_after_a_while(at: Fixture) -> None:
    at.clients(a=(0, 0))
    at.listed(huge=0, few=10)
    at.clock.advance(50.0)
    at.clients(a=(1_000, 0))
    at.listed(huge=1_000)
    at.clock.advance(1.0)
    at.clients(a=(1_500, 0))
    beat = at.clock.time()
    assert at.later(60.0)
    at.clock.advance(31.0)
    at.estimates.clients_read([ClientCounts("a", beat, {"huge": (1_500, 0)})])  # its row is still there
    assert at.later(1.0) == ()
    at.listed(huge=1_500)
    assert at.estimates._clients == {}


def test_the_number_of_clients_is_bounded(at: Fixture) -> None:
    at.clients(**{f"c{number}": (1, 0) for number in range(10_000)})
    assert len(at.estimates._clients) == 4096
    at.clock.advance(91.0)
    at.listed(huge=4096, few=10)
    assert at.estimates._clients == {}
    assert at.estimates._moved == {"huge": {}}
    del at.rows["huge"]
    at.listed(few=10)
    assert at.estimates._moved == {}


def test_no_estimate_stands_for_several_partitions_or_a_controller_that_is_gone(at: Fixture) -> None:
    at.estimates.samples_read({"huge": 7, "few": 7})
    assert at.estimates.current(at.rows, {}, lambda name: "train_*") == ()
    assert at.estimates.current(at.rows, {}, lambda name: "other") == ()
    assert len(at.estimates.current(at.rows, {}, str)) == 2
    at.estimates.forget()
    assert at.estimates.current(at.rows, {}, str) == ()


def test_conditions_do_not_judge_estimates() -> None:
    snapshot = rich_snapshot()
    estimates = tuple(KeyEstimate(one.partition, 10**9, "storage", one.listed_at) for one in snapshot.partitions)
    judged = [Judge(History(StoppedClock())).judge(replace(snapshot, estimates=found)) for found in ((), estimates)]
    assert judged[0].conditions == judged[1].conditions
    assert judged[0].conditions


# What clients publish


def test_counts_survive_their_row() -> None:
    counts = {"train": (3, 2), "ünï\n": (2**40, 0)}
    assert decode_counts(encode_counts(1.5, counts)) == (1.5, counts)


def test_a_client_tells_about_the_partitions_with_most_keys_only() -> None:
    counts = {f"p{number}": (number, 0) for number in range(100)}
    line = decode_counts(encode_counts(0.0, counts))
    assert line is not None
    assert sorted(line[1]) == sorted(f"p{number}" for number in range(100 - MAX_COUNTED, 100))


@pytest.mark.parametrize(
    "text",
    [None, 7, "", "{}", "[1]", '[1,{"a":[1]}]', '[1,{"a":[-1,0]}]', '[1,{"a":[9007199254740992,0]}]', "x" * 9000,
     '["a",{}]', '[1,{"a":[1,2]}', "\ud800", encode_counts(0.0, {})[:-1] + ",0,0]"[:1]],
)  # fmt: skip
def test_what_is_not_of_a_client_is_ignored(text: object) -> None:
    assert decode_counts(text) is None


def test_too_many_partitions_are_not_of_a_client() -> None:
    text = "[0," + "{" + ",".join(f'"p{number}":[1,0]' for number in range(MAX_COUNTED + 1)) + "}]"
    assert decode_counts(text) is None
