"""A Slurm of four nodes on this machine, with its own munge, in a folder that goes away."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from exporter.demo.stack import free_port
from tests.engines.machine import ROOT, daemon, run
from tests.support.waiting import wait_until

__all__ = ["Job", "Slurm"]

_NODES = ("n1", "n2", "n3", "n4")
_CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/sock/munge
CredType=cred/munge
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool.%n
SlurmdParameters=config_overrides
CommunicationParameters=NoInAddrAny
ProctrackType={tracking}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
MinJobAge=3600
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Job:
    """A job that was submitted with the documented batch script."""

    def __init__(self, slurm: Slurm, number: str) -> None:
        self._slurm = slurm
        self.number = number
        self.run = f"grpo-{number}"
        self.target = slurm.shared / "targets" / f"{self.run}.json"

    @property
    def state(self) -> str:
        """Slurm's word for its state."""
        found = re.search(r"JobState=(\w+)", run("scontrol", "show", "job", self.number))
        assert found is not None
        return found[1]

    @property
    def is_over(self) -> bool:
        """Whether Slurm has ended all of its processes."""
        return (
            self.state not in ("PENDING", "RUNNING", "COMPLETING")
            and not run("squeue", "-h", "-j", self.number, "-t", "all", "-o", "%T").replace(self.state, "").strip()
        )

    @property
    def log(self) -> str:
        """The batch script's output and the exporter's log."""
        files = (self._slurm.jobs / f"slurm-{self.number}.out", self._slurm.shared / self.run / "exporter.log")
        return "\n".join(file.read_text() for file in files if file.exists())

    def processes(self) -> list[str]:
        """Return the command lines of the exporters that follow this job's record, and of what has that file open."""
        listed = run("ps", "-eo", "args").splitlines()
        return [line for line in listed if f"/{self.run}/endpoint.json" in line]

    def wait_until_served(self) -> None:
        """Wait until the batch script has announced the exporter."""
        self._wait(self.target.exists, "the target")

    def wait_until_over(self) -> None:
        """Wait until the job is over, and check that it has left no process behind."""
        self._wait(lambda: self.is_over, "the end of the job")
        self._wait(lambda: not self.processes(), "the end of the exporter")

    def _wait(self, condition: object, what: str) -> None:
        assert callable(condition)
        try:
            wait_until(condition, f"{what} of job {self.number}", 150.0)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.state}\n{self.log[-3000:]}") from None


class Slurm:
    """The cluster. ``shared`` is the folder that nodes and Prometheus can read, ``jobs`` that of the batch script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shared = folder / "shared"
        self.jobs = folder / "jobs"
        programs = folder / "bin"
        for path in (self.shared, self.jobs, programs):
            path.mkdir()
        shutil.copy(ROOT / "docs" / "deploy" / "train.sbatch", self.jobs)
        (programs / "tq-exporter").symlink_to(Path(sys.executable).parent / "tq-exporter")
        self.path = f"{programs}:/usr/bin:/bin:/usr/sbin:/sbin"

    @classmethod
    @contextmanager
    def started(cls, folder: Path) -> Iterator[Slurm]:
        """Start munge, the controller and the nodes; end them and all jobs at the end of the block."""
        for name in ("munge", "sock", "state", "log", *(f"spool.{node}" for node in _NODES)):
            (folder / name).mkdir(parents=True)
        slurm = cls(folder)
        configuration = slurm._configure()
        os.environ["SLURM_CONF"] = str(configuration)
        with ExitStack() as daemons:

            def start(name: str, *command: str) -> None:
                daemons.enter_context(daemon(*command, log=folder / "log" / name))

            start("munged", *slurm._munge())
            socket_path = str(folder / "sock" / "munge")
            wait_until(lambda: _succeeds("munge", "-S", socket_path, "-n"), "munged", 30.0)
            start("slurmctld", "slurmctld", "-D", "-c")
            for node in _NODES:
                start(node, "slurmd", "-D", "-N", node)
            wait_until(lambda: _output("sinfo", "-h", "-t", "idle", "-o", "%D") == "4", "four idle nodes", 90.0)
            try:
                yield slurm
            finally:
                run("scancel", "--full", "-u", "root")
                wait_until(lambda: not _output("squeue", "-h"), "the end of all jobs", 60.0)
                del os.environ["SLURM_CONF"]

    def submit(self, *options: str, train: str | None = None, **variables: str) -> Job:
        """Submit the documented script, whose training is *train*; None for its own: ``srun bash train.sh``."""
        env = {"PATH": self.path, "TQ_SHARED": str(self.shared), **variables}
        if train is not None:
            env["TQ_TRAIN"] = train
        return Job(self, run("sbatch", "--parsable", *options, "train.sbatch", cwd=self.jobs, env=env).strip())

    def _configure(self) -> Path:
        # Without cgroups of version 1 Slurm finds a job's processes by their parents.
        tracking = "proctrack/cgroup" if Path("/sys/fs/cgroup/freezer").exists() else "proctrack/linuxproc"
        host = socket.gethostname().partition(".")[0]
        text = _CONFIGURATION.format(host=host, folder=self.folder, port=free_port(), tracking=tracking)
        for node in _NODES:
            text += (
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={free_port()} CPUs=2 RealMemory=1000\n"
            )
        cgroups = "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nCgroupAutomount=no\n"
        (self.folder / "cgroup.conf").write_text(cgroups)
        path = self.folder / "slurm.conf"
        path.write_text(text)
        return path

    def _munge(self) -> list[str]:
        """Return the command of munged, which runs as its own user."""
        (self.folder / "munge" / "key").write_bytes(secrets.token_bytes(1024))
        self.folder.chmod(0o755)
        run("chown", "-R", "munge:munge", self.folder / "munge", self.folder / "sock")
        run("chmod", "700", self.folder / "munge")
        run("chmod", "400", self.folder / "munge" / "key")
        files = {"key-file": "munge/key", "socket": "sock/munge", "pid-file": "munge/pid", "log-file": "munge/log"}
        options = [f"--{name}={self.folder}/{file}" for name, file in {**files, "seed-file": "munge/seed"}.items()]
        return ["setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups", "munged", "--foreground", *options]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
