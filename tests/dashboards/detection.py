"""Measures when each condition and alert first shows in the demo's incidents, for the table in docs/dashboards.md.

``python -m tests.dashboards.detection`` plays every scenario of the demo with Prometheus, one after the other, at the
default intervals, and prints a row per condition and alert: seconds since the fault began. It takes ten minutes per
scenario, so pytest does not run it; ``test_detection.py`` tests what it computes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from exporter.demo.scenarios import HEALTHY, HEALTHY_VERSIONS, SCENARIOS
from exporter.shipped import rules

__all__ = ["BEGINS", "Alert", "Incident", "main", "rows"]

_START_S: Final = 300.0
_FAULT_S: Final = 120.0
_STEP_S: Final = 1.0
_NEVER: Final = "\u2013"
_FLAGS: Final = ("--default-intervals", "--listen", "127.0.0.1:0")

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Alert:
    """When an alert began to wait, and when it fired, seconds since the epoch; None while it has not."""

    pending: float
    firing: float | None = None


@dataclass(slots=True)
class Incident:
    """What was seen of an incident. All times are seconds since the epoch.

    Attributes:
        scenario: Its name in the demo.
        began: When the fault was first to be seen in the exporter's figures, None before.
        conditions: Name of each condition that held after that to when it was first seen.
        alerts: Likewise of alerts.
    """

    scenario: str
    began: float | None = None
    conditions: dict[str, float] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)

    def see(self, now: float, snapshot: Answer, alerts: Sequence[Answer]) -> None:
        """Note what the exporter and Prometheus say at *now*."""
        began = BEGINS[self.scenario](now, snapshot)
        if began is not None and (self.began is None or self.scenario in _LASTS):
            self.began = began
        for one in snapshot["conditions"]:
            if one["holds"] and one["severity"] in ("critical", "warning"):
                self.conditions.setdefault(one["name"], now)
        for alert in alerts:
            name = alert["labels"]["alertname"]
            pending = datetime.fromisoformat(re.sub(r"(\.\d{6})\d*Z$|(?<!\d{6})Z$", r"\1+00:00", alert["activeAt"]))
            known = self.alerts.get(name)
            if known is None or known.firing is None:
                fires = now if alert["state"] == "firing" else None
                self.alerts[name] = Alert(pending.timestamp() if known is None else known.pending, fires)


def _trainer_stopped(now: float, snapshot: Answer) -> float | None:
    """Return *now* until the last group has left: the fault begins with the last departure that is seen."""
    return now if _grown(snapshot, "departed") else None


def _first_arrival(now: float, snapshot: Answer) -> float | None:
    return now if (snapshot["total_flow"] or {}).get("arrived") else None


def _weights_stopped(now: float, snapshot: Answer) -> float | None:
    """Return *now* once the trainer has made the last version that reaches the rollouts."""
    version = snapshot["reference_version"]
    if version is None:
        return None
    return now if version >= _seen.setdefault("version", version) + HEALTHY_VERSIONS else None


_seen: Final[dict[str, int]] = {}


def _grown(snapshot: Answer, counter: str) -> bool:
    value = (snapshot["total_flow"] or {}).get(counter, 0)
    before, _seen[counter] = _seen.get(counter, 0), value
    return bool(value > before)


BEGINS: Final[dict[str, Callable[[float, Answer], float | None]]] = {
    "stalled-trainer": _trainer_stopped,
    "failing-rollouts": _first_arrival,
    "dead-weight-sync": _weights_stopped,
}
"""Scenario to how the exporter's figures tell that the fault has begun: its time, else None."""

_LASTS: Final = ("stalled-trainer",)
"""Those whose fault begins with the last such time, not with the first."""


def rows(incident: Incident) -> Iterator[str]:
    """Return the table's rows, in the order of time.

    The time of an alert that was only pending is reckoned with the rule's ``for``, and says so.
    """
    began = incident.began or 0.0
    first = {name: alert.pending for name, alert in incident.alerts.items()} | incident.conditions
    for name in sorted(first, key=first.__getitem__):
        held, alert = incident.conditions.get(name), incident.alerts.get(name)
        condition = _NEVER if held is None else f"{max(held - began, 0):.0f}"
        yield f"| {incident.scenario} | `{name}` | {condition} | {_alert_cell(name, alert, began)} |"


def _alert_cell(name: str, alert: Alert | None, began: float) -> str:
    if alert is None:
        return _NEVER
    if alert.firing is not None:
        return f"{max(alert.firing - began, 0):.0f}"
    waits = _seconds(str(rules.alerts()[name].get("for", "0s")))
    return f"{max(alert.pending - began, 0) + waits:.0f} (reckoned)"


def _seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)([smh])", duration).groups()  # type: ignore[union-attr]
    return float(number) * {"s": 1, "m": 60, "h": 3600}[unit]


def measure(scenario: str, seconds: float) -> Incident:
    """Play *scenario* and watch it for *seconds* after its fault has begun."""
    incident = Incident(scenario)
    _seen.clear()
    with _stack(scenario) as where:
        until = time.monotonic() + _FAULT_S
        while time.monotonic() < until:
            time.sleep(_STEP_S)
            with suppress(OSError):
                snapshot = _get(f"{where()['exporter']}/api/v1/snapshot")
                prometheus = where().get("prometheus")  # it starts later than the exporter
                alerts = _get(f"{prometheus}/api/v1/alerts")["data"]["alerts"] if prometheus else []
                known = incident.began
                incident.see(time.time(), snapshot, alerts)
                if incident.began is not None and incident.began != known:
                    incident.conditions.clear()
                    incident.alerts.clear()
                    until = time.monotonic() + seconds
    return incident


@contextmanager
def _stack(scenario: str) -> Iterator[Callable[[], dict[str, str]]]:
    """Run the stack; return, once the exporter is up, a function that says where what is up so far is."""
    with tempfile.TemporaryDirectory(prefix="tqd") as folder:  # short: Ray puts Unix sockets into it
        out = Path(folder, "out")
        with out.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "exporter.demo.stack", "--scenario", scenario, *_FLAGS],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": folder},
                start_new_session=True,
            )

        def where() -> dict[str, str]:
            return dict(re.findall(r"^(\S+) +(http://[^/\s]+)", out.read_text(), re.MULTILINE))

        try:
            until = time.monotonic() + _START_S
            while "exporter" not in where():
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"the stack did not start:\n{out.read_text()}")
                time.sleep(_STEP_S)
            yield where
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the rows."""
    parser = argparse.ArgumentParser(prog="python -m tests.dashboards.detection")
    names = [name for name in SCENARIOS if name != HEALTHY]
    parser.add_argument("--scenario", choices=names, action="append", help="only this one; repeat for more")
    parser.add_argument("--seconds", type=float, default=480.0, help="how long to watch each (default: %(default)g)")
    options = parser.parse_args(arguments)
    sys.stdout.write("| scenario | what | condition, s | alert, s |\n|---|---|---|---|\n")
    for scenario in options.scenario or names:
        for row in rows(measure(scenario, options.seconds)):
            sys.stdout.write(row + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
