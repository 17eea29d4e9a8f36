"""The tag is the version. What names one before the tag exists, names the next release's, and all name the same."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.packaging.dockerfile import ROOT

CHART = ROOT / "helm/tq-exporter/Chart.yaml"
NEXT = re.search(r'^fallback_version = "([\d.]+)\.dev0"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]

_NAMED = re.compile(r"\btq-exporter(?:-ray)?:v?(\d[\w.]*)|(?<![A-Z_])VERSION=(\d[\w.]*)|version is `(\d[\d.]*)\.dev0`")
"""Our image with a tag, the argument of the image's build, and what a build without it says."""

_FILES = sorted(
    path
    for pattern in ("*.md", "Dockerfile", "*.yaml", "docs/**/*.md", "docs/deploy/*", "examples/**/*", "helm/**/*")
    for path in ROOT.glob(pattern)
    if path.is_file() and path.name != "CHANGELOG.md" and path.suffix != ".pyc"
)


def test_documents_and_examples_name_the_next_release() -> None:
    named = {
        (str(path.relative_to(ROOT)), "".join(found)) for path in _FILES for found in _NAMED.findall(path.read_text())
    }
    assert {path for path, _ in named} >= {
        "Dockerfile",
        "docs/deploy.md",
        "examples/kubernetes/ray-cluster-values.yaml",
    }
    assert {(path, version) for path, version in named if version != NEXT} == set()


def test_the_chart_is_the_next_release_and_its_image_has_that_tag() -> None:
    chart = yaml.safe_load(CHART.read_text())
    assert (chart["version"], chart["appVersion"]) == (NEXT, NEXT)
    values = yaml.safe_load((CHART.parent / "values.yaml").read_text())
    assert values["image"]["tag"] == "", "then it is the chart's appVersion"


@pytest.mark.full
@pytest.mark.parametrize(
    ("version", "chart", "image"),
    [
        (NEXT, NEXT, NEXT),
        ("7.8.9.dev12+dirty", "7.8.9-dev.12", "7.8.9.dev12"),
        ("7.8.9rc1", "7.8.9-rc.1", "7.8.9rc1"),
    ],
)
def test_the_packaged_chart_has_the_version_of_the_wheel(tmp_path: Path, version: str, chart: str, image: str) -> None:
    done = package(version, tmp_path)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / f"tq-exporter-{chart}.tgz") as packed:
        described = packed.extractfile("tq-exporter/Chart.yaml")
        assert described is not None
        said = yaml.safe_load(described)
        files = {name for name in packed.getnames() if name.startswith("tq-exporter/files/")}
    assert (said["version"], said["appVersion"]) == (chart, image)
    assert files >= {"tq-exporter/files/prometheus/alerts.yaml", "tq-exporter/files/grafana/tq-overview.json"}


def test_a_tag_that_is_not_the_next_release_is_refused(tmp_path: Path) -> None:
    done = package("7.8.9", tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [])
    assert f"the release is 7.8.9, and appVersion in helm/tq-exporter/Chart.yaml is {NEXT}" in done.stderr


def package(version: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / ".ci/chart"), version, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
