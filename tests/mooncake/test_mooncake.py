"""The contract suite, the client and the exporter's source on a real Mooncake, in a network namespace of its own.

By hand, as root: the command that this test prints when it fails. A file of tests/mooncake or tests/contract at its end
runs only that one.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.mooncake_master import in_namespace

_ROOT = Path(__file__).parents[2]


@pytest.mark.full
@pytest.mark.timeout(900)
def test_on_a_real_mooncake() -> None:
    command = in_namespace(
        [
            sys.executable,
            "-m",
            "pytest",
            "--mooncake",
            "-q",
            "-p",
            "no:cacheprovider",
            "tests/mooncake",
            "tests/contract",
        ]
    )
    # Mooncake's libraries log to standard error from their own threads.
    environment = {**os.environ, "GLOG_minloglevel": "3"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=880, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-20000:]}\n{done.stderr[-2000:]}"
