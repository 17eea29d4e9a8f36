"""Podman with its storage in a folder that goes away."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.engines.machine import run
from tests.support.waiting import wait_until

__all__ = ["Podman", "Pod"]

# Some machines do not let root raise a limit, and have cgroups that runc takes and older releases of crun do not.
_CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=30000:30000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


class Podman:
    """Call it with the arguments of ``podman``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        storage = f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/root"\nrunroot = "{folder}/run"\n'
        (folder / "storage.conf").write_text(storage)
        (folder / "containers.conf").write_text(_CONTAINERS_CONF)
        files = {"CONTAINERS_STORAGE_CONF": "storage.conf", "CONTAINERS_CONF": "containers.conf"}
        self.env = {name: f"{folder}/{file}" for name, file in files.items()}

    @classmethod
    @contextmanager
    def made(cls, folder: Path) -> Iterator[Podman]:
        """Remove all that it has made at the end of the block."""
        folder.mkdir()
        podman = cls(folder)
        try:
            yield podman
        finally:
            # Not `podman system reset`, which takes two minutes here: the folder goes away with the images.
            podman("pod", "rm", "--all", "--force", "--time", "0")
            podman("rm", "--all", "--force", "--time", "0")
            podman("network", "prune", "--force")
            for mount in reversed(Path("/proc/self/mounts").read_text().split()[1::6]):
                if Path(mount).is_relative_to(folder):
                    run("umount", "--lazy", mount)

    def __call__(self, *arguments: str | Path, timeout_s: float = 300.0) -> str:
        """Run a command and return what it printed."""
        return run("podman", *arguments, env=self.env, timeout_s=timeout_s).strip()

    def succeeds(self, *arguments: str) -> bool:
        """Return whether a command ends with 0."""
        command = ["podman", *arguments]
        return subprocess.run(command, env={**os.environ, **self.env}, capture_output=True, check=False).returncode == 0

    @contextmanager
    def playing(self, objects: Sequence[dict[str, Any]], container: str) -> Iterator[Pod]:
        """Start the pod in *objects* as Kubernetes would, and remove it at the end of the block.

        Args:
            objects: Kubernetes objects, one of them a Pod or a Deployment.
            container: The name of the exporter's container in that pod.
        """
        file = self._folder / "play.yaml"
        file.write_text(yaml.safe_dump_all(objects))
        try:
            self("kube", "play", file)
            names = self("ps", "--all", "--format", "{{.Names}}").split()
            [name] = [name for name in names if name.endswith(f"-{container}")]
            yield Pod(self, name)
        finally:
            self("pod", "rm", "--all", "--force", "--time", "0")
            self("volume", "prune", "--force")


class Pod:
    """A running pod, seen from its exporter's container."""

    def __init__(self, podman: Podman, name: str) -> None:
        self._podman = podman
        self.name = name

    def inspect(self, path: str) -> str:
        """Return what podman knows about the container, by a Go template."""
        return self._podman("inspect", self.name, "--format", f"{{{{{path}}}}}")

    def execute(self, *command: str) -> bool:
        """Return whether a command in the container ends with 0."""
        return self._podman.succeeds("exec", self.name, *command)

    def output(self, *command: str) -> str:
        """Return what a command in the container prints."""
        return self._podman("exec", self.name, *command)

    @property
    def log(self) -> str:
        """What the container has logged, on both streams."""
        environment = {**os.environ, **self._podman.env}
        command = ["podman", "logs", self.name]
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
        ).stdout

    def status(self, field: str) -> str:
        """Return a line of ``/proc/PID/status``."""
        text = Path(f"/proc/{self.inspect('.State.Pid')}/status").read_text()
        return dict(line.split(":", 1) for line in text.splitlines())[field].strip()

    def wait_for(self, condition: Any, what: str, timeout_s: float = 90.0) -> None:
        """Wait for a condition; fail with the container's log."""
        try:
            wait_until(condition, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log[-2000:]}") from None
