"""What the data plane costs per training step: from snapshots of one process, or of all workers together.

    metrics = client.get_step_metrics(step_time_s)                         # one process

    merged = merge_snapshots([client.snapshot() for each worker])          # all of them
    metrics = cluster_step_metrics(merged, previous, step_time_s)

The names of the series and functions are those that NeMo RL's trainer logs and calls. ``step/`` is a difference over
the step, ``now/`` a level at its end; times are in milliseconds, volumes in megabytes (1e6 bytes). What cannot be
known, such as a percentile of three calls, is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

__all__ = ["breakdown_table", "cluster_step_metrics", "headline_series", "merge_snapshots", "step_metrics"]

_MAXIMA: Final = ("max_ms", "step_max_ms")
_PERCENTILES: Final = (("p50_ms", 0.5, 20), ("p90_ms", 0.9, 40))  # with the calls that each needs to mean anything
_COLUMNS: Final = (
    "time_pct", "calls", "wall_ms", "mean_ms", "max_ms", "p50_ms", "p90_ms", "overhead_ms", "transfer_ms", "mb",
)  # fmt: skip
_HEADLINES: Final = (
    "step/wall_ms",
    "step/frac_of_step",
    "step/comm_volume_mb",
    "now/bytes_outstanding_mb",
    "now/n_processes",
)
_NOT_OPERATIONS: Final = ("time_pct", "self")


def merge_snapshots(snapshots: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one snapshot of several processes: counts and histograms are summed, longest calls are maxima.

    ``peak_bytes_outstanding`` is the sum of the processes' peaks, an upper bound: they need not have coincided.

    Args:
        snapshots: One :meth:`~dataplane.observability.MetricsDataPlaneClient.snapshot` per process.

    Returns:
        A snapshot with ``n_processes``; empty when there are no snapshots.
    """
    merged: dict[str, Any] = {}
    for snapshot in snapshots:
        _add({"n_processes": 1, **snapshot}, merged)
    if merged:
        merged["outstanding_scope"] = "these processes"
    return merged


def _add(snapshot: Mapping[str, Any], into: dict[str, Any]) -> None:
    for key, value in snapshot.items():
        if isinstance(value, Mapping):
            _add(value, into.setdefault(key, {}))
        elif key == "bounds_s" or isinstance(value, str):
            into[key] = value
        elif isinstance(value, list):
            into[key] = [a + b for a, b in zip(value, into.get(key) or [0] * len(value), strict=True)]
        elif key in _MAXIMA:
            into[key] = max(value, into.get(key, 0.0))
        else:
            into[key] = into.get(key, 0) + value


def cluster_step_metrics(
    merged: Mapping[str, Any], prev: Mapping[str, Any], step_time_s: float, collect_ms: float = 0.0
) -> dict[str, float]:
    """Return the metrics of one step of several processes.

    Args:
        merged: Their snapshots, merged, at the end of the step.
        prev: The same at the end of the step before; empty at the first.
        step_time_s: How long the step took.
        collect_ms: How long it took to gather and merge the snapshots.
    """
    metrics = step_metrics(merged, prev, step_time_s)
    metrics["now/n_processes"] = merged.get("n_processes", 1)
    if collect_ms > 0:
        metrics["step/self/overhead_ms"] = collect_ms
        if metrics["step/wall_ms"] > 0:
            metrics["step/self/frac"] = collect_ms / metrics["step/wall_ms"]
    return metrics


def step_metrics(now: Mapping[str, Any], before: Mapping[str, Any], step_time_s: float) -> dict[str, float]:
    """Return what happened between two snapshots of a step that took *step_time_s* seconds.

    ``step/frac_of_step`` is the mean share of the step that a process spent in the data plane.
    ``step/time_pct/by_op`` divides the data plane's time among its operations, ``step/time_pct/by_cause`` into a fixed
    overhead per call and the transfer of bytes, as far as the calls' sizes differ enough to separate the two.
    """

    def moved(key: str) -> float:
        difference: float = now.get(key, 0) - before.get(key, 0)
        return difference

    wall_ms, written, read = moved("total_wall_ms"), moved("bytes_written") / 1e6, moved("bytes_read") / 1e6
    metrics = {
        "step/wall_ms": wall_ms,
        "step/comm_volume_mb": written + read,
        "step/bytes_written_mb": written,
        "step/bytes_read_mb": read,
        "now/bytes_outstanding_mb": now.get("bytes_outstanding", 0) / 1e6,
    }
    if step_time_s > 0:
        metrics["step/frac_of_step"] = wall_ms / now.get("n_processes", 1) / (step_time_s * 1e3)
    overhead_ms = transfer_ms = 0.0
    earlier = before.get("ops", {})
    for op, stats in now.get("ops", {}).items():
        row = _operation(stats, earlier.get(op, {}))
        metrics.update({f"step/{op}/{name}": value for name, value in row.items()})
        if row and wall_ms > 0:
            metrics[f"step/time_pct/by_op/{op}"] = 100 * row["wall_ms"] / wall_ms
        overhead_ms += row.get("overhead_ms", 0.0) * row.get("calls", 0)
        transfer_ms += row.get("transfer_ms", 0.0) * row.get("calls", 0)
    for cause, share_ms in (("fixed_overhead", overhead_ms), ("transfer", transfer_ms)):
        if share_ms > 0 and wall_ms > 0:
            metrics[f"step/time_pct/by_cause/{cause}"] = 100 * share_ms / wall_ms
    return metrics


def headline_series(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the few of *metrics* that are worth a chart; the rest belongs in :func:`breakdown_table`."""
    return {
        name: value
        for name, value in metrics.items()
        if name in _HEADLINES or name.startswith(tuple(f"step/{group}/" for group in _NOT_OPERATIONS))
    }


def breakdown_table(metrics: Mapping[str, float]) -> tuple[list[str], list[list[Any]]]:
    """Return *metrics* as column names and one row per operation, the one that took most time first."""
    operations: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        match name.split("/"):
            case ["step", "time_pct", "by_op", op]:
                operations.setdefault(op, {})["time_pct"] = value
            case ["step", op, column] if op not in _NOT_OPERATIONS and column in _COLUMNS:
                operations.setdefault(op, {})[column] = value
    slowest = sorted(operations.items(), key=lambda item: -item[1].get("wall_ms", 0.0))
    return ["op", *_COLUMNS], [[op, *map(row.get, _COLUMNS)] for op, row in slowest]


def _operation(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float]:
    calls = now["count"] - before.get("count", 0)
    if calls <= 0:
        return {}
    wall_ms, n_bytes = now["wall_ms"] - before.get("wall_ms", 0.0), now["bytes"] - before.get("bytes", 0)
    row = {
        "calls": calls,
        "wall_ms": wall_ms,
        "mean_ms": wall_ms / calls,
        "max_ms": now["step_max_ms"],
        "mb": n_bytes / 1e6,
    }
    counts = now["duration"]["counts"]
    earlier = before.get("duration", {}).get("counts") or [0] * len(counts)
    buckets = [a - b for a, b in zip(counts, earlier, strict=True)]
    for name, share, needed in _PERCENTILES:
        if calls >= needed:
            row[name] = min(_percentile_ms(now["duration"]["bounds_s"], buckets, share), now["step_max_ms"])
    line = _line(now["fit"])
    if line is not None:
        row["overhead_ms"], row["transfer_ms"] = line[0], line[1] * n_bytes / calls
    return row


def _percentile_ms(bounds_s: Sequence[float], buckets: Sequence[int], share: float) -> float:
    """Interpolate within the bucket that holds the percentile; above the last bound that bound is all that is known."""
    rank, below = share * sum(buckets), 0
    for (low, high), count in zip(pairwise((0.0, *bounds_s)), buckets, strict=False):
        if count and below + count >= rank:
            return 1e3 * (low + (high - low) * (rank - below) / count)
        below += count
    return 1e3 * bounds_s[-1]


def _line(fit: Mapping[str, float]) -> tuple[float, float] | None:
    """Return the least squares of ``ms = overhead + ms_per_byte * bytes`` over all calls that moved bytes.

    None where the data does not show a line: fewer than three calls, sizes within 5 % of each other, a negative
    overhead or slope, or less than 80 % of the variance explained.
    """
    n, x, y = fit["calls"], fit["bytes"], fit["ms"]
    if n < 3 or x <= 0:
        return None
    spread_x, spread_y = fit["bytes_bytes"] - x * x / n, fit["ms_ms"] - y * y / n
    together = fit["bytes_ms"] - x * y / n
    if spread_x <= n * (0.05 * x / n) ** 2 or spread_y <= 0 or together <= 0:
        return None
    slope = together / spread_x
    overhead = (y - slope * x) / n
    if overhead < 0 or together * together < 0.8 * spread_x * spread_y:
        return None
    return overhead, slope
