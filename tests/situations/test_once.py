"""``tq-exporter once --watch`` beside a job: what happened meanwhile, and what is wrong."""

from __future__ import annotations

import subprocess
import sys

from tests.situations.frameworks import verl
from tests.situations.player import Job


def test_once_names_the_culprit_after_a_while(job: Job) -> None:
    job.shows({"train": {**verl("a", 7), **verl("b", 7)}})
    ended = subprocess.run(
        [sys.executable, "-m", "exporter.cli", "once", "--watch", "2s", "--discovery-file", str(job.record)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "! 2 groups are ready, and the trainer finished with none in 2 s" in ended.stdout
    assert "Groups in the last 2 s, at least" in ended.stdout
