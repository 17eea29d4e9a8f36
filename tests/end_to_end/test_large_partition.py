"""A partition that is too large to be listed: refused, and about how many keys it has all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataplane.adapters.wire import WireMetadataReader
from dataplane.counts import COUNTS_TAG, decode_counts
from dataplane.interfaces import RESERVED_PARTITION
from dataplane.observability import MetricsDataPlaneClient, publisher
from tests.end_to_end.test_tasks import OFTEN, REFRESHED_S, record
from tests.support.cluster import TQCluster
from tests.support.exporter_process import ExporterProcess
from tests.support.waiting import wait_until

KEYS = 100


@pytest.mark.full
def test_a_refused_partition_has_an_estimate_and_its_clients_publish_theirs(
    ray_alone: TQCluster, ray_connected: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataplane.factory import build_data_plane_client

    monkeypatch.setattr(publisher.CountsPublisher.__init__, "__kwdefaults__", {"pause_s": 0.05})
    ray_alone.start_tq(metrics=True, capacity=None)
    client = MetricsDataPlaneClient(build_data_plane_client({"enabled": True}, bootstrap=False), publish_counts=True)
    reader = WireMetadataReader(ray_alone.controller.address)

    def published() -> list[object]:
        lines = [decode_counts(group.tags.get(COUNTS_TAG)) for group in reader.list_metadata(RESERVED_PARTITION)]
        return [line[1] for line in lines if line is not None]

    try:
        keys = [f"u{row}_g0" for row in range(KEYS + 1)]
        client.put_samples(keys, "big", tags=[{"weight_version": 1}] * len(keys))
        client.clear_samples(keys[:1], "big")
        wait_until(lambda: published() == [{"big": (KEYS + 1, 1)}], "the client's counts")
        env = {**OFTEN, "TQ_EXPORTER_METADATA_MAX_ROWS": "50"}
        with ExporterProcess("--discovery-file", record(ray_alone, tmp_path), env=env) as exporter:
            estimated = "dataplane_partition_keys_estimated"
            seen = exporter.wait_for(
                lambda seen: seen.value(estimated, partition="big", basis="tq_metrics") == KEYS,
                "the estimate",
                REFRESHED_S,
            )
            assert (seen.value(f"{estimated}_timestamp_seconds", partition="big") or 0.0) > 0.0
            assert seen.value("dataplane_partition_readable", partition="big", reason="refused") == 0
            assert seen.samples("dataplane_partition_keys", partition="big") == []
        client.close()
        assert published() == []
    finally:
        reader.close()
        client.close()
