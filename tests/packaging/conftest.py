"""Runs the Dockerfile's steps without a container engine, up to the environment of the image without Ray."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packaging.dockerfile import ROOT, read_stages

VERSION = "4.5.6"
COMMIT = "0123456789ab"


@dataclass(frozen=True)
class Installation:
    """The result of the Dockerfile's steps.

    Attributes:
        wheel: The wheel.
        python: The interpreter of the environment, which contains only the wheel and its dependencies.
        program: ``tq-exporter`` in it.
    """

    wheel: Path
    python: Path
    program: Path


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Run the COPY and RUN steps of the stages ``wheel`` and ``environment`` inside a folder of the test."""
    root = tmp_path_factory.mktemp("image")
    (root / "source").mkdir()
    run_steps("wheel", root, root / "source", env={"VERSION": VERSION, "COMMIT": COMMIT})
    run_steps("environment", root, root)
    [wheel] = (root / "wheel").glob("*.whl")
    environment = root / "opt" / "tq-exporter" / "bin"
    return Installation(wheel, environment / "python", environment / "tq-exporter")


def run_steps(
    stage: str, root: Path, folder: Path, *, env: Mapping[str, str] | None = None, install_options: str = ""
) -> None:
    """Run the COPY and RUN steps of a stage in *folder*, with *install_options* for each ``pip install``.

    Absolute paths are mapped into *root*. ``python``, ``python3`` and ``pip`` are those of the test environment.
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for step, text in read_stages()[stage].steps:
        if step == "COPY" and not text.startswith("--from="):
            *sources, target = text.split()
            for source in sources:
                _copy(ROOT / source, _under(root, folder, target), only=len(sources) == 1)
        elif step == "RUN" and not text.startswith("["):
            command = re.sub(r'(?<=[ "(])/(?=[a-z])', f"{root}/", text)
            command = re.sub(r"\bpip (\S+ \S+ )?install ", rf"\g<0>{install_options} ", command)
            quick = {"PATH": path, "PIP_NO_COMPILE": "1"}  # compiling takes half the time of an installation
            run("sh", "-euc", command, cwd=folder, env={**quick, **(env or {})}, timeout_s=280)


def clean_environment() -> dict[str, str]:
    """Return the environment variables without those that would make this repository importable."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None, timeout_s: float | None = None) -> str:
    """Run a command with *env* added to the clean environment; return its output."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**clean_environment(), **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _under(root: Path, folder: Path, target: str) -> Path:
    return root / target.lstrip("/") if target.startswith("/") else folder / target


def _copy(source: Path, target: Path, *, only: bool) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(source, target if only else target / source.name)
