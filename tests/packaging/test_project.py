"""What is written in more than one place about the project: its Pythons, its programs, its extras."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.packaging.dockerfile import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PYPROJECT = (ROOT / "pyproject.toml").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()


def jobs(workflow: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(workflow.read_text())["jobs"]
    return found


def test_the_pythons_are_the_same_everywhere() -> None:
    declared = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    assert re.search(r'^requires-python = ">=(.*)"$', PYPROJECT, re.MULTILINE).group(1) == declared[0]  # type: ignore[union-attr]
    assert re.search(r"^PYTHONS \?= (.*)$", MAKEFILE, re.MULTILINE).group(1).split() == declared  # type: ignore[union-attr]
    assert jobs(ROOT / ".github/workflows/ci.yml")["fast"]["strategy"]["matrix"]["python"] == declared
    [installed] = [
        step["with"]["python-version"].split()
        for step in jobs(ROOT / ".github/workflows/release.yml")["build"]["steps"]
        if "setup-python" in step.get("uses", "")
    ]
    assert sorted(installed) == sorted(declared)


def test_ci_runs_the_lower_bounds_and_each_has_one() -> None:
    assert "make test-oldest" in (ROOT / ".ci/run").read_text()
    declared = re.findall(r"^(?:dependencies|test|instrument) = \[(.*?)\]$", PYPROJECT, re.MULTILINE | re.DOTALL)
    requirements = re.findall(r'"([^"\s]+)"', "".join(re.sub("#.*", "", block) for block in declared))
    assert len(requirements) > 20
    assert [one for one in requirements if ">=" not in one and not one.startswith("tq-exporter")] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_runs_what_there_is_with_pinned_actions_and_few_rights(workflow: Path) -> None:
    assert yaml.safe_load(workflow.read_text())["permissions"] == {"contents": "read"}
    for name, job in jobs(workflow).items():
        assert "timeout-minutes" in job or "uses" in job, name
        for step in job.get("steps", ()):
            assert re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", step.get("uses", "a/b@v1")), step
            for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", "")):
                assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE), target
            for script in re.findall(r"\.ci/\w+", step.get("run", "")):
                assert (ROOT / script).exists(), script


def test_only_the_job_that_publishes_may_ask_for_an_identity() -> None:
    rights = {
        name: job["permissions"] for path in WORKFLOWS for name, job in jobs(path).items() if "permissions" in job
    }
    assert rights == {"publish": {"id-token": "write"}}


@pytest.mark.parametrize(
    ("message", "good"),
    [
        ("x" * 72, True),
        ("x" * 73, False),
        ("ü" * 72, True),
        ("fixup! " + "x" * 72, True),
        ("Short\n\n" + "x" * 200, True),
        ("# " + "x" * 80 + "\nShort", True),
    ],
)
def test_a_subject_is_short(tmp_path: Path, message: str, good: bool) -> None:
    (tmp_path / "message").write_text(message + "\n")
    env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    command = [str(ROOT / ".ci/commits"), "--file", str(tmp_path / "message")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode == 0, bool(done.stderr)) == (good, not good)
