"""verl's real ``main_ppo`` on CPUs, the exporter beside it: at every probe each figure is that of verl's own state."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.cluster import TQCluster
from tests.support.otlp_receiver import Received, http_receiver
from tests.verl import job
from tests.verl.figures import expected, reported

PAGE: Final = (job.ROOT / "examples" / "verl" / "README.md").read_text()
INSTRUMENT: Final = (job.ROOT / "docs" / "instrument.md").read_text()


@dataclass(frozen=True)
class Mode:
    """One of verl's trainers.

    Attributes:
        name: Its name.
        steps: Number of training steps.
        probes: How many probes its run has.
        agents: The agent loop of some prompts, by number; the others have verl's own.
        overrides: Of verl's configuration.
        exporter: The exporter's configuration file.
        takes_failed: Whether it trains on groups of which a session failed.
        states: The states of groups that its probes find.
        reference: Where the exporter has the trainer's version from, once the training has begun.
    """

    name: str
    steps: int
    probes: int
    agents: dict[int, str]
    states: set[str]
    overrides: tuple[str, ...] = ()
    exporter: str = ""
    takes_failed: bool = False
    reference: str = "rows"


# The first step's batch is 4 to 7: before it, 0 to 3 warm the queue up, and after it failed prompts are replaced.
_ASYNC: Final = {3: "two_outputs", 4: "failing", 5: "one_fails", 6: "stuck", 9: "two_outputs", 11: "empty"}
SYNC: Final = Mode(
    "sync",
    steps=4,
    probes=13,
    agents={1: "two_outputs", 5: "one_fails", 8: "failing", 14: "empty"},
    states={"uncommitted", "taken", "failed"},
    exporter="partitions:\n  train:\n    take_failed: true\n",
    takes_failed=True,
)
COLOCATED: Final = Mode(
    "colocate_async",
    steps=4,
    probes=13,
    agents=_ASYNC,
    states={"uncommitted", "ready", "taken", "failed"},
    overrides=("trainer.save_freq=4",),
)
SEPARATE: Final = Mode(
    "separate_async",
    steps=3,
    probes=16,
    agents=_ASYNC,
    states={"uncommitted", "ready", "taken", "failed"},
    overrides=(
        "trainer.v1.separate_async.parameter_sync_step=2",
        "actor_rollout_ref.actor.ppo_mini_batch_size=2",
        "actor_rollout_ref.rollout.nnodes=1",
        "actor_rollout_ref.rollout.n_gpus_per_node=1",
        "actor_rollout_ref.rollout.checkpoint_engine.backend=nccl",
    ),
    reference="published",
)


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TQCluster]:
    with job.cluster(tmp_path_factory.mktemp("ray")) as cluster:
        yield cluster


@pytest.fixture
def receiver() -> Iterator[Received]:
    with http_receiver() as received:
        yield received


def _run(ray: TQCluster, folder: Path, mode: Mode, *overrides: str, **variables: str) -> list[dict[str, Any]]:
    config = folder / "exporter.yaml"
    config.write_text(mode.exporter)
    return job.run(
        ray,
        folder,
        mode.name,
        mode.steps,
        lambda prompt: mode.agents.get(prompt, "single_turn_agent"),
        overrides=(*mode.overrides, *overrides),
        variables=variables,
        exporter=("--config", str(config)),
    )


def _check(mode: Mode, records: list[dict[str, Any]]) -> None:
    assert len(records) == mode.probes
    states: set[str] = set()
    padded = False
    for record in records:
        weights, exporter = record["version"], record["exporter"]
        for partition, verl in record["verl"].items():
            takes_failed = mode.takes_failed or partition == "val"
            assert reported(exporter, partition) == expected(verl, weights, takes_failed=takes_failed), (
                f"{mode.name}, {partition} at {record['point']} of step {record['step']}"
            )
            padded |= verl["padding"] > 0
        assert exporter["reference_version"] == weights
        assert exporter["reference"] == ("rows" if record["point"] == "validating" else mode.reference)
        states |= {
            state
            for one in exporter["partitions"]
            if one["partition"] == "train"
            for state in one["groups"]
            if one["groups"][state]
        }
    assert states >= mode.states
    assert padded


def test_synchronous(ray: TQCluster, tmp_path: Path) -> None:
    _check(SYNC, _run(ray, tmp_path, SYNC))


def _overrides(page: str) -> list[str]:
    found = re.findall(r'^        "?(\+ray_kwargs[^\s"]+)', page, re.MULTILINE)
    assert len(found) == 4
    return found


def _published(page: str) -> str:
    (line,) = re.findall(r"^    (tq\.kv_put\(.*\))$", page, re.MULTILINE)
    return str(line)


def _check_spans(receiver: Received, *further: str) -> None:
    # The last three are the calls of verl's bridge in its workers: async_get_data, async_kv_retrieve_meta and _keys.
    calls = {"put_samples train", "get_samples train", "clear_samples train", "list_metadata"}
    calls |= {"get_data train", "list_metadata train", "list_sample_ids train", *further}
    assert calls <= {span.name for span in receiver.spans()}


def test_colocated_and_observed_as_the_example_says(ray: TQCluster, tmp_path: Path, receiver: Received) -> None:
    page = PAGE.replace("$PWD/examples/verl", f"{job.ROOT}/examples/verl:{job.ROOT}")
    overrides = _overrides(page.replace("http://collector:4318", receiver.url))
    _check(COLOCATED, _run(ray, tmp_path, COLOCATED, *overrides))
    _check_spans(receiver, "save_checkpoint")


def test_separate_with_a_published_version_and_observed_as_the_page_says(
    ray: TQCluster, tmp_path: Path, receiver: Received
) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("collector", "observe"):
        (program,) = re.findall(rf"```python\n# {name}\.py\n(.*?)```", INSTRUMENT, re.DOTALL)
        (hooks / f"{name}.py").write_text(program)
    page = INSTRUMENT.replace("/shared/hooks", f"{hooks}:{job.ROOT}")
    overrides = _overrides(page.replace("http://collector:4318", receiver.url))
    _check(SEPARATE, _run(ray, tmp_path, SEPARATE, *overrides, VERL_IN_PREPARE_STEP=_published(INSTRUMENT)))
    _check_spans(receiver)


def test_both_pages_say_the_same() -> None:
    assert _published(INSTRUMENT) == _published(PAGE)
    assert _overrides(INSTRUMENT.replace("/shared/hooks", "$PWD/examples/verl")) == _overrides(PAGE)
