"""A dockerd of the tests' own, with its data in a folder that goes away."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.engines.machine import ROOT, daemon, run
from tests.support.waiting import wait_until

__all__ = ["LOCKED_DOWN", "Container", "Docker", "answers", "build_arguments", "commit"]

LOCKED_DOWN = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "768m")
"""How docs/deploy.md says that the image can run."""


@functools.cache
def commit() -> str:
    """Return the commit that the tests build."""
    return run("git", "rev-parse", "--short=12", "HEAD", cwd=ROOT).strip()


def build_arguments(target: str, tag: str) -> tuple[str, ...]:
    """Return the arguments of a documented build of this repository's Dockerfile."""
    return ("--network", "host", "--build-arg", f"COMMIT={commit()}", "--target", target, "--tag", tag, str(ROOT))


def answers(port: int, path: str) -> bool:
    """Return whether an exporter on this machine answers *path* with 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


class Docker:
    """The client of that dockerd. Call it with the arguments of ``docker``."""

    def __init__(self, folder: Path) -> None:
        self.env = {"DOCKER_HOST": f"unix://{folder}/sock"}
        self.program = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"

    @classmethod
    @contextmanager
    def started(cls, folder: Path, *prefix: str) -> Iterator[Docker]:
        """Start dockerd, by the command *prefix* if one is given; end it and its containers at the end of the block."""
        folder.mkdir()
        settings = {
            "data-root": f"{folder}/data",
            "exec-root": f"{folder}/exec",
            "pidfile": f"{folder}/pid",
            "hosts": [f"unix://{folder}/sock"],
            # It touches no firewall rule and makes no network: containers use the host's.
            "iptables": False,
            "ip6tables": False,
            "bridge": "none",
        }
        (folder / "daemon.json").write_text(json.dumps(settings))
        command: tuple[str | Path, ...] = (*prefix, "dockerd", "--config-file", folder / "daemon.json")
        with daemon(*command, log=folder / "log") as process:
            docker = cls(folder)

            def is_up() -> bool:
                assert process.poll() is None, (folder / "log").read_text()[-3000:]
                return docker.succeeds("version")

            wait_until(is_up, "dockerd")
            yield docker
        subprocess.run(["umount", f"{folder}/exec/netns/default"], capture_output=True, check=False)

    def __call__(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        """Run a command and return what it printed."""
        return run(self.program, *arguments, env={**self.env, **(env or {})}, timeout_s=800).strip()

    def succeeds(self, *arguments: str) -> bool:
        """Return whether a command ends with 0."""
        command = [self.program, *arguments]
        return subprocess.run(command, env={**os.environ, **self.env}, capture_output=True, check=False).returncode == 0

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what Docker knows about a container or an image."""
        [found] = json.loads(self("inspect", name))
        return dict(found)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[Container]:
        """Run a container on the host's network in the background; remove it at the end of the block."""
        name = self("run", "--detach", "--network", "host", *arguments)
        try:
            yield Container(self, name)
        finally:
            self("rm", "--force", name)


class Container:
    """A running container."""

    def __init__(self, docker: Docker, name: str) -> None:
        self._docker = docker
        self.name = name

    @property
    def pid(self) -> int:
        """The process id of its first process on this machine."""
        return int(self._docker.inspect(self.name)["State"]["Pid"])

    @property
    def health(self) -> str:
        """The verdict of its health checks."""
        return str(self._docker.inspect(self.name)["State"]["Health"]["Status"])

    @property
    def log(self) -> str:
        """What it has logged; the exporter logs on standard error."""
        command = [self._docker.program, "logs", self.name]
        environment = {**os.environ, **self._docker.env}
        return subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
        ).stdout

    def status(self, field: str) -> str:
        """Return a line of ``/proc/PID/status``."""
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        return lines[field].strip()

    def wait_for(self, condition: Any, what: str, timeout_s: float = 60.0) -> None:
        """Wait for a condition; fail with the container's log."""
        try:
            wait_until(condition, what, timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log[-2000:]}") from None
