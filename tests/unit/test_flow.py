"""Arrivals and departures, counted by comparing each listing with the one before."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dataplane.groups import DataPlaneGroupMeta
from exporter.model.flow import COUNTER_LINGER_S, FlowTracker
from exporter.model.snapshot import PartitionFlow

Versions = Mapping[str, int | None]


class Poller:
    """Feeds listings to a tracker, one second apart."""

    def __init__(self, max_partitions: int = 100) -> None:
        self.tracker = FlowTracker(max_partitions)
        self.now = 1000.0

    def poll(
        self, partitions: Mapping[str, Versions], published: int | None = None, created_at: float | None = None
    ) -> None:
        self.now += 1.0
        self.tracker.begin_poll(partitions, published, time=self.now, now=self.now)
        for partition, groups in partitions.items():
            listing = [
                DataPlaneGroupMeta(partition, name, [name], version, created_at) for name, version in groups.items()
            ]
            self.tracker.observe(partition, listing, time=self.now)

    def flow(self, partition: str = "train") -> PartitionFlow:
        return next(flow for flow in self.tracker.flows() if flow.partition == partition)

    def counts(self, partition: str = "train") -> tuple[int, int, int]:
        flow = self.flow(partition)
        return flow.arrived, flow.departed, flow.lost

    def reference(self, partition: str = "train") -> tuple[int, str] | None:
        return self.tracker.reference(partition)


def test_the_first_poll_is_a_baseline_and_counts_nothing() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 1, "b": 1}})
    assert poller.counts() == (0, 0, 0)


def test_a_partition_that_could_not_be_listed_at_first_has_its_baseline_later() -> None:
    poller = Poller()
    poller.tracker.begin_poll({"train"}, None, time=poller.now, now=poller.now)
    poller.poll({"train": {"a": 1, "b": 1}})
    assert poller.counts() == (0, 0, 0)
    poller.poll({"train": {"a": 1, "b": 1, "c": 1}})
    assert poller.counts() == (1, 0, 0)


def test_arrivals_and_departures_are_counted_between_polls() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 1, "b": 1}})
    poller.poll({"train": {"b": 1, "c": 2, "d": 2}})
    poller.poll({"train": {"d": 2}})
    assert poller.counts() == (2, 3, 0)


def test_a_partition_that_appears_later_has_arrivals() -> None:
    poller = Poller()
    poller.poll({})
    poller.poll({"train": {"a": 1}})
    assert poller.counts() == (1, 0, 0)


def test_residence_runs_from_the_creation_tag_or_from_first_sight() -> None:
    poller = Poller()
    poller.poll({"train": {}})
    poller.poll({"train": {"a": None}}, created_at=poller.now - 9)
    poller.poll({"train": {}})
    assert poller.flow().residence.sum == pytest.approx(11.0)
    poller.poll({"train": {"b": None}})
    poller.poll({"train": {"b": None}})
    poller.poll({"train": {}})
    assert poller.flow().residence.sum == pytest.approx(13.0)
    assert poller.flow().residence.count == 2


def test_a_creation_time_in_the_future_is_no_negative_residence() -> None:
    poller = Poller()
    poller.poll({"train": {"a": None}}, created_at=poller.now + 3600)
    poller.poll({"train": {}})
    assert poller.flow().residence.sum == 0.0


def test_the_lag_at_departure_is_counted_from_the_reference() -> None:
    poller = Poller()
    poller.poll({"train": {"old": 3, "new": 10}})
    poller.poll({"train": {}})
    lag = poller.flow().departure_lag
    assert (lag.count, lag.sum) == (2, 7.0)


def test_a_group_without_a_version_departs_without_a_lag() -> None:
    poller = Poller()
    poller.poll({"train": {"a": None, "b": 1}})
    poller.poll({"train": {"b": 1}})
    assert poller.counts() == (0, 1, 0)
    assert poller.flow().departure_lag.count == 0


def test_the_groups_of_a_partition_that_goes_have_departed_and_its_counters_linger() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 1}, "val": {}})
    poller.poll({"val": {}})
    assert poller.counts() == (0, 1, 0)
    poller.now += COUNTER_LINGER_S - 2
    poller.poll({"val": {}})
    assert poller.counts() == (0, 1, 0)
    poller.now += 2
    poller.poll({"val": {}})
    assert [flow.partition for flow in poller.tracker.flows()] == ["val"]


def test_a_partition_that_comes_back_in_time_goes_on_counting() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 1}})
    poller.poll({})
    poller.now += COUNTER_LINGER_S - 5
    poller.poll({"train": {"b": 1}})
    poller.now += COUNTER_LINGER_S
    poller.poll({"train": {"b": 1}})
    assert poller.counts() == (1, 1, 0)
    for _ in range(2):  # the time starts anew
        poller.poll({})
        assert poller.counts() == (1, 2, 0)


def test_a_partition_that_left_before_it_was_listed_has_no_baseline_when_it_comes_back() -> None:
    poller = Poller()
    poller.tracker.begin_poll({"train"}, None, time=poller.now, now=poller.now)
    poller.poll({})
    poller.poll({"train": {"a": 1, "b": 1}})
    assert poller.counts() == (2, 0, 0)


def test_a_partition_that_left_and_comes_back_is_a_new_one() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 9}})
    poller.poll({})
    assert poller.reference() is None
    poller.poll({"train": {"a": 3}})
    assert poller.reference() == (3, "newest_seen")
    assert poller.tracker.first_seen("train") == {"a": poller.now}
    assert poller.counts() == (1, 1, 0)


def test_what_a_lost_controller_held_is_lost_and_not_departed() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 1, "b": 1}})
    poller.tracker.lose_all()
    poller.poll({"train": {"c": 1}})
    assert poller.counts() == (1, 0, 2)


def test_partitions_past_the_limit_are_counted_under_other() -> None:
    poller = Poller(max_partitions=2)
    poller.poll({"p1": {}, "p2": {}, "p3": {}, "p4": {}})
    poller.poll({"p1": {"a": 1}, "p2": {}, "p3": {"b": 1}, "p4": {"c": 1, "d": 1}})
    assert [flow.partition for flow in poller.tracker.flows()] == ["other", "p1", "p2"]
    assert poller.counts("other") == (3, 0, 0)
    poller.poll({"p3": {}})
    assert poller.counts("other") == (3, 3, 0)


def test_a_partition_that_comes_back_past_the_limit_goes_on_under_its_own_label() -> None:
    poller = Poller(max_partitions=1)
    poller.poll({"p1": {}})
    poller.poll({"p2": {}})
    poller.poll({"p1": {"a": 1}})
    assert poller.counts("p1") == (1, 0, 0)
    assert poller.tracker.label("p3") == "other"


def test_a_partition_keeps_its_label_when_a_place_becomes_free_and_the_next_one_takes_it() -> None:
    poller = Poller(max_partitions=1)
    poller.poll({"p1": {}, "p2": {"a": 1}})
    poller.poll({"p2": {"a": 1}})
    poller.now += COUNTER_LINGER_S
    poller.poll({"p2": {"a": 1}})
    assert poller.tracker.label("p2") == "other"
    poller.poll({"p2": {"a": 1, "b": 1}, "p3": {"c": 1}})
    assert [flow.partition for flow in poller.tracker.flows()] == ["other", "p3"]
    assert (poller.counts("other"), poller.counts("p3")) == ((1, 0, 0), (1, 0, 0))


def test_ten_thousand_short_partitions_leave_nothing_behind() -> None:
    poller = Poller(max_partitions=3)
    for number in range(2000):
        poller.poll({f"p{number}": {"a": number}})
    assert len(poller.tracker.flows()) <= 4
    poller.now += COUNTER_LINGER_S
    poller.poll({})
    poller.now += COUNTER_LINGER_S
    poller.poll({})
    assert poller.tracker.flows() == ()


def test_the_reference_is_the_newest_version_ever_seen() -> None:
    poller = Poller()
    assert poller.reference() is None
    poller.poll({"train": {"a": 3, "b": 9}})
    poller.poll({"train": {"a": 3}})
    assert poller.reference() == (9, "newest_seen")


def test_old_groups_that_stay_behind_do_not_lower_the_reference() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 3, "b": 9}})
    for _ in range(5):
        poller.poll({"train": {"a": 3}})
    assert poller.reference() == (9, "newest_seen")


def test_a_run_resumed_from_an_older_checkpoint_lowers_it_after_two_polls() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 100}})
    poller.poll({"train": {"b": 3}})
    assert poller.reference() == (100, "newest_seen")
    poller.poll({"train": {"b": 3, "c": 4}})
    assert poller.reference() == (4, "newest_seen")


def test_groups_of_the_older_checkpoint_count_also_when_none_arrives_in_the_second_poll() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 100}})
    poller.poll({"train": {"b": 3}})
    poller.poll({"train": {"b": 3}})
    assert poller.reference() == (3, "newest_seen")


def test_a_late_group_is_forgotten_when_newer_ones_come_again() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 100}})
    poller.poll({"train": {"late": 3}})
    poller.poll({"train": {"late": 3, "b": 100}})
    for _ in range(3):
        poller.poll({"train": {"late": 3}})
    assert poller.reference() == (100, "newest_seen")


def test_a_published_version_is_the_reference_of_every_partition() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 3}, "val": {}}, published=7)
    assert poller.reference() == (7, "published")
    assert poller.reference("val") == (7, "published")
    poller.poll({"train": {"a": 3}, "val": {}})
    assert poller.reference() == (3, "newest_seen")


def test_a_new_generation_forgets_the_versions_of_the_last() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 100}}, published=200)
    poller.tracker.lose_all()
    assert poller.reference() is None


@pytest.mark.parametrize("jump_s", [86_400.0, -86_400.0])
def test_a_clock_that_jumps_makes_no_group_older_or_younger(jump_s: float) -> None:
    tracker = FlowTracker(100)

    def poll(time: float, now: float, *names: str) -> None:
        tracker.begin_poll(["train"], None, time=time, now=now)
        tracker.observe("train", [DataPlaneGroupMeta("train", name, [name]) for name in names], time=time)

    poll(100_000.0, 1.0, "a", "b")
    poll(100_010.0 + jump_s, 11.0, "b")
    assert tracker.first_seen("train") == {"b": 100_000.0 + jump_s}
    assert tracker.flows()[0].residence.sum == pytest.approx(10.0)


def test_the_reference_does_not_depend_on_the_order_of_the_groups() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 5, "b": 3}})
    assert poller.reference() == (5, "newest_seen")


def test_what_several_controllers_held_adds_up() -> None:
    poller = Poller()
    for name in "ab":
        poller.poll({"train": {name: 1, name + name: 1}})
        poller.tracker.lose_all()
    assert poller.flow().lost == 4


def test_the_total_adds_counters_and_histograms() -> None:
    poller = Poller()
    poller.poll({"a": {}, "b": {}})
    poller.poll({"a": {"x": 1}, "b": {"y": 2, "z": 2}})
    poller.poll({"a": {}, "b": {}})
    a, b, total = poller.flow("a"), poller.flow("b"), poller.tracker.total()
    assert total.partition == "all"
    assert (total.arrived, total.departed) == (3, 3)
    for one, two, both in (
        (a.residence, b.residence, total.residence),
        (a.departure_lag, b.departure_lag, total.departure_lag),
    ):
        assert both.bounds == one.bounds
        assert len(both.counts) == len(both.bounds) + 1
        assert both.counts == tuple(map(sum, zip(one.counts, two.counts, strict=True)))
        assert both.sum == one.sum + two.sum
