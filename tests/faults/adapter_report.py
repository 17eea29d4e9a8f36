"""The client's section of ``docs/reliability.md``: the outcome of its calls under each fault, and what they leaked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.faults.adapter_calls import CALLS, Outcome
from tests.faults.report import provenance

__all__ = ["FAULTS", "section", "write_calls", "write_leaks"]

FAULTS: Final[Mapping[str, str]] = {
    "controller stopped": "Keep the client: it works again when the controller continues.",
    "controller killed": "Close the client. Make a new one when TransferQueue runs again.",
    "controller replaced": "Close the client and make a new one. The old client never connects to the new controller.",
    "storage unit stopped": "Keep the client: it works again when the storage unit continues.",
    "storage unit killed": "TransferQueue cannot replace a unit. Restart TransferQueue, then make a new client.",
    "all storage killed": "TransferQueue cannot replace units. Restart TransferQueue, then make a new client.",
    "client closed": "Make a new client.",
    "Ray gone": "Close the client. When Ray and TransferQueue run again, make a new one in a new process.",
}
"""Each fault and the remedy that the error names, in the order of the columns."""

_CALLS: Final = (*CALLS, "attach", "close")

_HEAD: Final = """\

# Reliability: the client

The result of each call of `TQDataPlaneClient` under each fault, and its duration. Calls that the fault
affects had a deadline (`timeout_s`) of 0.3 s, or of 0.5 s if Ray is gone. All others had 60 s and succeeded (ok). The
error names are those of `dataplane.errors` without `DataPlane`. No call raised another error. The error of a call that
changes something says "outcome unknown", unless the call was refused immediately. `attach` builds a new client.
"""


def write_calls(folder: str | None, fault: str, outcomes: Mapping[str, Outcome]) -> None:
    """Record the outcomes of the calls under *fault*. Does nothing without a *folder*."""
    cells = {name: [outcome.kind, outcome.seconds] for name, outcome in outcomes.items()}
    _write(folder, {"fault": fault, "calls": cells})


def write_leaks(folder: str | None, what: str, grown: Mapping[str, float]) -> None:
    """Record how much the process's resources had *grown* after a thousand timeouts of *what*."""
    _write(folder, {"leaks": what, "grown": dict(grown)})


def section(folder: Path) -> str:
    """Return the section for the records in *folder*, empty when there are none."""
    records: list[dict[str, Any]] = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    calls = {record["fault"]: record["calls"] for record in records if "fault" in record}
    leaks = {record["leaks"]: record["grown"] for record in records if "leaks" in record}
    lines = []
    if calls:
        faults = [fault for fault in FAULTS if fault in calls]
        lines += [_HEAD, _origin(records), ""]
        lines += [f"| call | {' | '.join(faults)} |", "|---" * (len(faults) + 1) + "|"]
        lines += [f"| `{name}` | {' | '.join(_cell(calls[fault].get(name)) for fault in faults)} |" for name in _CALLS]
        lines += ["", "| fault | remedy that the error names; the test checks that it works |", "|---|---|"]
        lines += [f"| {fault} | {FAULTS[fault]} |" for fault in faults]
    if leaks:
        lines += [
            "",
            "Growth of the process after 1,000 timeouts from four threads, after a warm-up of 200 timeouts:",
            "",
        ]
        lines += ["| calls that timed out | threads | descriptors | RSS |", "|---|---|---|---|"]
        lines += [
            f"| {what} | {grown['threads']:+} | {grown['descriptors']:+} | {grown['rss_bytes'] / 2**20:+.1f} MiB |"
            for what, grown in leaks.items()
        ]
    return "\n".join(lines) + "\n" if lines else ""


def _cell(outcome: list[Any] | None) -> str:
    if outcome is None:
        return "not tried"
    kind, seconds = outcome
    return "ok" if kind == "ok" else f"{kind.removeprefix('DataPlane')} {seconds:.2f} s"


def _origin(records: list[dict[str, Any]]) -> str:
    def all_of(key: str) -> str:
        return " and ".join(sorted({record[key] for record in records}))

    return f"Run on {all_of('date')} at commit {all_of('commit')}, with {all_of('versions')}."


def _write(folder: str | None, record: dict[str, Any]) -> None:
    if folder is None:
        return
    own = Path(folder) / "adapter"
    own.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", record.get("fault") or f"left by {record['leaks']}")
    (own / f"{name}.json").write_text(json.dumps({**record, **provenance()}, indent=1) + "\n")
