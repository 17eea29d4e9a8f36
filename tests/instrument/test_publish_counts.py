"""A client's own counts in the reserved partition: written beside its calls, removed when it is closed."""

from __future__ import annotations

import gc
import os
import pickle
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.trace import NoOpTracer

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.counts import COUNTS_TAG, Moved, decode_counts, encode_counts
from dataplane.errors import DataPlaneTimeout
from dataplane.interfaces import RESERVED_PARTITION
from dataplane.observability import MetricsDataPlaneClient, publisher
from exporter.config import Config
from exporter.model.results import Ok
from exporter.polling.sources.metadata import MetadataSource
from tests.support.clock import StoppedClock
from tests.support.waiting import wait_until


class Picklable:
    def close(self) -> None:
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher.CountsPublisher.__init__, "__kwdefaults__", {"pause_s": 0.01})


def rows(plane: NoOpDataPlaneClient) -> list[dict[str, Moved]]:
    lines = [decode_counts(group.tags.get(COUNTS_TAG)) for group in plane.list_metadata(RESERVED_PARTITION)]
    return [line[1] for line in lines if line is not None]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dataplane-publish-counts"]


def test_puts_and_clears_are_published_and_the_exporter_reads_them() -> None:
    plane = NoOpDataPlaneClient()
    client = MetricsDataPlaneClient(plane, publish_counts=True)
    client.put_samples(["a", "b", "c"], "train", tags=[{}] * 3)
    client.clear_samples(["a"], "train")
    client.put_samples(["v"], "val", tags=[{}])
    client.publish_weight_version(3)
    wait_until(lambda: rows(plane) == [{"train": (3, 1), "val": (1, 0)}], "the row")
    result = MetadataSource(plane, Config(), tracer=NoOpTracer(), clock=StoppedClock()).poll()
    assert isinstance(result, Ok)
    assert [one.moved for one in result.value.clients] == [{"train": (3, 1), "val": (1, 0)}]
    assert result.value.published_version == 3
    assert result.value.partitions == ("train", "val")
    client.close()
    assert not threads()


def test_closing_removes_the_row_and_no_other() -> None:
    class Open(NoOpDataPlaneClient):
        def close(self) -> None:
            pass

    plane = Open()
    clients = [MetricsDataPlaneClient(plane, publish_counts=True) for _ in range(2)]
    for client in clients:
        client.put_samples(["a"], "train", tags=[{}])
    wait_until(lambda: len(rows(plane)) == 2, "both rows")
    clients[0].close()
    assert len(rows(plane)) == 1
    clients[0].close()
    del client, clients
    gc.collect()
    wait_until(lambda: rows(plane) == [], "the row of the client that was collected to go")
    assert not threads()


def test_nothing_is_published_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = NoOpDataPlaneClient()
    MetricsDataPlaneClient(plane).put_samples(["a"], "train", tags=[{}])
    assert not threads()
    monkeypatch.setenv("TQ_EXPORTER_PUBLISH_COUNTS", "true")
    client = MetricsDataPlaneClient(plane)
    client.put_samples(["a"], "train", tags=[{}])
    wait_until(lambda: rows(plane), "the row")
    client.close()


def test_a_client_that_does_nothing_writes_nothing_and_one_that_is_done_writes_rarely() -> None:
    puts: list[float] = []

    class Counting(NoOpDataPlaneClient):
        def put_samples(self, sample_ids: Sequence[str], partition_id: str, *args: Any, **kwargs: Any) -> Any:
            puts.extend([0.0] * (partition_id == RESERVED_PARTITION))
            return super().put_samples(list(sample_ids), partition_id, *args, **kwargs)

    asked = threading.Semaphore(0)

    def counts() -> dict[str, Moved]:
        asked.release()
        return moved

    moved: dict[str, Moved] = {}
    one = publisher.CountsPublisher(Counting(), counts)
    for _ in range(3):
        assert asked.acquire(timeout=30)
    assert puts == []
    moved = {"train": (1, 0)}
    for _ in range(5):
        assert asked.acquire(timeout=30)
    assert len(puts) == 1
    one.close()


def test_a_write_that_hangs_or_fails_holds_up_no_call(caplog: pytest.LogCaptureFixture) -> None:
    entered, leave = threading.Event(), threading.Event()

    class Stuck(NoOpDataPlaneClient):
        def put_samples(self, sample_ids: Sequence[str], partition_id: str, *args: Any, **kwargs: Any) -> Any:
            if partition_id == RESERVED_PARTITION:
                entered.set()
                assert leave.wait(30)
                raise DataPlaneTimeout("silent")
            return super().put_samples(list(sample_ids), partition_id, *args, **kwargs)

    client = MetricsDataPlaneClient(Stuck(), publish_counts=True)
    client.put_samples(["a"], "train", tags=[{}])
    assert entered.wait(30)
    client.put_samples(["b"], "train", tags=[{}])
    assert client.snapshot()["total_keys"] == 2
    leave.set()
    wait_until(lambda: "could not publish this client's counts" in caplog.text, "the line")
    client.close()
    assert client.snapshot()["total_errors"] == 0


def test_a_copy_publishes_under_a_row_of_its_own() -> None:
    client = MetricsDataPlaneClient(Picklable(), publish_counts=True)
    copy = pickle.loads(pickle.dumps(client))
    assert len(threads()) == 2
    copy.close()
    client.close()


def test_rows_left_behind_long_ago_are_removed() -> None:
    plane = NoOpDataPlaneClient()
    for key, at in (("counts:dead", 0.0), ("counts:recent", 4e9), ("other", 0.0)):
        plane.put_samples([key], RESERVED_PARTITION, tags=[{COUNTS_TAG: encode_counts(at, {"p": (1, 0)})}])
    client = MetricsDataPlaneClient(plane, publish_counts=True)
    client.put_samples(["a"], "train", tags=[{}])

    def keys() -> set[str]:
        return {key for group in plane.list_metadata(RESERVED_PARTITION) for key in group.keys}

    wait_until(lambda: len(keys()) == 3 and "counts:dead" not in keys(), "the old row to go")
    client.close()


def test_a_forked_child_leaves_the_parents_row_alone() -> None:
    plane = NoOpDataPlaneClient()
    client = MetricsDataPlaneClient(plane, publish_counts=True)
    client.put_samples(["a"], "train", tags=[{}])
    wait_until(lambda: rows(plane), "the row")
    child = os.fork()
    if child == 0:
        client.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert rows(plane)
    client.close()
