"""Arrivals and departures, counted by comparing each listing with the one before."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dataplane.groups import DataPlaneGroupMeta
from dataplane.partitions import ByName, Role
from exporter.config import Partition
from exporter.model.flow import COUNTER_LINGER_S, FlowTracker
from exporter.model.snapshot import PartitionFlow
from exporter.model.versions import VersionReference

Versions = Mapping[str, int | None]


def group(
    name: str, state: str = "ready", *, version: int | None = None, keys: list[str] | None = None
) -> DataPlaneGroupMeta:
    return DataPlaneGroupMeta(
        "p",
        name,
        keys or [f"{name}-0"],
        version,
        committed=state not in ("uncommitted", "failed"),
        expected_num_keys=9 if state == "incomplete" else None,
        failed=state == "failed",
        taken=state == "taken",
    )


class Poller:
    """Feeds listings to a tracker, one second apart."""

    def __init__(self, max_partitions: int = 100, **settings: Partition) -> None:
        self.tracker = FlowTracker(ByName(settings), max_partitions)
        self.now = 1000.0
        self.reference: VersionReference | None = None

    def poll(
        self,
        partitions: Mapping[str, Versions | list[DataPlaneGroupMeta]],
        *,
        created_at: float | None = None,
        sender: str | None = None,
    ) -> None:
        self.now += 1.0
        self.tracker.begin_poll(partitions, time=self.now, now=self.now, sender_id=sender, reference=self.reference)
        for partition, groups in partitions.items():
            listing = (
                groups
                if isinstance(groups, list)
                else [
                    DataPlaneGroupMeta(partition, name, [name], version, created_at, committed=True)
                    for name, version in groups.items()
                ]
            )
            self.tracker.observe(partition, listing, time=self.now, sender_id=sender, reference=self.reference)

    def flow(self, partition: str = "train") -> PartitionFlow:
        return next(flow for flow in self.tracker.flows() if flow.partition == partition)

    def counts(self, partition: str = "train") -> tuple[int, int, int]:
        flow = self.flow(partition)
        return flow.arrived, flow.departed, flow.lost


def test_the_first_poll_is_a_baseline_and_counts_nothing() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 1, "b": 1}})
    assert poller.counts() == (0, 0, 0)


def test_a_partition_that_could_not_be_listed_at_first_has_its_baseline_later() -> None:
    poller = Poller()
    poller.tracker.begin_poll(["train"], time=poller.now, now=poller.now)
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
    poller.reference = VersionReference(10, "published")
    poller.poll({"train": {"old": 3, "new": 10, "ahead": 11}})
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
    poller.tracker.begin_poll(["train"], time=poller.now, now=poller.now)
    poller.poll({})
    poller.poll({"train": {"a": 1, "b": 1}})
    assert poller.counts() == (2, 0, 0)


def test_what_a_lost_controller_held_is_lost_and_not_departed() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 1, "b": 1}})
    poller.tracker.lose_all(poller.now)
    poller.poll({"train": {"c": 1}})
    assert poller.counts() == (1, 0, 2)


def test_partitions_past_the_limit_are_counted_under_other() -> None:
    poller = Poller(max_partitions=2)
    poller.poll({"pa": {}, "pb": {}, "pc": {}, "pd": {}})
    poller.poll({"pa": {"a": 1}, "pb": {}, "pc": {"b": 1}, "pd": {"c": 1, "d": 1}})
    assert [flow.partition for flow in poller.tracker.flows()] == ["other", "pa", "pb"]
    assert poller.counts("other") == (3, 0, 0)
    poller.poll({"pc": {}})
    assert poller.counts("other") == (3, 3, 0)


def test_a_partition_that_comes_back_past_the_limit_goes_on_under_its_own_label() -> None:
    poller = Poller(max_partitions=1)
    poller.poll({"pa": {}})
    poller.poll({"pb": {}})
    poller.poll({"pa": {"a": 1}})
    assert poller.counts("pa") == (1, 0, 0)
    poller.poll({"pa": {"a": 1}, "pc": {}})
    assert poller.tracker.label("pc") == "other"


def test_a_partition_keeps_its_label_when_a_place_becomes_free_and_the_next_one_takes_it() -> None:
    poller = Poller(max_partitions=1)
    poller.poll({"pa": {}, "pb": {"a": 1}})
    poller.poll({"pb": {"a": 1}})
    poller.now += COUNTER_LINGER_S
    poller.poll({"pb": {"a": 1}})
    assert poller.tracker.label("pb") == "other"
    poller.poll({"pb": {"a": 1, "b": 1}, "pc": {"c": 1}})
    assert [flow.partition for flow in poller.tracker.flows()] == ["other", "pc"]
    assert (poller.counts("other"), poller.counts("pc")) == ((1, 0, 0), (1, 0, 0))


def test_ten_thousand_short_partitions_leave_nothing_behind() -> None:
    poller = Poller(max_partitions=3)
    for number in range(2000):
        poller.poll({f"p{number:x}-{number * 7919 % 65537:x}": {"a": number}})
    assert len(poller.tracker.flows()) <= 4
    poller.now += COUNTER_LINGER_S
    poller.poll({})
    poller.now += COUNTER_LINGER_S
    poller.poll({})
    assert poller.tracker.flows() == ()


@pytest.mark.parametrize("jump_s", [86_400.0, -86_400.0])
def test_a_clock_that_jumps_makes_no_group_older_or_younger(jump_s: float) -> None:
    tracker = FlowTracker(ByName({}), 100)

    def poll(time: float, now: float, *names: str) -> None:
        tracker.begin_poll(["train"], time=time, now=now)
        tracker.observe("train", [DataPlaneGroupMeta("train", name, [name]) for name in names], time=time)

    poll(100_000.0, 1.0, "a", "b")
    poll(100_010.0 + jump_s, 11.0, "b")
    assert tracker.first_seen("train", "b") + tracker.epoch == 100_000.0 + jump_s
    assert tracker.flows()[0].residence.sum == pytest.approx(10.0)


def test_what_several_controllers_held_adds_up() -> None:
    poller = Poller()
    for name in "ab":
        poller.poll({"train": {name: 1, name + name: 1}})
        poller.tracker.lose_all(poller.now)
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


def test_a_group_is_completed_once_when_it_first_becomes_ready() -> None:
    poller = Poller()
    poller.poll({"train": []})
    for state in ("uncommitted", "incomplete", "ready", "uncommitted", "ready", "taken"):
        poller.poll({"train": [group("a", state)]})
    poller.poll({"train": [group("b"), group("c", "taken"), group("d", "failed")]})
    flow = poller.flow()
    assert (flow.arrived, flow.completed) == (4, 3)


def test_a_group_of_the_baseline_that_becomes_ready_later_is_completed() -> None:
    poller = Poller()
    poller.poll({"train": [group("a"), group("b", "uncommitted")]})
    poller.poll({"train": [group("a"), group("b")]})
    assert (poller.flow().arrived, poller.flow().completed) == (0, 1)


def test_departures_are_told_by_the_last_state() -> None:
    poller = Poller()
    states = ("ready", "incomplete", "uncommitted", "failed", "taken")
    poller.poll({"train": [group(state, state) for state in states] + [group("again", "uncommitted")]})
    poller.poll({"train": []})
    assert poller.flow().departed_by_state == {**dict.fromkeys(states, 1), "uncommitted": 2}
    assert poller.flow().departed == 6


def test_roles_are_counted_from_zero_and_outlive_their_partitions() -> None:
    poller = Poller(odd=Partition(role="eval"))
    assert [flow.role for flow in poller.tracker.by_role()] == ["train", "eval", "staging"]
    assert all(flow.arrived == flow.completed == sum(flow.departed.values()) == 0 for flow in poller.tracker.by_role())
    poller.poll({})
    poller.poll({"train": [group("a")], "val": [group("b")], "rollout_staging": [group("c")], "odd": [group("d")]})
    poller.poll({})
    poller.now += COUNTER_LINGER_S
    poller.poll({})
    poller.poll({})
    assert [(flow.role, flow.arrived, flow.departed["ready"]) for flow in poller.tracker.by_role()] == [
        ("train", 1, 1),
        ("eval", 2, 2),
        ("staging", 1, 1),
    ]


def test_bare_rows_neither_arrive_nor_depart() -> None:
    poller = Poller()
    bare = DataPlaneGroupMeta("p", "k", ["k"], bare=True)
    poller.poll({"train": []})
    poller.poll({"train": [bare]})
    poller.poll({"train": [group("g", keys=["k"])]})
    assert poller.counts() == (1, 0, 0)


@pytest.mark.parametrize("grown", [False, True])
def test_keys_that_move_to_another_group_have_not_departed(grown: bool) -> None:
    poller = Poller()
    poller.poll({"train": []})
    there = [group("g", keys=["k0"])] if grown else []
    poller.poll({"train": [*there, group("k1", "uncommitted", keys=["k1"]), group("k2", "uncommitted", keys=["k2"])]})
    poller.poll({"train": [group("g", keys=["k0", "k1", "k2"])]})
    flow = poller.flow()
    assert (flow.arrived, flow.completed, flow.departed) == (2 + grown, 1, 0)


def test_what_a_checkpoint_replaces_is_lost_and_what_it_brings_is_restored() -> None:
    poller = Poller()
    poller.poll({"train": [group("a"), group("stays")], "old": [group("x")]}, sender="one")
    poller.poll({"train": [group("b"), group("stays")], "new": [group("y")]}, sender="two")
    assert (poller.counts(), poller.counts("old"), poller.counts("new")) == ((0, 0, 1), (0, 0, 1), (0, 0, 0))
    assert (poller.flow().restored, poller.flow("new").restored) == (1, 1)
    assert poller.flow().completed == 0
    poller.poll({"train": [group("c")], "new": [group("y")], "newer": [group("z")]}, sender="two")
    assert (poller.counts(), poller.counts("newer")) == ((1, 2, 1), (1, 0, 0))
    assert poller.flow("newer").restored == 0


def test_a_partition_that_is_listed_late_after_a_checkpoint_is_still_restored() -> None:
    poller = Poller()
    poller.poll({"train": [group("a")]}, sender="one")
    poller.now += 1
    poller.tracker.begin_poll(["train", "late"], time=poller.now, now=poller.now, sender_id="two")
    poller.poll({"train": [group("b")], "late": [group("c")]}, sender="two")
    assert (poller.counts(), poller.flow().restored, poller.flow("late").restored) == ((0, 0, 1), 1, 1)


def test_groups_that_stay_taken_while_the_version_moves_on_are_orphaned() -> None:
    poller = Poller()

    def orphaned(version: int, *names: str) -> int | None:
        poller.poll({"train": [group(name, "taken") for name in names]})
        return poller.tracker.count_orphaned("train", VersionReference(version, "published"))

    assert [orphaned(5, "a"), orphaned(5, "a"), orphaned(5, "a")] == [0, 0, 0]
    assert orphaned(6, "a", "b") == 0  # may be about to be removed
    assert orphaned(6, "a", "b") == 1
    assert orphaned(7, "b") == 0
    assert orphaned(3, "b") == 0
    assert orphaned(3, "b") == 0
    assert poller.tracker.count_orphaned("train", None) is None
    assert poller.tracker.count_orphaned("other", None) == 0


def test_names_that_differ_in_one_number_share_counters_once_two_were_seen() -> None:
    poller = Poller()
    poller.poll({})
    poller.poll({"train_1": [group("a")]})
    assert [flow.partition for flow in poller.tracker.flows()] == ["train_1"]
    poller.poll({"train_2": [group("b")]})
    assert [flow.partition for flow in poller.tracker.flows()] == ["train_*"]
    poller.poll({"train_3": [group("c")]})
    assert poller.counts("train_*") == (3, 2, 0)
    assert poller.tracker.total().arrived == 3


def test_a_long_name_is_cut_and_keeps_its_identity() -> None:
    poller = Poller()
    long = ["x" * 40_000 + end for end in "ab"]
    poller.poll({name: [group("a")] for name in long})
    labels = [flow.partition for flow in poller.tracker.flows()]
    assert len(set(labels)) == 2
    assert all(len(label) == 128 for label in labels)


def test_the_name_of_a_partition_is_read_once_for_its_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every snapshot asks for the role, and reading 100 names of 40 kB took 0.15 s."""
    read: list[str] = []

    def role_of(partition: str) -> Role:
        read.append(partition)
        return "eval"

    monkeypatch.setattr("exporter.model.flow.role_of", role_of)
    poller = Poller()
    for _ in range(3):
        poller.poll({"val": [group("a")]})
        assert poller.tracker.role("val") == "eval"
    assert read == ["val"]


def test_counters_begin_at_the_poll_before_the_first_sight_of_their_partition() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 1}})
    assert poller.flow().since is None  # 0 since the exporter started
    poller.poll({"train": {"a": 1}, "val": {"b": 1}})
    assert poller.flow("val").since == poller.now - 1
    poller.poll({"train": {"a": 1}, "val": {}})
    assert poller.flow("val").since == poller.now - 2


def test_counters_of_a_partition_that_comes_back_late_begin_anew_after_the_old_ones_ended() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 1}, "val": {}})
    poller.poll({"val": {}})
    poller.now += COUNTER_LINGER_S
    poller.poll({"val": {}})
    ended = poller.now
    poller.poll({"train": {"c": 1}, "val": {}})
    assert poller.counts() == (1, 0, 0)
    assert poller.flow().since == ended


def test_counters_do_not_end_in_the_round_that_sees_their_partition_again() -> None:
    poller = Poller()
    poller.poll({"train": {"a": 1}})
    poller.poll({})
    poller.now += COUNTER_LINGER_S
    poller.poll({"train": {"b": 1}})
    assert poller.counts() == (1, 1, 0)
    assert poller.flow().since is None


def test_the_counters_of_a_family_were_0_when_those_of_its_first_member_were() -> None:
    poller = Poller()
    poller.poll({})
    poller.poll({"train_1": {"a": 1}})
    since = poller.flow("train_1").since
    poller.poll({"train_2": {"b": 1}})
    assert poller.flow("train_*").since == since == poller.now - 2
