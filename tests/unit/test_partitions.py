"""Partitions over polls: readability, sums, loaded checkpoints, what the trainer publishes."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dataplane.groups import DataPlaneGroupMeta
from dataplane.partitions import ByName
from exporter.config import Partition
from exporter.model.partitions import Partitions
from exporter.model.results import Failed, MetadataPoll, PartitionFailure, PartitionListing
from tests.support.clock import StoppedClock

LISTED_AT = StoppedClock().time()


class Fixture:
    def __init__(self, **settings: Partition) -> None:
        self.clock = StoppedClock()
        self.partitions = Partitions(self.clock, settings=ByName(settings), max_partitions=100, max_versions=16)

    def poll(
        self,
        groups: Mapping[str, Mapping[str, int]],
        *,
        failing: Mapping[str, PartitionFailure] | None = None,
        held: tuple[str, ...] = (),
        unasked: tuple[str, ...] = (),
        sender: str = "one",
        per_step: int | None = None,
        published: int | None = None,
        stated: Mapping[str, int] | None = None,
    ) -> None:
        listings = tuple(
            PartitionListing(
                partition,
                [
                    DataPlaneGroupMeta(partition, name, [name], version, committed=True)
                    for name, version in rows.items()
                ],
                0.01,
                "nemo-rl",
                len(rows),
                (stated or {}).get(partition),
                sender,
            )
            for partition, rows in groups.items()
        )
        names = (*groups, *(failing or {}), *held, *unasked)
        failures = tuple((failing or {}).values())
        poll = MetadataPoll(names, listings, failures, published, 0.01, sender, sender, per_step, held)
        self.partitions.take_in(poll, keep_s=30.0)

    def status(self, partition: str) -> tuple[bool, str | None, float | None]:
        found = next(status for status in self.partitions.statuses() if status.partition == partition)
        return found.readable, found.reason, found.listed_at


def failure(partition: str, error_type: str = "DataPlaneTimeout", limit: str | None = None) -> PartitionFailure:
    return PartitionFailure(partition, error_type, "why", 0.1, limit)


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        (failure("train"), "timeout"),
        (failure("train", "DataPlaneReadError", "rows"), "refused"),
        (failure("train", "DataPlaneReadError"), "error"),
    ],
)
def test_a_partition_that_cannot_be_listed_says_why_and_keeps_the_time_of_its_last_listing(
    failed: PartitionFailure, reason: str
) -> None:
    on = Fixture()
    on.poll({"train": {"a": 1}})
    at = on.clock.time()
    assert on.status("train") == (True, None, at)
    on.clock.advance(10.0)
    on.poll({}, failing={"train": failed})
    assert on.status("train") == (False, reason, at)
    assert on.partitions.unread() == ("train",)
    on.poll({}, held=("train",))
    assert on.status("train") == (False, "held", at)
    assert on.partitions.unread() == ("train",)
    on.poll({"train": {"a": 1}})
    assert on.status("train") == (True, None, on.clock.time())
    on.poll({})
    assert on.partitions.statuses() == ()


def test_a_partition_that_is_listed_rarely_can_be_read_all_the_time() -> None:
    on = Fixture()
    on.poll({"train": {"a": 1}})
    on.poll({}, held=("train",))
    assert on.status("train")[:2] == (True, None)
    assert on.partitions.unread() == ()


def test_a_partition_that_was_never_listed_is_pending() -> None:
    on = Fixture()
    on.poll({}, unasked=("train",))
    assert on.status("train") == (False, "pending", None)


def test_no_partition_can_be_read_when_not_even_their_names_can() -> None:
    on = Fixture()
    on.poll({"train": {"a": 1}, "val": {}})
    on.partitions.failed(Failed("list_partitions", "DataPlaneUnavailable", "refused", 0.1))
    assert [(one.partition, one.reason) for one in on.partitions.statuses()] == [
        ("train", "unavailable"),
        ("val", "unavailable"),
    ]


def test_partitions_under_one_label_can_be_read_if_all_of_them_can() -> None:
    on = Fixture()
    on.poll({"s1": {"a": 1}})
    first = on.clock.time()
    on.clock.advance(5.0)
    on.poll({"s2": {"b": 1}}, held=("s1",))
    assert on.status("s*") == (True, None, first)
    on.poll({"s2": {"b": 1}}, failing={"s1": failure("s1")})
    assert on.status("s*")[:2] == (False, "timeout")


def test_what_trains_is_summed_only_while_all_of_it_is_known() -> None:
    on = Fixture(extra=Partition(role="eval"))
    assert on.partitions.trained(None) is None
    on.poll({"train": {"a": 1}, "more": {"b": 1}, "val": {"c": 1}, "extra": {"d": 1}})
    trained = on.partitions.trained(LISTED_AT)
    assert trained is not None
    assert trained.depth == 2
    on.poll({"more": {}, "val": {}}, failing={"train": failure("train")})
    assert on.partitions.trained(LISTED_AT) is None
    on.poll({"more": {}, "train": {}}, failing={"val": failure("val")})
    assert on.partitions.trained(LISTED_AT) is not None


def test_an_empty_list_of_partitions_trains_nothing() -> None:
    on = Fixture()
    on.poll({})
    trained = on.partitions.trained(LISTED_AT)
    assert trained is not None
    assert trained.depth == 0


def test_a_partition_without_rows_is_not_listable_while_samples_without_keys_exist() -> None:
    on = Fixture()
    on.poll({"raw": {}, "train": {"a": 1}})
    on.partitions.note_samples_without_keys(10, {})
    assert [state.partition for state in on.partitions.states()] == ["train"]
    assert on.status("raw")[:2] == (False, "not_listable")
    assert on.partitions.trained(LISTED_AT) is None
    on.partitions.note_samples_without_keys(0, {})
    assert on.status("raw")[:2] == (True, None)
    on.poll({"raw": {"b": 1}, "train": {}})
    on.poll({"raw": {}, "train": {}})
    on.partitions.note_samples_without_keys(10, {})  # both have listed rows: what is unlisted is a leak
    assert on.status("raw")[:2] == on.status("train")[:2] == (True, None)


def test_where_the_number_of_samples_is_known_it_decides() -> None:
    on = Fixture()
    on.poll({"raw": {}, "empty": {}, "unknown": {}})
    on.partitions.note_samples_without_keys(10, {"raw": 10, "empty": 0})
    assert [on.status(name)[1] for name in ("raw", "empty", "unknown")] == ["not_listable", None, "not_listable"]
    on.partitions.note_samples_without_keys(None, {"raw": 10})
    assert [on.status(name)[1] for name in ("raw", "empty", "unknown")] == ["not_listable", None, None]


def test_all_rows_are_known_only_while_every_partition_is() -> None:
    on = Fixture()
    on.poll({"train": {"a": 1, "b": 1}, "val": {"c": 1}})
    assert on.partitions.rows() == 3
    on.poll({"train": {"a": 1}}, unasked=("new",))
    assert on.partitions.rows() is None


def test_a_loaded_checkpoint_restores_and_its_version_is_the_reference() -> None:
    on = Fixture()
    on.poll({"train": {"a": 9}})
    on.poll({"train": {"b": 6}}, sender="two")
    (flow,) = on.partitions.flows()
    assert (flow.lost, flow.restored, flow.departed, flow.arrived) == (1, 1, 0, 0)
    assert on.partitions.versions.reference == (6, "newest_seen")
    assert on.partitions.versions.regressions == 0


def test_a_partition_that_is_left_behind_lags_behind_the_others() -> None:
    on = Fixture()
    on.poll({"old": {"a": 1}, "new": {"b": 50}})
    lags = {state.partition: state.staleness_max for state in on.partitions.states()}
    assert lags == {"old": 49, "new": 0}


def test_evaluation_does_not_make_the_reference() -> None:
    on = Fixture()
    on.poll({"val": {"a": 50}, "train": {"b": 3}})
    assert on.partitions.versions.reference == (3, "newest_seen")
    ahead = {state.partition: state.staleness["ahead"] for state in on.partitions.states()}
    assert ahead == {"val": 1, "train": 0}


def test_rows_that_state_the_trainers_version_are_the_reference() -> None:
    on = Fixture()
    on.poll({"train": {"a": 10}}, stated={"train": 49})
    assert on.partitions.versions.reference == (49, "rows")


def test_groups_per_step_are_configured_or_published() -> None:
    on = Fixture(fixed=Partition(groups_per_step=4))
    on.poll({"fixed": {}, "train": {}, "val": {}}, per_step=16)
    assert {state.partition: state.groups_per_step for state in on.partitions.states()} == {
        "fixed": 4,
        "train": 16,
        "val": None,
    }


def test_a_new_controller_forgets_names_and_versions() -> None:
    on = Fixture()
    on.poll({"train": {"a": 9}})
    on.partitions.lose_all()
    assert on.partitions.statuses() == ()
    assert on.partitions.versions.reference is None


def test_states_name_no_group_where_groups_are_private() -> None:
    groups = [DataPlaneGroupMeta("train", "private", ["private-0"])]
    seen = {}
    for named in (True, False):
        fixture = Fixture()
        fixture.partitions = Partitions(
            fixture.clock, settings=ByName({}), max_partitions=9, max_versions=9, names_groups=named
        )
        poll = MetadataPoll(("train",), (PartitionListing("train", groups, 0.01),), (), None, 0.01, None)
        fixture.partitions.take_in(poll, keep_s=30.0)
        seen[named] = fixture.partitions.states()
    assert "private" in str(seen[True])
    assert "private" not in str(seen[False])
    assert seen[False][0].oldest[0].created_at == seen[True][0].oldest[0].created_at
