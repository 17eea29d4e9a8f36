"""Running programs of this machine as root, each ended with the tests that started it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["ROOT", "daemon", "require", "run"]

ROOT = Path(__file__).parents[2]


def require(*programs: str) -> None:
    """Fail with a sentence that says what to do, if this is not root or a program is missing."""
    assert os.geteuid() == 0, (
        "make engines starts container engines and Slurm: run it as root, for example in a virtual machine"
    )
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} not found: run .ci/engines on Debian, which installs them")


def run(
    *command: str | Path,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
    cwd: Path | None = None,
    timeout_s: float = 300.0,
) -> str:
    """Run a command to its end and return what it printed; fail with its output if it fails."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **(env or {})},
        input=text,
        cwd=cwd,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@contextmanager
def daemon(*command: str | Path, log: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in the background until the end of the block, or until this process dies."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
