"""The Dockerfile, linted and parsed. tests/engines builds it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.dockerfile import ROOT, read_stages

STAGES = read_stages()
IMAGES = ("exporter", "exporter-ray", "on-training")


@pytest.mark.full
def test_the_linter_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([str(hadolint), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_runs_as_nobody_and_asks_itself_for_its_health(name: str) -> None:
    stage = STAGES[name]
    lineage = [stage]
    while lineage[-1].base in STAGES:
        lineage.append(STAGES[lineage[-1].base])
    defaults = dict(text.partition("=")[::2] for text in stage.of("ARG"))
    [user] = stage.of("USER")
    assert defaults.get(user.strip("${}"), user) == "65532:65532"
    assert any('CMD ["tq-exporter", "healthcheck"]' in text for one in lineage for text in one.of("HEALTHCHECK"))
    labels = " ".join(text for one in lineage for text in one.of("LABEL"))
    assert 'org.opencontainers.image.revision="${COMMIT}"' in labels
    assert 'org.opencontainers.image.version="${VERSION}"' in labels
    assert any(one.of("ENTRYPOINT") == ['["tq-exporter"]'] for one in lineage)


def test_the_classic_builder_meets_no_stage_that_needs_arguments_before_the_target() -> None:
    names = list(STAGES)
    needy = {name for name, stage in STAGES.items() if any(":?" in text for text in stage.of("RUN"))}
    assert needy == {"environment-ray"}
    assert names.index("environment-ray") > max(names.index("exporter"), names.index("on-training"))
    assert STAGES[names[-1]].base == "exporter"


def test_nothing_is_fetched_from_a_registry_but_the_bases_and_no_variable_beats_the_configuration_file() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"^# *syntax *=", text, re.MULTILINE)
    assert "TQ_EXPORTER_" not in re.sub(r"SETUPTOOLS_SCM_\w+", "", text)


def test_bases_are_pinned() -> None:
    for stage in STAGES.values():
        pinned = re.fullmatch(r"python:\$\{PYTHON_VERSION\}-slim-[a-z]+", stage.base)
        assert pinned or stage.base in STAGES or stage.base == "${TRAINING_IMAGE}", stage.name
    assert re.search(r"^ARG PYTHON_VERSION=\d+\.\d+\.\d+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)


def test_the_build_context_has_what_is_copied_and_no_more() -> None:
    lines = (ROOT / ".dockerignore").read_text().split()
    admitted = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source.removeprefix("./")
        for stage in STAGES.values()
        for text in stage.of("COPY")
        if not text.startswith("--from=")
        for source in text.split()[:-1]
    }
    assert lines[0] == "*"
    assert admitted == copied
    assert all((ROOT / name).exists() for name in copied)
