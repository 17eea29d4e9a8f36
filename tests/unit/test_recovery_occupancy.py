"""The permits of a controller with backpressure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.recovery import Occupancy

CAPACITY = 4


class Job:
    """A controller, its rollouts and a data plane in memory; ``flying`` and the data plane are what is true."""

    def __init__(self) -> None:
        self.client = NoOpDataPlaneClient()
        self.occupancy = Occupancy(CAPACITY)
        self.flying: set[str] = set()

    @property
    def ready(self) -> set[str]:
        return {group.group_id for group in self.client.list_metadata("train") if group.state == "ready"}

    def write(self, name: str, *, committed: bool) -> None:
        self.client.put_samples([name], "train", tags=[{"group_id": name, "committed": committed}])

    def dispatch(self, name: str) -> None:
        if name in self.flying | self.ready:
            with pytest.raises(ValueError, match=name):
                self.occupancy.dispatch(name)
            return
        room = len(self.flying) + len(self.ready) < CAPACITY
        assert self.occupancy.dispatch(name) is room
        if room:
            self.flying.add(name)

    def begin_to_write(self, name: str) -> None:
        if name in self.flying:
            self.write(name, committed=False)

    def arrive(self, name: str) -> None:
        if name in self.flying:
            self.flying.remove(name)
            self.write(name, committed=True)
            self.occupancy.arrived(name)

    def fail(self, name: str) -> None:
        if name in self.flying:
            self.client.evict([name], "train")
            self.flying.remove(name)
        self.occupancy.failed(name)  # of a group that is ready or unknown: has no effect

    def train(self, name: str) -> None:
        if name in self.ready:
            self.client.pop([name], "train")
            self.occupancy.removed([name])

    def evict(self, name: str) -> None:
        """Also of an unfinished group, and of one that does not exist."""
        self.client.evict([name], "train")
        self.flying.discard(name)
        self.occupancy.removed([name, name])

    def hear_twice(self, name: str) -> None:
        if name in self.ready:
            self.occupancy.arrived(name)

    def arrive_unheard(self, name: str) -> None:
        """The put's answer is lost with its client; the recovery finds the group."""
        if name in self.flying:
            self.write(name, committed=True)
            self.flying.remove(name)
            self.rebuild(name)

    def fail_unheard(self, name: str) -> None:
        """The rollout died with the data plane, and the controller says which ones live on."""
        if name in self.flying:
            self.flying.remove(name)
            self.occupancy.rebuild(self.client.list_metadata("train"), self.flying)

    def rebuild(self, name: str) -> None:
        self.occupancy.rebuild(self.client.list_metadata("train"))

    def lose_everything(self, name: str) -> None:
        self.client.close()
        self.client = NoOpDataPlaneClient()
        self.rebuild(name)

    def restart_the_controller(self, name: str) -> None:
        self.occupancy = Occupancy(CAPACITY)
        self.occupancy.rebuild(self.client.list_metadata("train"), iter(self.flying))


ACTIONS = (
    Job.dispatch,
    Job.begin_to_write,
    Job.arrive,
    Job.fail,
    Job.train,
    Job.evict,
    Job.hear_twice,
    Job.arrive_unheard,
    Job.fail_unheard,
    Job.rebuild,
    Job.lose_everything,
    Job.restart_the_controller,
)
# Dispatches are half of all actions: otherwise there would seldom be a full queue.
actions = st.tuples(st.just(Job.dispatch) | st.sampled_from(ACTIONS), st.sampled_from("abcdefgh"))


@given(st.lists(actions, max_size=60))
def test_any_interleaving_counts_depth_plus_in_flight_and_leaks_no_permit(
    steps: list[tuple[object, str]],
) -> None:
    job = Job()
    for action, name in steps:
        action(job, name)  # type: ignore[operator]
        occupancy = job.occupancy
        assert occupancy.in_flight == job.flying
        assert occupancy.queued == job.ready
        assert occupancy.in_use == job.client.depth("train") + len(job.flying)
        assert 0 <= occupancy.in_use <= CAPACITY
        assert occupancy.free == CAPACITY - occupancy.in_use
    for name in sorted(job.flying):
        job.fail(name)
    for name in sorted(job.ready):
        job.train(name)
    assert job.occupancy.in_use == 0
    assert [job.occupancy.dispatch(str(number)) for number in range(CAPACITY + 1)] == [True] * CAPACITY + [False]


def test_a_listing_that_says_failed_or_taken_ends_the_flight() -> None:
    client = NoOpDataPlaneClient()
    occupancy = Occupancy(9)
    for name in ("done", "given-up", "in-training", "half", "unlisted"):
        occupancy.dispatch(name)
    client.put_samples(
        ["done", "done_0_0", "given-up", "in-training_0_0", "half", "half_0_0"],
        "train",
        tags=[
            {"is_prompt": True, "status": "finished", "global_steps": 1},
            {"status": "success", "global_steps": 1, "min_global_steps": 1, "max_global_steps": 1},
            {"is_prompt": True, "status": "failure", "global_steps": 1},
            {"status": "success", "global_steps": 1, "min_global_steps": 1, "max_global_steps": 1},
            {"is_prompt": True, "status": "running", "global_steps": 1},
            {"status": "success", "global_steps": 1, "min_global_steps": 1, "max_global_steps": 1},
        ],
    )
    groups = client.list_metadata("train")
    assert {group.group_id: group.state for group in groups} == {
        "done": "ready", "given-up": "failed", "in-training": "taken", "half": "uncommitted",
    }  # fmt: skip
    occupancy.rebuild(groups)
    assert occupancy.in_flight == {"half", "unlisted"}
    assert occupancy.queued == {"done"}


def test_groups_of_others_count_and_close_the_dispatch() -> None:
    client = NoOpDataPlaneClient()
    client.put_samples(["a", "b", "c"], "train", tags=[{"group_id": name, "committed": True} for name in "abc"])
    occupancy = Occupancy(2)
    occupancy.rebuild(client.list_metadata("train"))
    assert (occupancy.in_use, occupancy.free, occupancy.dispatch("d")) == (3, 0, False)
    occupancy.removed(["a"])
    assert (occupancy.free, occupancy.dispatch("d")) == (0, False)
    occupancy.removed(["b"])
    assert occupancy.dispatch("d")
    occupancy.arrived("late")
    assert occupancy.in_use == 3


@pytest.mark.parametrize("capacity", [0, -1])
def test_there_is_at_least_one_permit(capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        Occupancy(capacity)
