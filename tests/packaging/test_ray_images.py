"""The steps of the two images with Ray."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.conftest import COMMIT, Installation, run, run_steps
from tests.packaging.dockerfile import ROOT
from tests.support.cluster import TQCluster

WHERE = """
import importlib, json
names = ("ray", "torch", "transfer_queue", "dataplane", "exporter")
print(json.dumps({name: importlib.import_module(name).__file__ for name in names}))
"""


@dataclass(frozen=True)
class OnTraining:
    """The result of ``on-training`` in an environment with the tests' Python, in place of a training image.

    Attributes:
        bin: Its programs.
        before: The packages before the step.
        after: The packages after it.
    """

    bin: Path
    before: list[str]
    after: list[str]

    def run(self, program: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run one of its programs; return its output."""
        return run(self.bin / program, *arguments, cwd=self.bin, env=env)


def packages() -> list[str]:
    """Return the packages that the tests' interpreter has."""
    return sorted(f"{one.name}=={one.version}" for one in importlib.metadata.distributions())


@pytest.fixture(scope="module")
def on_training(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> OnTraining:
    root = tmp_path_factory.mktemp("on-training")
    shutil.copytree(installation.wheel.parent, root / "wheel")
    before = packages()
    run_steps("on-training", root, root)
    return OnTraining(root / "opt" / "tq-exporter" / "bin", before, packages())


def test_on_training_adds_the_exporter_and_changes_nothing_of_the_image(on_training: OnTraining) -> None:
    assert any(line.startswith("tq-exporter") for line in on_training.before)  # the image may have its own
    assert on_training.after == on_training.before
    assert f"commit {COMMIT}, " in on_training.run("tq-exporter", "--version")


def test_on_training_has_an_exporter_of_its_own_where_the_image_has_the_same(
    installation: Installation, tmp_path: Path
) -> None:
    shutil.copytree(installation.wheel.parent, tmp_path / "wheel")
    path = f"{installation.python.parent}:{os.environ['PATH']}"
    run_steps("on-training", tmp_path, tmp_path, env={"PATH": path})
    assert f"commit {COMMIT}, " in run(tmp_path / "opt/tq-exporter/bin/tq-exporter", "--version", cwd=tmp_path)


def test_on_training_has_the_images_ray_and_an_exporter_of_its_own(on_training: OnTraining) -> None:
    files = {name: Path(file) for name, file in json.loads(on_training.run("python", "-c", WHERE)).items()}
    own = on_training.bin.parent
    assert {name for name, file in files.items() if file.is_relative_to(own)} == {"dataplane", "exporter"}
    assert all(files[name].is_relative_to(sys.prefix) for name in ("ray", "torch", "transfer_queue"))


def test_on_training_finds_a_transfer_queue_through_ray(on_training: OnTraining, cluster: TQCluster) -> None:
    cluster.put("train", ["u_g0", "u_g1"], tags=[{"weight_version": 1}] * 2)
    said = on_training.run("tq-exporter", "once", "--json", "--ray-address", cluster.ray_address, env=cluster.env)
    assert [partition["partition"] for partition in json.loads(said)["partitions"]] == ["train"]


def test_the_image_with_ray_can_be_resolved(installation: Installation, tmp_path: Path) -> None:
    """Only resolved: an installation takes minutes. torch is the build that the tests have."""
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    (tmp_path / "torch.txt").write_text(f"torch=={pins['torch']}\n")
    root = installation.python.parents[3]
    run_steps(
        "environment-ray",
        root,
        root,
        env={
            "RAY_VERSION": pins["ray"],
            "TQ_VERSION": pins["TransferQueue"],
        },
        install_options=f"--dry-run --report {tmp_path}/report.json --constraint {tmp_path}/torch.txt",
    )
    found = {
        entry["metadata"]["name"]: entry["metadata"]["version"].partition("+")[0]
        for entry in json.loads((tmp_path / "report.json").read_text())["install"]
    }
    assert found.items() >= {name: pins[name] for name in ("ray", "TransferQueue", "torch", "tensordict")}.items()
    assert not found.keys() & {"opentelemetry-sdk", "prometheus-client", "msgspec"}  # the exporter's own stay
