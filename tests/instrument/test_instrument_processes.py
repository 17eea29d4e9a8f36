"""Threads, pickles and forks."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dataplane.errors import DataPlaneUnavailable
from dataplane.interfaces import KVBatchMeta
from dataplane.observability import MetricsDataPlaneClient, log_event
from tests.instrument.conftest import Telemetry
from tests.instrument.scripted import BATCH, ScriptedClient


def test_eight_threads_lose_no_count(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient(put_samples=BATCH, pop=DataPlaneUnavailable), lambda event: None)
    per_thread, threads = 300, 8
    start = threading.Barrier(threads)

    def work(number: int) -> None:
        start.wait()
        for i in range(per_thread):
            client.put_samples([f"{number}_{i}_a", f"{number}_{i}_b"], f"p{number % 3}", None, [{}, {}])
            with pytest.raises(DataPlaneUnavailable):
                client.pop(["a"], f"p{number % 3}")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(before)
    calls = per_thread * threads
    snapshot = client.snapshot()
    assert (snapshot["ops"]["put"]["count"], snapshot["ops"]["put"]["keys"]) == (calls, 2 * calls)
    assert snapshot["errors_by_type"] == {"DataPlaneUnavailable": calls}
    assert snapshot["n_keys_outstanding"] == 2 * calls
    assert sum(telemetry.points("dataplane.client.keys").values()) == 2 * calls
    assert sum(telemetry.points("dataplane.client.errors").values()) == calls
    points = telemetry.points("messaging.client.operation.duration").values()
    assert sum(point.count for point in points) == 2 * calls


def test_a_reader_that_collects_while_calls_are_made_gets_whole_series(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient())
    stop = threading.Event()

    def work() -> None:
        i = 0
        while not stop.is_set():
            client.put_samples(["a"], f"p{i % 120}")
            i += 1

    worker = threading.Thread(target=work)
    worker.start()
    try:
        seen = [sum(telemetry.points("dataplane.client.keys").values()) for _ in range(30)]
    finally:
        stop.set()
        worker.join()
    assert seen == sorted(seen)
    assert client.snapshot()["observer_failures"] == 0


@pytest.mark.parametrize("duplicate", [lambda value: pickle.loads(pickle.dumps(value)), copy.copy, copy.deepcopy])
def test_a_copy_has_the_client_and_counts_from_zero(duplicate: Callable[[Any], Any]) -> None:
    client = MetricsDataPlaneClient(ScriptedClient(ping=0.25), log_event, propagate=True)
    client.ping()
    twin = duplicate(client)
    assert type(twin) is MetricsDataPlaneClient
    assert twin.snapshot()["total_ops"] == 0
    assert twin.ping() == 0.25
    assert twin._recorder.on_event is log_event
    assert twin._recorder.propagate
    assert client.snapshot()["total_ops"] == 1


def test_a_client_with_providers_of_its_own_pickles(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient(ping=0.25))
    assert pickle.loads(pickle.dumps(client)).ping() == 0.25


def test_a_forked_child_counts_its_own_calls_even_when_a_lock_was_held(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient(put_samples=KVBatchMeta("train", None, ["a"])))
    client.put_samples(["a"], "train", None, [{"weight_version": 3}])
    client.get_samples(["a"], "train", ["x"])
    telemetry.points("dataplane.client.consumed.lag")
    recorder = client._recorder
    cell = recorder.tally.success(next(iter(recorder.tally.cells())).operation, "train")
    locks = [
        cell.lock,
        recorder.tally._lock,
        recorder.memory.outstanding._lock,
        recorder.memory.lineage._lock,
        recorder.instruments._lock,
    ]
    for lock in locks:
        lock.acquire()  # as if another thread of the parent held it at the moment of the fork
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)  # a lock that stayed locked would block the child for ever
        try:
            first = client.snapshot()["total_ops"]
            client.put_samples(["b"], "train")
            client.pop(["b"], "val")
            snapshot = client.snapshot()
            values = (first, snapshot["total_ops"], snapshot["n_keys_outstanding"])
            counted = sum(telemetry.points("dataplane.client.keys").values())
            points = telemetry.points("messaging.client.operation.duration")
            durations = {dict(key)["messaging.operation.name"]: point.count for key, point in points.items()}
            lags = len(telemetry.points("dataplane.client.consumed.lag"))
            os.write(write, repr((*values, counted, durations, lags)).encode())
        finally:
            os._exit(0)
    os.close(write)
    for lock in locks:
        lock.release()
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    assert told == repr((0, 2, 1, 2, {"put_samples": 1, "pop": 1}, 0))
    assert client.snapshot()["total_ops"] == 2
    points = telemetry.points("messaging.client.operation.duration")
    assert sum(point.count for point in points.values()) == 2
    assert len(telemetry.points("dataplane.client.consumed.lag")) == 1
