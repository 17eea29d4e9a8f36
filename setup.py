"""Writes the commit into wheel and sdist. Everything else is in pyproject.toml."""

import os
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

_FILE = Path("exporter/COMMIT")


def _commit() -> str:
    """Return the commit: from a build argument, from git, or from the source archive; empty if there is none."""
    given = os.environ.get("TQ_EXPORTER_COMMIT")
    if given:
        return given
    # Only if this folder is the root of the repository, not if it is somewhere inside another repository.
    if Path(".git").exists():
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"]
        try:
            return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()  # noqa: S603
        except (OSError, subprocess.CalledProcessError):
            return ""
    return _FILE.read_text("ascii").strip() if _FILE.exists() else ""


class BuildPy(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib) / _FILE
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_commit() + "\n", "ascii")


class Sdist(sdist):
    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        (Path(base_dir) / _FILE).write_text(_commit() + "\n", "ascii")


setup(cmdclass={"build_py": BuildPy, "sdist": Sdist})
