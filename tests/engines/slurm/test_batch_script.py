"""The documented batch script on a real Slurm, with the documented Prometheus."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.engines.machine import run
from tests.engines.slurm.cluster import Job, Slurm
from tests.engines.slurm.conftest import Prometheus
from tests.support.waiting import wait_until

_TRAIN = """
import os, tempfile, time
import dataplane
from tests.support import forks
from tests.support.cluster import TQCluster
forks.leave()  # Slurm ends what it starts, so it must start nothing that other tests use
with TQCluster() as cluster:
    cluster.put("train", [f"g{number}_g0" for number in range(4)], tags=[{"weight_version": 1}] * 4)
    start = "import dataplane\\ntq.publisher = dataplane.publish_endpoint(path, interval_s=1)"
    cluster.run(start, path=os.environ["TQ_DISCOVERY_FILE"])
    while not os.path.exists("stop"):
        time.sleep(0.2)
    cluster.run("tq.publisher.close()")
"""


def test_a_training_on_four_nodes_is_found_by_prometheus_and_ends_well(slurm: Slurm, prometheus: Prometheus) -> None:
    (slurm.jobs / "train.py").write_text(_TRAIN)
    on_the_first = (
        f'[ "$SLURM_PROCID" = 0 ] && PYTHONPATH={":".join(filter(None, sys.path))} exec {sys.executable} train.py'
    )
    (slurm.jobs / "train.sh").write_text(f"{on_the_first}\nexec sleep 5\n")
    job = slurm.submit()
    rows = f'dataplane_partition_keys{{run="{job.run}", partition="train"}} == 4'
    try:
        wait_until(lambda: prometheus.query(rows), "the rows in Prometheus", 300.0)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{job.state}\n{job.log[-4000:]}") from None
    (slurm.jobs / "stop").touch()
    job.wait_until_over()
    assert job.state == "COMPLETED", job.log
    assert not job.target.exists()
    assert "ended on purpose" in job.log


def test_two_jobs_on_one_node_each_have_their_own_metrics(slurm: Slurm, prometheus: Prometheus) -> None:
    jobs = [slurm.submit("--nodes=1", "--nodelist=n1", train="srun sleep 300") for _ in range(2)]
    for job in jobs:
        job.wait_until_served()

    def stored() -> dict[str, str]:
        return {series["run"]: series["exported_run"] for series in prometheus.query("target_info")}

    wanted = {job.run: job.run for job in jobs}
    wait_until(lambda: wanted.keys() <= stored().keys(), "both runs in Prometheus", 60.0)
    assert {run: exported for run, exported in stored().items() if run in wanted} == wanted
    for job in jobs:
        run("scancel", job.number)
        job.wait_until_over()


def test_however_a_job_ends_nothing_of_it_is_left(slurm: Slurm, record_property: Callable[[str, object], None]) -> None:
    """All at the same time, one node each."""
    long = "srun sleep 300"
    ways: dict[str, tuple[Job, list[str] | None]] = {
        "time limit": (slurm.submit("--nodes=1", "--time=1", train=long), None),
        "scancel": (slurm.submit("--nodes=1", train=long), []),
        "scancel --signal=KILL": (slurm.submit("--nodes=1", train=long), ["--signal=KILL"]),
        "scancel --full --signal=KILL": (slurm.submit("--nodes=1", train=long), ["--full", "--signal=KILL"]),
        "scancel --batch --signal=TERM": (slurm.submit("--nodes=1", train=long), ["--batch", "--signal=TERM"]),
        "the training fails": (slurm.submit("--nodes=1", train="srun bash -c 'exit 3'"), None),
        "no exporter on PATH": (slurm.submit("--nodes=1", train="srun true", PATH="/usr/bin:/bin"), None),
    }
    for job, options in ways.values():
        if options is not None:
            job.wait_until_served()
            run("scancel", *options, job.number)
    ended = {}
    for way, (job, _) in ways.items():
        job.wait_until_over()
        ended[way] = (job.state, job.target.exists())
        record_property(f"state after: {way}", f"{job.state}, target left: {job.target.exists()}")
    assert ended == {
        "time limit": ("TIMEOUT", False),
        "scancel": ("CANCELLED", False),
        "scancel --signal=KILL": ("CANCELLED", False),
        "scancel --full --signal=KILL": ("CANCELLED", False),
        # Only the script gets the signal; Slurm counts it as ended by one.
        "scancel --batch --signal=TERM": ("FAILED", False),
        "the training fails": ("FAILED", False),
        "no exporter on PATH": ("COMPLETED", False),
    }
