"""Programs as forks of a test run's server end, fail and are ended like processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support import forks
from tests.support.waiting import wait_until

PROGRAM = """
import atexit, os, sys, threading, time
atexit.register(print, "the end", flush=True)
threading.Timer(0.1, print, ("a thread",)).start()
print(sys.argv[1:], os.environ["MINE"], os.getcwd(), sys.stdin.read())
"""


def test_a_program_has_its_arguments_environment_folder_input_and_an_end(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    program = forks.start(
        "exporter", ["-c", PROGRAM, "a", "b"], env={"MINE": "x"}, cwd=tmp_path, stdin=pipe, stdout=pipe
    )
    assert program.stdin is not None
    assert program.stdout is not None
    with program.stdin, program.stdout:
        program.stdin.write(b"said")
        program.stdin.close()
        assert program.stdout.read().decode() == f"['a', 'b'] x {tmp_path} said\na thread\nthe end\n"
    assert program.wait(10) == 0


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('why')", 1, "why\n"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, ""),
    ],
)
def test_its_code_is_that_of_a_process_of_its_own(source: str, code: int, said: str) -> None:
    done = forks.run("exporter", ["-c", source], timeout=30)
    assert done.returncode == code
    assert done.stderr.endswith(said)
    real = subprocess.run([sys.executable, "-c", source], check=False, capture_output=True, text=True)
    assert (real.returncode, real.stdout) == (code, done.stdout)


def test_it_does_not_outlive_the_process_that_started_it() -> None:
    program = forks.start("exporter", ["-c", "import time; time.sleep(600)"])
    assert program.poll() is None
    process = psutil.Process(program.pid)
    program._connection.close()  # as the end of this process does
    wait_until(lambda: not process.is_running(), "the end of the program")
