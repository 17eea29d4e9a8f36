"""On a real TransferQueue: one trace from generation to training, and the public API without code changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import forks
from tests.support.cluster import TQCluster

PROGRAMS = Path(__file__).parent / "programs"
ROOT = Path(__file__).parents[2]


def _run(cluster: TQCluster, command: Sequence[str], *arguments: str, **env: str) -> str:
    """Run a program; one of Python is a fork, of a process that has not imported transfer_queue."""
    program = [*command, cluster.ray_address, *arguments]
    variables = {**os.environ, **cluster.env, "PYTHONPATH": str(ROOT), **env}
    if program[0] == sys.executable:
        finished = forks.run("ray", program[1:], env=variables, timeout=120)
    else:
        finished = subprocess.run(program, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr[-4000:]
    return finished.stdout


def _report(output: str) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(output.splitlines()[-1])
    return report


def test_a_rollout_is_one_story_over_two_processes(cluster: TQCluster) -> None:
    program = [sys.executable, str(PROGRAMS / "rollouts.py")]
    producer = _report(_run(cluster, program, "produce"))
    consumer = _report(_run(cluster, program, "consume"))

    generate = next(span for span in producer["spans"] if span["name"] == "generate")
    p0, p1, p2 = ([span["trace"], span["span"]] for span in producer["spans"] if span["name"] == "put_samples train")
    assert p0[0] == p1[0] == generate["trace"] != p2[0]
    linked = [(span["name"], sorted(span["links"])) for span in consumer["spans"]]
    assert linked == [
        ("put_samples __tq_exporter__", []),
        ("claim_meta train", [p0]),
        ("get_data train", [p0]),
        ("list_metadata train", []),
        ("get_samples train", [p1]),
        ("pop train", [p0]),
        ("evict train", [p1]),
        ("pop train", [p2]),
    ]
    assert {lag["operation"]: (lag["count"], lag["sum"]) for lag in consumer["lags"]} == {
        "claim_meta": (1, 3),
        "get_data": (1, 3),
        "get_samples": (1, 1),
        "pop": (1, 3),
        "evict": (1, 1),
    }
    assert producer["observer_failures"] == consumer["observer_failures"] == 0


@pytest.fixture
def public_api(cluster: TQCluster) -> dict[str, Any]:
    return _report(_run(cluster, [sys.executable, str(PROGRAMS / "public_api.py")]))


def test_the_public_api_is_observed_as_the_wrapper_observes(public_api: dict[str, Any]) -> None:
    seen = {
        name: [(span["name"], span["keys"], span["error"], span["links"]) for span in spans]
        for name, spans in public_api.items()
        if isinstance(spans, list)
    }
    assert seen == {
        "kv_put": [("put_samples p", 1, None, 0)],
        "kv_batch_put": [("put_samples p", 3, None, 0)],
        "kv_batch_get": [("get_samples p", 3, None, 1)],
        "kv_batch_get of one": [("get_samples p", 1, None, 1)],
        "kv_batch_get_by_meta": [("get_data p", 3, None, 1)],
        "kv_list": [("list_metadata p", 4, None, 0)],
        "error": [("get_samples p", 1, "DataPlaneBadRequest", 0)],
        "kv_put of another field": [("put_samples p", 1, None, 0)],
        "get_meta": [("claim_meta p", 2, None, 2)],
        "get_data": [("get_data p", 2, None, 2)],
        "put": [("put_samples q", 2, None, 0)],
        "clear_samples": [("clear_samples p", 2, None, 2)],
        "kv_clear": [("clear_samples p", 3, None, 1)],
        "async": [("put_samples p", 2, None, 0), ("list_metadata p", 2, None, 0)],
        "metadata": [("list_metadata p", 2, None, 0), ("list_sample_ids p", 2, None, 0)],
        "streaming data loader": [("claim_meta p", 2, None, 1), ("get_data p", 2, None, 1)],
        "checkpoint": [("save_checkpoint", None, None, 0), ("load_checkpoint", None, None, 0)],
        "under the wrapper": [
            ("put_samples w", 1, None, 0),
            ("claim_meta w", 1, None, 1),
            ("get_data w", 1, None, 1),
            ("pop w", 1, None, 1),
        ],
        "uninstrumented": [],
        "instrumented again": [("list_metadata p", 2, None, 0)],
    }
    assert all(span["served"] for spans in public_api.values() if isinstance(spans, list) for span in spans)
    assert public_api["loaded_by_instrument"] is False
    assert public_api["still a coroutine function"] is True
    assert public_api["restored"] is True
    assert public_api["keys"]["put_samples w"] == public_api["keys"]["pop w"] == 1
    assert public_api["keys"]["put_samples p"] == 1 + 3 + 1 + 2
    assert public_api["duration points"] > 0


def test_functions_travel_to_ray_actors_and_tasks(cluster: TQCluster) -> None:
    launcher = Path(sys.executable).with_name("opentelemetry-instrument")
    quiet = ["--traces_exporter=none", "--metrics_exporter=none", "--logs_exporter=none"]
    output = _run(cluster, [str(launcher), *quiet, sys.executable, str(PROGRAMS / "actor.py")])
    assert output.splitlines()[-2:] == ["True [['a'], ['a']]", "['a']"]


def test_opentelemetry_instrument_prints_the_spans_of_a_program_that_knows_nothing_of_us(cluster: TQCluster) -> None:
    launcher = Path(sys.executable).with_name("opentelemetry-instrument")
    output = _run(
        cluster,
        [
            str(launcher),
            "--traces_exporter=console",
            "--metrics_exporter=none",
            "--logs_exporter=none",
            sys.executable,
            str(PROGRAMS / "ten_lines.py"),
        ],
    )
    names = [line.strip() for line in output.splitlines() if line.startswith('    "name": ')]
    assert names == ['"name": "put_samples train",', '"name": "get_samples train",', '"name": "clear_samples train",']
