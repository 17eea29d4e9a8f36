"""Calls to Helm for the chart's tests. It runs in ``.venv-helm``, which ``.ci/tools`` creates."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["CHART", "CI_VALUES", "ROOT", "Stage", "ask", "install", "install_or_fail", "steps"]

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "tq-exporter"
CI_VALUES: dict[str, dict[str, Any]] = {
    path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text()) or {}
    for path in sorted(CHART.glob("ci/*-values.yaml"))
}

_PYTHON = ROOT / ".venv-helm" / "bin" / "python"


@dataclass(frozen=True)
class Stage:
    """A release after one install or upgrade.

    Attributes:
        objects: The objects that Kubernetes stores, as Helm sent them.
        text: Helm's rendered YAML.
        hooks: The hooks. An install does not send them; the pod of ``helm test`` is one.
        notes: The text for the user.
        writes: Number of writes to Kubernetes so far.
    """

    objects: list[dict[str, Any]]
    text: str
    hooks: list[str]
    notes: str
    writes: int

    def find(self, kind: str, suffix: str = "") -> dict[str, Any]:
        """Return the one object of *kind* whose name ends in *suffix*."""
        found = [item for item in self.objects if item["kind"] == kind and item["metadata"]["name"].endswith(suffix)]
        assert len(found) == 1, f"{len(found)} of {kind} {suffix}"
        return found[0]

    def kinds(self) -> list[str]:
        """Return the kinds of all objects, sorted."""
        return sorted(item["kind"] for item in self.objects)


@functools.cache
def _engine() -> subprocess.Popen[str]:
    """Start ``engine.py``, which ends with this process."""
    assert _PYTHON.exists(), "there is no .venv-helm: run .ci/tools"
    engine = subprocess.Popen(
        [str(_PYTHON), "-m", "tests.helm.engine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=ROOT,
        env={**os.environ, "HELM_DRIVER": "memory"},
    )
    atexit.register(_end, engine)
    return engine


def _end(engine: subprocess.Popen[str]) -> None:
    with engine:
        engine.kill()


def ask(task: str, **arguments: Any) -> Any:
    """Run one task of ``engine.py``."""
    engine = _engine()
    assert engine.stdin is not None
    assert engine.stdout is not None
    engine.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
    line = engine.stdout.readline()
    assert line, f"the process of Helm ended with {engine.wait(10)}"
    answer = json.loads(line)
    assert "error" not in answer, answer["error"]
    return answer["result"]


def steps(name: str, *values: Mapping[str, Any], chart: Path | str = CHART) -> dict[str, Any]:
    """Return a release: an install with the first *values*, then an upgrade with each of the others."""
    return {"name": name, "steps": [{"chart": str(chart), "values": dict(one)} for one in values]}


def install(*releases: dict[str, Any], kubernetes: str = "v1.31.0") -> list[list[Stage]]:
    """Install releases, each in a cluster of its own; return the stages of each."""
    answers = ask("install", releases=list(releases), kubernetes=kubernetes)
    for answer in answers:
        assert "error" not in answer, answer["error"]
    return [[Stage(**stage) for stage in answer["stages"]] for answer in answers]


def install_or_fail(*releases: dict[str, Any]) -> list[str]:
    """Return Helm's error for each release; empty when it is installed."""
    return [answer.get("error", "") for answer in ask("install", releases=list(releases), kubernetes="v1.31.0")]
