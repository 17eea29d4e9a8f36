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
    "controller stopped": "The same client works when it runs on.",
    "controller killed": "Close the client; make a new one when TransferQueue runs again.",
    "controller replaced": "Close the client and make a new one: this one never touches the new controller.",
    "storage unit stopped": "The same client works when it runs on.",
    "storage unit killed": "TransferQueue replaces no storage unit: start TransferQueue anew, then make a new client.",
    "all storage killed": "The same.",
    "client closed": "Make a new client.",
    "Ray gone": "Close the client; make a new one, in a new process, when Ray and TransferQueue run again.",
}
"""Each fault with the remedy that its error names, in the order of the columns."""

_CALLS: Final = (*CALLS, "attach", "close")

_HEAD: Final = """\

# Reliability: the client

What each call of `TransferQueueDataPlaneClient` ends in under each fault, and how long it took. Calls that a fault
concerns had a deadline (`timeout_s`) of 0.3 s, and of 0.5 s where Ray is gone; all others had 60 s and worked (ok).
The names are those of `dataplane.errors` without `DataPlane`. No call raised anything else, and each error of a call
that changes something said "outcome unknown", unless the call was refused at once. "Attach" is a new client.
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
        lines += ["", "| fault | what the error says about the next call, and what was then seen |", "|---|---|"]
        lines += [f"| {fault} | {FAULTS[fault]} |" for fault in faults]
    if leaks:
        lines += ["", "What 1,000 timeouts from four threads left behind, after 200 to warm up:", ""]
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

    return f"Seen on {all_of('date')} at commit {all_of('commit')}, with {all_of('versions')}."


def _write(folder: str | None, record: dict[str, Any]) -> None:
    if folder is None:
        return
    own = Path(folder) / "adapter"
    own.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", record.get("fault") or f"left by {record['leaks']}")
    (own / f"{name}.json").write_text(json.dumps({**record, **provenance()}, indent=1) + "\n")
