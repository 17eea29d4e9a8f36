"""Counters never exceed what happened: a simulated queue with slow puts, seen through listings at any moments.

A put lists its keys first and their tags in a later step, as TransferQueue does. What the queue does is known, so that
the exporter's counters can be compared with it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.conventions import Memory
from dataplane.groups import group_rows
from dataplane.partitions import ByName
from exporter.model.flow import FlowTracker

STEPS = ("begin", "tag", "finish", "take", "remove", "list")


class Queue:
    """One partition of a queue, and what has really happened in it.

    A group goes through: keys listed, tags written, finished, taken (verl only), removed.
    """

    def __init__(self, convention: str) -> None:
        self.convention = convention
        self.rows: dict[str, dict[str, Any]] = {}
        self.stage: dict[str, str] = {}
        self.begun = self.completed = self.removed = 0

    def keys(self, group: str) -> list[str]:
        if self.convention == "verl":
            return [f"{group}_{session}_0" for session in range(2)]
        return [f"{group}{'-' if self.convention == 'recovery' else '_g'}{index}" for index in range(2)]

    def do(self, step: str) -> None:
        first = {"tag": "listed", "finish": "tagged", "take": "finished", "remove": "taken"}.get(step)
        group = next((name for name, stage in self.stage.items() if stage == first), None)
        if step == "begin":
            group = f"u{self.begun}"
            self.begun += 1
            self.stage[group] = "listed"
            self.rows.update({key: {} for key in ([group] if self.convention == "verl" else self.keys(group))})
        elif group is not None:
            getattr(self, f"_{step}")(group)

    def _tag(self, group: str) -> None:
        self.stage[group] = "tagged"
        if self.convention == "verl":
            self.rows[group] = {"is_prompt": True, "status": "running", "global_steps": 3}
            self.rows.update({key: {} for key in self.keys(group)})
            return
        tag: dict[str, Any] = {"weight_version": 2}
        if self.convention != "nemo-rl":
            tag |= {"group_id": f"id-{group}"}
        if self.convention == "recovery":
            tag |= {"committed": False}
        self.rows.update({key: dict(tag) for key in self.keys(group)})

    def _finish(self, group: str) -> None:
        self.stage[group] = "finished"
        self.completed += 1
        if self.convention == "verl":
            tag = {"status": "success", "min_global_steps": 2, "max_global_steps": 2}
            self.rows.update({key: dict(tag) for key in self.keys(group)})
            self.rows[group] |= {"status": "finished"}
        elif self.convention == "recovery":
            for key in self.keys(group):
                self.rows[key] |= {"committed": True}

    def _take(self, group: str) -> None:
        self.stage[group] = "taken"
        if self.convention == "verl":
            del self.rows[group]

    def _remove(self, group: str) -> None:
        del self.stage[group]
        self.removed += 1
        for key in self.keys(group):
            del self.rows[key]


@pytest.mark.parametrize("convention", ["recovery", "nemo-rl", "nemo-rl with ids", "verl"])
@given(steps=st.lists(st.sampled_from(STEPS), max_size=60))
def test_counters_are_lower_bounds(convention: str, steps: list[str]) -> None:
    queue, tracker, memory = Queue(convention), FlowTracker(ByName({}), 100), Memory()
    now = 0.0
    for step in ("list", *steps, "list"):
        if step != "list":
            queue.do(step)
            continue
        now += 1.0
        tracker.begin_poll(["train"], time=now, now=now)
        tracker.observe("train", group_rows("train", queue.rows, memory=memory), time=now)
        train = next(flow for flow in tracker.by_role() if flow.role == "train")
        assert train.arrived <= queue.begun
        assert sum(train.departed.values()) <= queue.removed
        assert train.lost == train.restored == 0
        # NeMo RL's rows have no mark that follows the tags, so a tagged group is complete.
        finished = queue.completed + Counter(queue.stage.values())["tagged"] * (convention.startswith("nemo-rl"))
        untagged = Counter(queue.stage.values())["listed"] if convention.startswith("nemo-rl") else 0
        assert train.completed <= finished + untagged


@pytest.mark.parametrize("convention", ["recovery", "nemo-rl", "nemo-rl with ids", "verl"])
def test_groups_that_live_long_enough_are_all_counted(convention: str) -> None:
    queue, tracker, memory = Queue(convention), FlowTracker(ByName({}), 100), Memory()
    for now, step in enumerate(
        (None, *(("begin",) * 3), *(("tag", "finish") * 3), *(("take",) * 3), *(("remove",) * 3))
    ):
        if step is not None:
            queue.do(step)
        tracker.begin_poll(["train"], time=float(now), now=float(now))
        tracker.observe("train", group_rows("train", queue.rows, memory=memory), time=float(now))
    train = next(flow for flow in tracker.by_role() if flow.role == "train")
    assert (train.arrived, train.completed, sum(train.departed.values())) == (3, 3, 3)
    assert train.departed["taken" if convention == "verl" else "ready"] == 3
