"""Which build of PyTorch `make` takes. Python is a stand-in: no index with builds for CUDA is needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "torch"

_PYTHON = """#!/bin/sh
case "$*" in
    -c*) exit {has_torch} ;;
    *--dry-run*) echo '{{"install": [{{"metadata": {{"name": "{resolved}"}}}}]}}' ;;
    *) echo "$@" >>"{notes}" ;;
esac
"""


def installed(tmp_path: Path, resolved: str, *, has_torch: bool = False, gpu: bool = False) -> str:
    """Run the script where pip would install the package *resolved*; return what it installs."""
    notes, python = tmp_path / "notes", tmp_path / "python"
    notes.touch()
    python.write_text(_PYTHON.format(has_torch=int(not has_torch), resolved=resolved, notes=notes))
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\nexit {int(not gpu)}\n")
    for program in (python, smi):
        program.chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["bash", str(SCRIPT), str(python)], env=path, timeout=20, check=True)
    return notes.read_text()


def test_without_a_gpu_the_cpu_build_is_taken(tmp_path: Path) -> None:
    pip, uv = installed(tmp_path, "nvidia-cublas").splitlines()
    assert pip.endswith(" uv")
    assert "--torch-backend cpu torch==" in uv


@pytest.mark.parametrize(
    ("resolved", "state"),
    [("nvidia-cublas", {"gpu": True}), ("nvidia-cublas", {"has_torch": True}), ("sympy", {})],
)
def test_otherwise_pip_decides(tmp_path: Path, resolved: str, state: dict[str, bool]) -> None:
    assert installed(tmp_path, resolved, **state) == ""
