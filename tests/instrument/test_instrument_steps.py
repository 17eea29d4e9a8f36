"""What the data plane costs per training step, of one process and of many."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.observability import (
    MetricsDataPlaneClient,
    breakdown_table,
    cluster_step_metrics,
    headline_series,
    merge_snapshots,
)
from tests.instrument.scripted import ScriptedClient


class Payload:
    """Counts as a tensor of *nbytes* bytes."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


Payload.__module__, Payload.__name__ = "torch", "Tensor"


class Clock:
    """Each call takes what the test says: every second reading is later by that."""

    def __init__(self) -> None:
        self.now = 0
        self.takes_ms = 0.0
        self._ends = False

    def __call__(self) -> int:
        if self._ends:
            self.now += round(self.takes_ms * 1e6)
        self._ends = not self._ends
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("dataplane.observability.recorder.perf_counter_ns", clock)
    return clock


def _put(client: Any, clock: Clock, n_bytes: int, takes_ms: float) -> None:
    clock.takes_ms = takes_ms
    client.put_samples(["a"], "train", {"x": Payload(n_bytes)})


def _client() -> MetricsDataPlaneClient:
    return MetricsDataPlaneClient(ScriptedClient(get_samples={"x": Payload(500_000)}))


def test_a_step_is_what_happened_since_the_last_one(clock: Clock) -> None:
    client = _client()
    _put(client, clock, 1_500_000, 80.0)
    client.get_step_metrics(1.0)
    _put(client, clock, 2_000_000, 10.0)
    _put(client, clock, 1_000_000, 20.0)
    clock.takes_ms = 70.0
    client.get_samples(["a"], "train", ["x"])
    metrics = client.get_step_metrics(0.2)
    assert headline_series(metrics) == pytest.approx(
        {
            "step/wall_ms": 100.0,
            "step/frac_of_step": 0.5,
            "step/comm_volume_mb": 3.5,
            "now/bytes_outstanding_mb": 4.5,
            "step/time_pct/by_op/put": 30.0,
            "step/time_pct/by_op/get": 70.0,
        }
    )
    assert (metrics["step/bytes_written_mb"], metrics["step/bytes_read_mb"]) == (3.0, 0.5)
    assert {name: metrics[f"step/put/{name}"] for name in ("calls", "wall_ms", "mean_ms", "max_ms", "mb")} == {
        "calls": 2,
        "wall_ms": 30.0,
        "mean_ms": 15.0,
        "max_ms": 20.0,  # the longest of the step, not of the run
        "mb": 3.0,
    }
    assert client.snapshot()["ops"]["put"]["max_ms"] == 80.0
    assert "step/put/calls" not in client.get_step_metrics(1.0)


def test_a_step_of_no_length_has_no_share(clock: Clock) -> None:
    assert "step/frac_of_step" not in _client().get_step_metrics(0.0)


def test_snapshots_of_workers_add_up(clock: Clock) -> None:
    clients = [_client(), _client()]
    for client, takes_ms in zip(clients, (10.0, 30.0), strict=True):
        _put(client, clock, 1_000_000, takes_ms)
    before = merge_snapshots(client.snapshot() for client in clients)
    assert (before["n_processes"], before["total_ops"], before["total_wall_ms"]) == (2, 2, 40.0)
    assert (before["bytes_written"], before["peak_bytes_outstanding"]) == (2_000_000, 2_000_000)
    assert (before["ops"]["put"]["count"], before["ops"]["put"]["max_ms"]) == (2, 30.0)
    assert sum(before["ops"]["put"]["duration"]["counts"]) == 2
    assert before["ops"]["put"]["duration"]["bounds_s"] == clients[0].snapshot()["ops"]["put"]["duration"]["bounds_s"]
    _put(clients[0], clock, 1_000_000, 20.0)
    metrics = cluster_step_metrics(
        merge_snapshots(client.snapshot() for client in clients), before, step_time_s=0.1, collect_ms=2.0
    )
    assert metrics["step/wall_ms"] == pytest.approx(20.0)
    assert metrics["step/frac_of_step"] == pytest.approx(0.1)  # of both processes' time
    assert (metrics["now/n_processes"], metrics["step/put/calls"]) == (2, 1)
    assert metrics["step/self/frac"] == pytest.approx(0.1)
    assert headline_series(metrics)["step/self/overhead_ms"] == 2.0


def test_there_is_nothing_to_merge() -> None:
    assert merge_snapshots([]) == {}
    assert cluster_step_metrics({}, {}, 1.0)["step/wall_ms"] == 0


def test_errors_and_cancelled_calls_add_up_too() -> None:
    client = MetricsDataPlaneClient(ScriptedClient(ping=ValueError("no")))
    with pytest.raises(ValueError, match="no"):
        client.ping()
    merged = merge_snapshots([client.snapshot()] * 3)
    assert merged["errors_by_type"] == merged["ops"]["ping"]["errors"] == {"DataPlaneBadRequest": 3}


def test_time_is_divided_into_overhead_and_transfer(clock: Clock) -> None:
    client = _client()
    for megabytes in (1, 2, 4, 8):
        _put(client, clock, megabytes * 1_000_000, 5.0 + 2.0 * megabytes)
    metrics = client.get_step_metrics(1.0)
    assert metrics["step/put/overhead_ms"] == pytest.approx(5.0)
    assert metrics["step/put/transfer_ms"] == pytest.approx(2.0 * 15 / 4)
    assert metrics["step/time_pct/by_cause/fixed_overhead"] == pytest.approx(100 * 20 / 50)
    assert metrics["step/time_pct/by_cause/transfer"] == pytest.approx(100 * 30 / 50)


@pytest.mark.parametrize(
    "calls",
    [
        [(1, 5.0), (2, 7.0)],  # too few
        [(4, 5.0), (4, 7.0), (4, 6.0), (4, 5.0)],  # of one size
        [(1, 9.0), (2, 7.0), (4, 5.0)],  # faster when larger
        [(1, 0.1), (2, 4.0), (4, 12.0)],  # a negative overhead
        [(1, 5.0), (2, 50.0), (3, 1.0), (4, 60.0), (5, 2.0)],  # noise
    ],
)
def test_what_is_no_line_is_not_divided(calls: list[tuple[int, float]], clock: Clock) -> None:
    client = _client()
    for megabytes, takes_ms in calls:
        _put(client, clock, megabytes * 1_000_000, takes_ms)
    metrics = client.get_step_metrics(1.0)
    assert not [name for name in metrics if "overhead" in name or "transfer" in name]


def test_percentiles_need_enough_calls(clock: Clock) -> None:
    client = _client()
    for takes_ms in [3.0] * 35 + [40.0] * 4:
        _put(client, clock, 1, takes_ms)
    metrics = client.get_step_metrics(1.0)
    assert 2.5 < metrics["step/put/p50_ms"] <= 5.0
    assert "step/put/p90_ms" not in metrics
    for takes_ms in [3.0] * 34 + [40.0] * 6:
        _put(client, clock, 1, takes_ms)
    metrics = client.get_step_metrics(1.0)
    assert 25.0 < metrics["step/put/p90_ms"] <= 40.0  # at most the longest call, although its bucket ends at 50
    for _ in range(20):
        _put(client, clock, 1, 90_000.0)
    assert client.get_step_metrics(1.0)["step/put/p50_ms"] == 60_000.0  # the last bound: more is not known


def test_the_table_begins_with_what_took_most_time(clock: Clock) -> None:
    client = _client()
    _put(client, clock, 1_000_000, 10.0)
    clock.takes_ms = 30.0
    client.get_samples(["a"], "train", ["x"])
    columns, rows = breakdown_table(cluster_step_metrics(client.snapshot(), {}, 1.0, collect_ms=1.0))
    assert columns[:4] == ["op", "time_pct", "calls", "wall_ms"]
    assert [row[:4] for row in rows] == [["get", 75.0, 1, 30.0], ["put", 25.0, 1, 10.0]]
    assert rows[0][columns.index("p50_ms")] is None
