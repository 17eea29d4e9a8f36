"""The exporter on a real Mooncake: what it shows of the store, also of one that fills, evicts or is gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from opentelemetry.trace import NoOpTracer
from tensordict import TensorDict

from dataplane.discovery.actor import ask_controller, find_controller
from dataplane.discovery.record import endpoint_of
from dataplane.errors import DataPlaneError, DataPlaneWriteError
from dataplane.interfaces import DataPlaneClient
from exporter.config import Config
from exporter.config.model import Storage
from exporter.model.snapshot import Snapshot
from exporter.model.state import State
from exporter.model.storage import StoreState
from exporter.polling.readers import connect
from exporter.polling.sources import build_sources
from exporter.polling.sources.mooncake import MooncakeSource
from tests.contract.rows import rows
from tests.support.clock import StoppedClock
from tests.support.cluster import TQCluster, frozen
from tests.support.mooncake_master import MasterProcess
from tests.support.mooncake_run import SEGMENT
from tests.support.recording import RecordingRecorder


class _Exporter:
    """The source on its own, on what discovery said of the controller."""

    def __init__(self, cluster: TQCluster) -> None:
        handle = find_controller()
        self.endpoint = endpoint_of(cluster.controller.actor_id, *ask_controller(handle, 30))
        config = Config(storage=Storage(timeout=1.0))
        clock = StoppedClock()
        self._state = State(RecordingRecorder(), clock, max_partitions=10, max_versions=4)
        sources = build_sources(connect(config, self.endpoint), config, tracer=NoOpTracer(), clock=clock)
        (self._source,) = (one for one in sources if isinstance(one, MooncakeSource))

    def look(self) -> Snapshot:
        self._source.fold(self._source.poll(), self._state)
        return self._state.snapshot()

    def store(self) -> StoreState:
        store = self.look().store
        assert store is not None
        return store


def test_segments_and_objects_of_a_job(
    cluster: TQCluster, tq_client: DataPlaneClient, mooncake_master: MasterProcess
) -> None:
    exporter = _Exporter(cluster)
    assert (exporter.endpoint.backend, exporter.endpoint.storage_units) == ("MooncakeStore", ())
    assert exporter.endpoint.store_metrics == f"127.0.0.1:{mooncake_master.metrics_port}"
    before = exporter.look()
    (unit,) = before.storage
    assert (unit.up, unit.memory_bytes, unit.memory_limit_bytes) == (True, 0, SEGMENT)
    assert before.store is not None
    assert (before.store.objects, before.store.clients) == (0, 1)

    big = TensorDict({"tokens": torch.ones(48, SEGMENT // 4 // 64)}, batch_size=[48])
    tq_client.put_samples([f"k{index}" for index in range(48)], "p", big)
    snapshot = exporter.look()
    assert snapshot.store is not None
    assert snapshot.store.objects == 48
    assert snapshot.storage[0].fill == pytest.approx(0.75)
    with pytest.raises(DataPlaneWriteError):
        tq_client.put_samples([f"m{index}" for index in range(48)], "p", big)
    assert (exporter.store().allocation_failures or 0) > (before.store.allocation_failures or 0)

    with frozen(mooncake_master.pid):
        (unit,) = exporter.look().storage
        assert unit.error_type == "DataPlaneTimeout"
    mooncake_master.kill()
    (unit,) = exporter.look().storage
    assert (unit.error_type, unit.last_answer is not None) == ("DataPlaneUnavailable", True)
    mooncake_master.start()


def test_evictions_are_counted_and_the_rows_are_lost(tmp_path: Path) -> None:
    """Directly on a store: the master of the cluster evicts nothing."""
    from mooncake.store import MooncakeDistributedStore, ReplicateConfig

    from exporter.polling.mooncake import MooncakeReader
    from tests.support.mooncake_master import ADDRESS

    flags = ("--eviction_high_watermark_ratio=0.5", "--eviction_ratio=0.3", "-default_kv_lease_ttl=100")
    with MasterProcess(tmp_path, *flags, port=50061) as master:
        store: Any = MooncakeDistributedStore()
        setup = (ADDRESS, f"http://{master.metadata_server}/metadata", SEGMENT, 2**24, "tcp", "", master.address)
        assert store.setup(*setup) == 0
        value = torch.ones(2**18)
        store.register_buffer(value.data_ptr(), value.nbytes)
        reader = MooncakeReader(f"127.0.0.1:{master.metrics_port}", timeout_s=5.0)
        for index in range(80):
            store.batch_upsert_from([f"{index}@x"], [value.data_ptr()], [value.nbytes], config=ReplicateConfig())
        codes = store.batch_get_into(
            [f"{index}@x" for index in range(80)], [value.data_ptr()] * 80, [value.nbytes] * 80
        )
        lost = sum(code == -704 for code in codes)
        segments, totals = reader.read()
        store.close()
    assert lost > 0
    assert totals.lookup_misses == lost
    assert (totals.evicted_objects or 0) >= lost
    assert totals.evicted_bytes == (totals.evicted_objects or 0) * value.nbytes
    assert [one.size_bytes for one in segments.values()] == [SEGMENT]


def test_a_job_without_a_master_is_not_seen_as_one_that_is_well(
    cluster: TQCluster, tq_client: DataPlaneClient, mooncake_master: MasterProcess
) -> None:
    mooncake_master.kill()
    exporter = _Exporter(cluster)
    try:
        snapshot = exporter.look()
        assert (snapshot.storage, snapshot.store) == ((), None)
        (source,) = (one for one in snapshot.sources if one.source == "storage")
        assert source.up is False
        assert "Mooncake's metrics at 127.0.0.1:9003 are gone" in source.detail
        with pytest.raises(DataPlaneError):
            tq_client.put_samples(["a"], "p", rows(1))
    finally:
        mooncake_master.start()
