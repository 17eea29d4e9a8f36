"""Child processes cannot outlive the demo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import is_running
from tests.support.waiting import wait_until

# A child with a child of its own in another session. It either ignores SIGTERM, or exits and leaves that child running.
PARENT = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.{disposition})
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print(grandchild.pid, flush=True)
time.sleep(300)
"""

DEMO = """
import os, sys, time
from pathlib import Path
from exporter.demo import processes
processes.adopt_orphans()
log = Path(sys.argv[1])
child = processes.start([sys.executable, "-c", sys.argv[2]], env=os.environ, log=log)
while not log.read_text().endswith("\\n"):
    time.sleep(0.05)
print(child.pid, log.read_text().strip(), flush=True)
if sys.argv[3] == "end":
    child.terminate()
    processes.end_all([child], 1.0)
    print(child.poll(), processes.descendants(), flush=True)
else:
    time.sleep(300)
"""


def demo(tmp_path: Path, child: str, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", DEMO, str(tmp_path / "log"), child, how]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def await_end(pid: int) -> None:
    wait_until(lambda: not is_running(pid), f"the end of {pid}", timeout_s=10)


@pytest.mark.parametrize(
    ("disposition", "code"),
    [pytest.param("SIG_IGN", -signal.SIGKILL, id="stubborn"), pytest.param("SIG_DFL", -signal.SIGTERM, id="obedient")],
)
def test_a_child_and_its_own_children_are_gone_at_the_end(tmp_path: Path, disposition: str, code: int) -> None:
    with demo(tmp_path, PARENT.format(disposition=disposition), "end") as process:
        said, _ = process.communicate(timeout=60)
    pids, outcome = said.splitlines()
    assert outcome == f"{code} []"
    assert len(pids.split()) == 2
    for pid in pids.split():
        await_end(int(pid))


def test_a_child_ends_when_the_demo_is_killed(tmp_path: Path) -> None:
    obedient = "import time; print(0, flush=True); time.sleep(300)"
    with demo(tmp_path, obedient, "wait") as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline().split()[0])
        assert os.getsid(pid) == pid
        process.kill()
    await_end(pid)
