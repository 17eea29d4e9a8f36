"""``python -m exporter.demo.stack`` (``make stack``): the demo with a Prometheus and an Alertmanager, on loopback.

Both come from the Debian packages that ``.ci/tools`` installs, and run on the files of this package. Flags other than
``--duration`` are the demo's; with ``--default-intervals`` Prometheus too scrapes as in production, every 15 s. No
process is left behind, however the command ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml

from dataplane.visible import visible, visible_lines
from exporter.demo import processes
from exporter.demo.cli import DURATION, checked
from exporter.shipped import rules

__all__ = ["StackError", "alertmanager_command", "free_port", "main", "prometheus_command", "prometheus_config"]

_DEMO_STARTS_S: Final = 240.0
_DEMO_ENDS_S: Final = 60.0
_READY_S: Final = 60.0
_STEP_S: Final = 0.2
_WHERE: Final = re.compile(r"^(\S+) +http://(\S+)/metrics$", re.MULTILINE)


class StackError(RuntimeError):
    """The stack cannot start or continue. The text tells the user why."""


def prometheus_config(
    jobs: Mapping[str, Sequence[str]],
    rule_folder: Path,
    alertmanager: str,
    *,
    interval: str = "5s",
    run: str | None = None,
) -> str:
    """Return a configuration of Prometheus.

    Args:
        jobs: Name to the addresses that it scrapes.
        rule_folder: Where the rule files are.
        alertmanager: Its address.
        interval: Time between scrapes, and between rule evaluations.
        run: The label ``run`` of every target.
    """
    labels = {} if run is None else {"run": run}
    return yaml.safe_dump(
        {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(rule_folder / name) for name in rules.FILES],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
            "scrape_configs": [
                {"job_name": name, "static_configs": [{"targets": list(targets), "labels": labels}]}
                for name, targets in jobs.items()
            ],
        },
        sort_keys=False,
    )


def prometheus_command(config: Path, data: Path, port: int) -> list[str]:
    """Return the command that starts Prometheus on loopback."""
    return [
        _found("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]


def alertmanager_command(config: Path, data: Path, port: int) -> list[str]:
    """Return the command that starts Alertmanager on loopback, without a cluster."""
    return [
        _found("prometheus-alertmanager", "alertmanager"),
        f"--config.file={config}",
        f"--storage.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]


def free_port() -> int:
    """Return a free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stack; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m exporter.demo.stack", allow_abbrev=False)
    parser.add_argument(
        "--duration",
        type=checked(DURATION),
        metavar="DURATION",
        help="stop after this time; by default, run until Ctrl-C",
    )
    options, demo_flags = parser.parse_known_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    folder = Path(tempfile.mkdtemp(prefix="tqstack"))
    stack = _Stack(folder, stop)
    try:
        stack.run(demo_flags, options.duration)
    except StackError as error:
        sys.stderr.write(f"stack: {visible_lines(str(error))}\n")
        return 1
    finally:
        stack.end()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


class _Stack:
    def __init__(self, folder: Path, stop: threading.Event) -> None:
        self._folder = folder
        self._stop = stop
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, demo_flags: Sequence[str], duration: float | None) -> None:
        processes.adopt_orphans()
        targets = self._start_demo(demo_flags)
        if targets is None:
            return
        rules.write(self._folder / "rules")
        prometheus, alertmanager = free_port(), free_port()
        jobs = {
            "tq-exporter": [targets.pop("exporter")],
            "trainer": [address for name, address in targets.items() if name == "trainer"],
            "rollout": [address for name, address in targets.items() if name != "trainer"],
        }
        config = self._folder / "prometheus.yaml"
        interval = "15s" if "--default-intervals" in demo_flags else "5s"
        written = prometheus_config(
            jobs, self._folder / "rules", f"127.0.0.1:{alertmanager}", interval=interval, run="demo"
        )
        config.write_text(written)
        route = self._folder / "rules" / "alertmanager.yaml"
        self._start("alertmanager", alertmanager_command(route, self._folder / "alertmanager", alertmanager))
        self._start("prometheus", prometheus_command(config, self._folder / "prometheus", prometheus))
        for name, port in (("prometheus", prometheus), ("alertmanager", alertmanager)):
            if not self._wait_until_ready(name, port):
                return
            _say(f"{name:<12} http://127.0.0.1:{port}/" + ("alerts" if name == "prometheus" else ""))
        if not self._wait_until_scraped(prometheus, sum(map(len, jobs.values()))):
            return
        _say("runs until Ctrl-C" if duration is None else f"runs for {duration:g} s")
        ends = None if duration is None else time.monotonic() + duration
        while not self._stop.wait(_STEP_S) and (ends is None or time.monotonic() < ends):
            self._check()

    def end(self) -> None:
        """Stop everything. The demo gets SIGTERM and shuts itself down."""
        if not self._children:
            return
        _say("stopping …")
        for child in self._children.values():
            if child.poll() is None:
                child.terminate()
        processes.end_all(list(self._children.values()), _DEMO_ENDS_S)

    def _start_demo(self, flags: Sequence[str]) -> dict[str, str] | None:
        _say("starting the demo …")
        listen = [] if any(flag.startswith("--listen") for flag in flags) else ["--listen", "127.0.0.1:0"]
        command = [sys.executable, "-m", "exporter.cli", "demo", *listen, *flags]
        log = self._start("demo", command)
        deadline = time.monotonic() + _DEMO_STARTS_S
        while not self._stop.wait(_STEP_S):
            self._check()
            out = log.read_text(errors="replace")
            if re.search(r"^logs +", out, re.MULTILINE):
                found = dict(_WHERE.findall(out))
                for name, address in found.items():
                    _say(f"{name:<12} http://{address}/metrics")
                return found
            if time.monotonic() > deadline:
                raise StackError(f"the demo did not start within {_DEMO_STARTS_S:g} s:\n{out}")
        return None

    def _start(self, name: str, command: Sequence[str]) -> Path:
        log = self._folder / f"{name}.log"
        log.touch()
        env = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._children[name] = processes.start(command, env=env, log=log)
        return log

    def _check(self) -> None:
        for name, child in self._children.items():
            if child.poll() is not None:
                log = (self._folder / f"{name}.log").read_text(errors="replace")
                raise StackError(f"{name} exited unexpectedly:\n{log[-3000:]}")

    def _wait_until_ready(self, name: str, port: int) -> bool:
        deadline = time.monotonic() + _READY_S
        while not self._stop.wait(_STEP_S):
            self._check()
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2).close()
                return True
            if time.monotonic() > deadline:
                raise StackError(f"{name} was not ready within {_READY_S:g} s")
        return False

    def _wait_until_scraped(self, port: int, targets: int) -> bool:
        """Wait for the first successful scrape of every target, so that a short run shows data."""
        deadline = time.monotonic() + _READY_S
        while not self._stop.wait(_STEP_S):
            self._check()
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/targets", timeout=5) as answer:
                    found = [target["health"] for target in json.load(answer)["data"]["activeTargets"]]
                if found == ["up"] * targets:
                    return True
            if time.monotonic() > deadline:
                raise StackError(f"Prometheus did not scrape all {targets} targets within {_READY_S:g} s")
        return False


def _found(*names: str) -> str:
    for name in names:
        if (path := shutil.which(name)) is not None:
            return path
    raise StackError(f"{names[0]} is not installed: run .ci/tools, or apt-get install {names[0]}")


def _say(text: str) -> None:
    sys.stdout.write(visible(text) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
