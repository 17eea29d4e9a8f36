"""The writers of keys and tags: their rows read back as the intended group states."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from dataplane import conventions
from dataplane.groups import DataPlaneGroupMeta, group_rows
from exporter.demo.writers import FAILURE, WRITERS, NemoRL, Prompt, Recovery, Step, TagWriter, Verl, draw_prompt

PROMPT = Prompt("8a5c2f6e-0000-4000-8000-000000000000", 4, 7, 8, 12, (5, 6, 7, 8))


def plan(writer: TagWriter, wanted: Any, prompt: Prompt = PROMPT) -> list[Step]:
    """Return the first plan, over seeds, that meets the condition."""
    return next(steps for seed in range(1000) if wanted(steps := writer.plan(prompt, random.Random(seed))))


def states(writer: TagWriter, steps: list[Step], prompt: Prompt = PROMPT) -> list[DataPlaneGroupMeta]:
    """Return the group as a reader sees it after each step."""
    rows: dict[str, dict[str, Any]] = {}
    seen = []
    for step in steps:
        tags = writer.tags(prompt, step, now=1000.0 + step.at, weight_version=9, row_bytes=100)
        assert len(tags) == len(step.keys)
        for key, tag in zip(step.keys, tags, strict=True):
            rows.setdefault(key, {}).update(tag)
        (group,) = group_rows(writer.partition, rows)
        seen.append(group)
    return seen


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_every_plan_is_in_order_and_holds_every_completion_once(writer: TagWriter) -> None:
    for seed in range(200):
        rng = random.Random(seed)
        prompt = draw_prompt(rng, 3, 64)
        steps = writer.plan(prompt, rng)
        assert [step.at for step in steps] == sorted(step.at for step in steps)
        assert all(0 <= step.at <= 1 for step in steps)
        rows = [row for step in steps for row in step.rows]
        if steps[-1].status != FAILURE:
            assert sorted(rows) == list(range(prompt.size))
        keys = [key for step in steps if step.rows for key in step.keys]
        assert len(set(keys)) == len(keys) == len(rows)
        assert 4 <= prompt.size <= 8


def test_the_same_seed_gives_the_same_prompt() -> None:
    assert draw_prompt(random.Random("a"), 1, 64) == draw_prompt(random.Random("a"), 1, 64)
    assert draw_prompt(random.Random("a"), 1, 64) != draw_prompt(random.Random("b"), 1, 64)


def test_recovery_in_two_puts_is_incomplete_in_between() -> None:
    writer = Recovery()
    first, second = states(writer, plan(writer, lambda steps: len(steps) == 2))
    assert (first.state, second.state) == ("incomplete", "ready")
    assert (second.group_id, second.weight_version, second.expected_num_keys) == (PROMPT.uid, 7, 4)
    assert (second.size_bytes, second.created_at) == (400, 1000.5)
    assert writer.samples(second) == second.keys


def test_nemo_rl_writes_one_put_with_nothing_but_the_version() -> None:
    writer = NemoRL()
    steps = writer.plan(PROMPT, random.Random(0))
    assert [step.keys for step in steps] == [tuple(f"{PROMPT.uid}_g{row}" for row in range(4))]
    tags = writer.tags(PROMPT, steps[0], now=1.0, weight_version=9, row_bytes=100)
    assert tags == [{"weight_version": 7}] * 4
    (group,) = states(writer, steps)
    assert (writer.partition, group.state, group.group_id, group.weight_version) == (
        "rollout_data",
        "ready",
        PROMPT.uid,
        7,
    )


def test_verl_goes_from_pending_over_running_to_finished() -> None:
    writer = Verl()
    steps = plan(writer, lambda steps: steps[-1].status == "finished")
    assert [step.status for step in steps if not step.rows] == ["pending", "running", "finished"]
    seen = states(writer, steps)
    assert [group.state for group in seen] == ["uncommitted"] * (len(steps) - 1) + ["ready"]
    assert (seen[-1].group_id, seen[-1].weight_version) == (PROMPT.uid, 7)
    assert all(re.fullmatch(re.escape(PROMPT.uid) + r"_\d_0", key) for key in writer.samples(seen[-1]))
    assert len(writer.samples(seen[-1])) == 4
    trajectory = next(step for step in steps if step.rows)
    (tag,) = writer.tags(PROMPT, trajectory, now=1.0, weight_version=9, row_bytes=100)
    assert tag == {
        "status": "success",
        "prompt_len": 12,
        "response_len": PROMPT.response_lens[trajectory.rows[0]],
        "seq_len": 12 + PROMPT.response_lens[trajectory.rows[0]],
        "global_steps": 8,
        "min_global_steps": 7,
        "max_global_steps": 9,
    }
    (prompt_tag,) = writer.tags(PROMPT, steps[0], now=1.0, weight_version=9, row_bytes=100)
    assert prompt_tag == {"is_prompt": True, "status": "pending", "global_steps": 8}


def test_a_verl_prompt_may_fail() -> None:
    writer = Verl()
    steps = plan(writer, lambda steps: steps[-1].status == FAILURE)
    assert len(steps) == 2 + 3 + 1, "three of four sessions end well"
    assert [group.state for group in states(writer, steps)] == ["uncommitted"] * 5 + ["failed"]


def test_every_convention_that_ships_has_a_writer() -> None:
    assert sorted(WRITERS) == sorted(set(conventions.names()) - {conventions.AUTO})


@pytest.mark.parametrize("writer", WRITERS.values(), ids=WRITERS)
def test_a_rollout_that_fails_never_completes_a_group(writer: TagWriter) -> None:
    for seed in range(20):
        steps = writer.plan(PROMPT, random.Random(seed), fails=True)
        seen = states(writer, [step for step in steps if not step.evicts])
        assert {group.state for group in seen} <= {"uncommitted", "failed"}
        assert steps[-1].status == FAILURE
        assert steps[-1].evicts == (not isinstance(writer, Verl)), "verl's trainer evicts"


def test_padding_belongs_to_no_group() -> None:
    writer = Verl()
    group = states(writer, plan(writer, lambda steps: steps[-1].status == "finished"))[-1]
    rows = writer.padding(group, 3, random.Random(0))
    assert all(re.fullmatch(rf"pad[0-9a-f]{{32}}_{index}_0", key) for index, key in enumerate(rows))
    found = group_rows(writer.partition, rows, convention="verl")
    assert (list(found), found.rows) == ([], 3)
    assert [each.padding(group, 3, random.Random(0)) for each in (Recovery(), NemoRL())] == [{}, {}]
