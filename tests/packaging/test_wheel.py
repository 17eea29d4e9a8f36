"""The wheel alone, in an environment without Ray, torch and TransferQueue."""

from __future__ import annotations

import os
import shutil
import sys
import zipfile
from pathlib import Path

from tests.packaging.conftest import COMMIT, VERSION, Installation, run
from tests.packaging.dockerfile import ROOT
from tests.support.cluster import TQCluster
from tests.support.exporter_process import ExporterProcess


def test_the_environment_has_neither_ray_nor_torch_nor_transfer_queue(
    installation: Installation, tmp_path: Path
) -> None:
    look = "import importlib.util as u; print([n for n in ('ray', 'torch', 'transfer_queue') if u.find_spec(n)])"
    assert run(installation.python, "-c", look, cwd=tmp_path) == "[]\n"
    assert "No broken requirements" in run(
        sys.executable, "-m", "pip", "--python", installation.python, "check", cwd=tmp_path
    )


def test_it_says_which_commit_it_is(installation: Installation, tmp_path: Path) -> None:
    assert f" {VERSION} (commit {COMMIT}, " in run(installation.program, "--version", cwd=tmp_path)


def test_rules_and_dashboards_are_in_it(installation: Installation, tmp_path: Path) -> None:
    run(installation.program, "dashboards", "-o", tmp_path / "grafana", cwd=tmp_path)
    run(installation.program, "rules", "-o", tmp_path / "prometheus", cwd=tmp_path)
    for wanted in (*(ROOT / "dashboards/grafana").glob("*.json"), *(ROOT / "dashboards/prometheus").glob("*.yaml")):
        assert (tmp_path / wanted.parent.name / wanted.name).read_bytes() == wanted.read_bytes()


def test_tests_stay_out_and_pages_go_in(installation: Installation) -> None:
    names = set(zipfile.ZipFile(installation.wheel).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dataplane", "exporter", "tq_exporter"}
    page = {f"exporter/web/page/{path.name}" for path in (ROOT / "exporter/web/page").iterdir() if path.is_file()}
    assert page <= names
    assert {"dataplane/py.typed", "exporter/py.typed"} <= names


def test_clone_and_sdist_build_the_same_wheel(installation: Installation, tmp_path: Path) -> None:
    """Of a clone at a release's tag, as CI publishes it; a sdist has no repository and says the commit itself."""
    clone = tmp_path / "clone"
    shutil.copytree(
        installation.wheel.parents[1] / "source", clone, ignore=shutil.ignore_patterns("build", "*.egg-info")
    )
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
    run(*git, "init", "--quiet", cwd=clone)
    run(*git, "add", ".", cwd=clone)
    run(*git, "commit", "--quiet", "--message", "Release", cwd=clone)
    run(*git, "tag", "v7.8.9", cwd=clone)
    commit = run("git", "rev-parse", "HEAD", cwd=clone)[:12]

    run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", clone, cwd=tmp_path)  # the wheel from the sdist
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, clone, cwd=tmp_path)
    assert {path.name for path in (tmp_path / "dist").iterdir()} == {
        "tq_exporter-7.8.9.tar.gz",
        "tq_exporter-7.8.9-py3-none-any.whl",
    }
    [from_sdist], [from_clone] = (tmp_path / "dist").glob("*.whl"), tmp_path.glob("*.whl")
    assert contents(from_sdist) == contents(from_clone)
    assert commit in contents(from_sdist)["exporter/_commit.py"].decode()


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel, without the list of their hashes."""
    with zipfile.ZipFile(wheel) as packed:
        return {name: packed.read(name) for name in packed.namelist() if not name.endswith("/RECORD")}


def test_it_follows_the_file_of_a_training_process_through_a_controllers_restart(
    installation: Installation, cluster: TQCluster, tmp_path: Path
) -> None:
    """The whole sidecar set-up: the training process writes the record, and an exporter without Ray reads it."""
    record = tmp_path / "shared" / "endpoint.json"
    cluster.put("train", ["g1_g0", "g2_g0"])
    arguments = ("--discovery-file", str(record), "--ping-interval", "300ms", "--metadata-interval", "500ms")
    env = {"PYTHONPATH": "", "PATH": os.environ["PATH"]}
    with ExporterProcess(*arguments, program=[str(installation.program)], env=env) as exporter:
        assert exporter.scrape().value("dataplane_discovery_state", state="never_found") == 1
        cluster.run(
            "import dataplane\ntq.publisher = dataplane.publish_endpoint(path, interval_s=0.2, run='run-7')",
            path=str(record),
        )
        try:
            exporter.wait_for(
                lambda scrape: (
                    scrape.value("dataplane_up") == 1
                    and sum(value for _, value in scrape.samples("dataplane_partition_keys", partition="train")) == 2
                ),
                "the first controller's rows",
            )
            assert exporter.snapshot()["endpoint"]["actor_id"]
            cluster.restart_tq()
            cluster.put("train", ["g3_g0"])
            exporter.wait_for(
                lambda scrape: (
                    scrape.value("dataplane_up") == 1
                    and sum(value for _, value in scrape.samples("dataplane_partition_keys", partition="train")) == 1
                ),
                "the second controller's rows",
            )
            assert exporter.scrape().value("dataplane_controller_restarts_total") == 1
            status, page = exporter.get("/")
            assert status == 200
            assert "<script" in page
            assert exporter.process.memory_info().rss <= 80 * 2**20
        finally:
            cluster.run("tq.publisher.close()")
        exporter.wait_for(lambda scrape: scrape.value("dataplane_discovery_state", state="ended") == 1, "the clean end")
        assert exporter.stop() == 0
