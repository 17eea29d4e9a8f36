"""A machine with a real systemd, in a privileged container on this machine's network."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.engines.containers.podman import Podman
from tests.engines.machine import ROOT
from tests.support.waiting import wait_until

__all__ = ["Machine"]


class Machine:
    """A running systemd that has this environment's tq-exporter under /opt, as docs/deploy.md installs it."""

    def __init__(self, podman: Podman, name: str) -> None:
        self._podman = podman
        self._name = name

    @classmethod
    @contextmanager
    def booted(cls, podman: Podman, tree: Path, discovery: Path) -> Iterator[Machine]:
        """Boot it.

        Args:
            podman: What runs it.
            tree: A Debian with systemd, as a tar archive.
            discovery: The folder that it sees as ``/discovery``.
        """
        podman("import", "--quiet", "--change", "STOPSIGNAL SIGRTMIN+3", tree, "localhost/systemd")
        needed = {ROOT, Path(sys.prefix), Path(sys.base_prefix), *map(Path, filter(os.path.isdir, sys.path))}
        seen = {path for path in needed if path != Path("/usr") and needed.isdisjoint(path.parents)}
        mounts = [word for path in seen for word in ("--volume", f"{path}:{path}:ro")]
        mounts += ["--volume", f"{discovery}:/discovery:ro"]
        options = ["--detach", "--systemd", "always", "--privileged", "--network", "host", *mounts]
        name = podman("run", *options, "localhost/systemd", "/sbin/init")
        try:
            machine = cls(podman, name)
            machine.wait_for("systemctl is-system-running | grep -qE 'running|degraded'")
            # systemd's users may not look into root's home, where the interpreter of a test environment may be.
            machine.sh(f"chmod 755 /root; ln -s {shlex.quote(sys.prefix)} /opt/tq-exporter; mkdir /etc/tq-exporter")
            unit = (ROOT / "docs" / "deploy" / "tq-exporter.service").read_text()
            machine.write("/etc/systemd/system/tq-exporter.service", unit)
            yield machine
        finally:
            podman("rm", "--force", "--time", "5", name)

    def sh(self, script: str) -> str:
        """Run a shell script as root; return what it prints."""
        return self._podman("exec", self._name, "bash", "-euc", script)

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        self.sh(f"mkdir -p $(dirname {path}); printf %s {shlex.quote(text)} > {path}; systemctl daemon-reload")

    def show(self, name: str) -> str:
        """Return a property of the unit."""
        return self.sh(f"systemctl show --property {name} --value tq-exporter")

    def wait_for(self, condition: str, timeout_s: float = 90.0) -> None:
        """Wait until a shell command succeeds; fail with the unit's log."""
        try:
            wait_until(lambda: self._podman.succeeds("exec", self._name, "bash", "-c", condition), condition, timeout_s)
        except AssertionError as error:
            log = "journalctl --no-pager -n 40 -u tq-exporter -u training; systemctl status tq-exporter || true"
            raise AssertionError(f"{error}\n{self.sh(log)}") from None
