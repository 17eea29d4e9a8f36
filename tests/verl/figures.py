"""What the exporter has to say of a partition, from verl's own state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from statistics import mean
from typing import Any

__all__ = ["expected", "reported"]

_RANGES = {"5-8": range(5, 9), "9+": range(9, 10**6)}


def expected(verl: Mapping[str, Any], weights: int, *, takes_failed: bool) -> dict[str, Any]:
    """Return the figures of one partition.

    Args:
        verl: What the probe noted of it.
        weights: The version of the weights on the server that serves the rollouts.
        takes_failed: Whether verl samples groups of which a session failed, as it does where it cannot replace them.
    """
    versions, steps = verl["versions"], verl["steps"]
    # A prompt without trajectories cannot be trained on: for verl it fills a place of the batch and vanishes.
    ready = [uid for uid in {*verl["sampleable"], *verl["stale"]} if versions.get(uid)]
    failed = [uid for uid in verl["failed"] if not (takes_failed and versions.get(uid))]
    groups = [*verl["unfinished"], *ready, *verl["held"]]
    # By the weights of its oldest trajectory; before there is one, as verl counts it: from the step of its prompt.
    made_by = [_oldest(versions[uid]) if versions.get(uid) else steps[uid] - 1 for uid in groups]
    known = [version for version in made_by if version is not None]
    lags = [weights - version for version in known]
    prompts = [uid for uid in [*groups, *failed] if uid in steps]
    return {
        "groups": {
            "uncommitted": len(verl["unfinished"]),
            "incomplete": 0,
            "ready": len(ready),
            "taken": len(verl["held"]),
            "failed": len(failed),
        },
        "keys": len(prompts) + sum(len(rows) for rows in versions.values()),
        "rows": len(steps) + sum(len(rows) for rows in versions.values()) + verl["padding"],
        "lags": dict(Counter([_bucket(lag) for lag in lags] + ["unknown"] * (len(groups) - len(known)))),
        "largest lag": max(lags, default=None),
        "mean lag": mean(lags) if lags else None,
        "newest version": max(known, default=None),
        "oldest version": min(known, default=None),
        "malformed": 0,
        "orphaned": 0,
        "arrived": verl["submitted"],
        "completed": verl["removed"] + len(verl["held"]) + len(ready),
        "removed": verl["removed"],
    }


def reported(snapshot: Mapping[str, Any], partition: str) -> dict[str, Any]:
    """Return the same figures as the exporter has them."""
    (state,) = [one for one in snapshot["partitions"] if one["partition"] == partition]
    (flow,) = [one for one in snapshot["flows"] if one["partition"] == partition]
    return {
        "groups": state["groups"],
        "keys": state["keys"],
        "rows": state["rows"],
        "lags": {lag: count for lag, count in state["staleness"].items() if count},
        "largest lag": state["staleness_max"],
        "mean lag": state["staleness_mean"],
        "newest version": state["newest_version"],
        "oldest version": state["oldest_version"],
        "malformed": state["malformed_rows"] + state["bare_rows"],
        "orphaned": state["orphaned"],
        "arrived": flow["arrived"],
        "completed": flow["completed"],
        "removed": flow["departed_by_state"]["taken"],
    }


def _oldest(versions: list[int | None]) -> int | None:
    return min((version for version in versions if version is not None), default=None)


def _bucket(lag: int) -> str:
    return next((name for name, lags in _RANGES.items() if lag in lags), str(lag)) if lag >= 0 else "ahead"
