"""Every query of every panel and alert on a real Prometheus, which scrapes a real exporter of a real TransferQueue.

One scripted run: normal, starved, stale and stalled, a frozen storage unit, a frozen, then a dead controller, recovery.
Each query must return data in its scenario. The rules run :data:`~tests.dashboards.live.FACTOR` times faster than
shipped, and some thresholds are low enough for a small run to cross; promtool checks the shipped ones.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dashboards.build import render
from dashboards.queries import PROCESSES
from dataplane.discovery.record import Endpoint, StorageUnitEndpoint, encode_endpoint
from exporter.shipped import rules
from tests.dashboards.live import Job, Monitoring, scaled
from tests.support.cluster import TQCluster, frozen, kill
from tests.support.exporter_process import ExporterProcess
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(900)

WITHIN_S = 150.0
THRESHOLDS = {
    "stalled_seconds": 10.0,
    "starved_seconds": 10.0,
    "waiting_seconds": 5.0,
    "uncommitted_age_seconds": 10.0,
    "incomplete_age_seconds": 10.0,
    "version_unchanged_seconds": 10.0,
    "restarts_per_hour": 1.0,
    # Thresholds that a healthy run of this size does not cross.
    "ping_slo_seconds": 0.0,
    "controller_busy_ratio": 0.0,
    "storage_used_ratio": 0.0,
    "storage_full_above_ratio": 0.0,
    "storage_full_in_seconds": 1e9,
}

SCENARIO_OF_ALERT = {
    "DataPlaneLost": "unavailable",
    "DataPlaneClientUnavailable": "unavailable",
    "DataPlaneTimeouts": "silent",
    "DataPlaneClientTimeouts": "silent",
    "DataPlaneStorageUnitLost": "storage unit gone",
    "DataPlaneStorageUnitSilent": "storage unit frozen",
    "DataPlaneTrainerStarved": "starved",
    "DataPlaneTrainerWaiting": "starved",
    "DataPlaneQueueStalled": "stale and stalled",
    "DataPlaneStalenessAboveWindow": "stale and stalled",
    "DataPlaneUncommittedLeaking": "stale and stalled",
    "DataPlaneIncompleteOrphaned": "stale and stalled",
    "DataPlaneRowsMalformed": "stale and stalled",
    "DataPlaneFullSoon": "stale and stalled",
    "DataPlaneNoGroupCompleted": "failing",
    "DataPlaneGroupsOrphaned": "stale and stalled",
    "DataPlaneWeightVersionStuck": "normal",
    "DataPlaneWeightVersionSteppedBack": "unreadable",
    "DataPlanePartitionUnreadable": "unreadable",
    "DataPlaneMetadataFailing": "unreadable",
    "DataPlaneControllerRestarting": "recovered",
    "TQExporterAbsent": "exporter gone",
    "TQExporterOTLPFailing": "normal",
    "TQExporterPollsStretched": "normal",
    "TQExporterOverBudget": "normal",
    "DataPlanePingSlow": "normal",
    "DataPlaneNearCapacity": "normal",
    "TQExporterThresholdsMissing": "before",
}
"""The scenario in which each alert's query must return data. ``before``: before any rule was evaluated."""

ALERTS_NOT_HERE = {
    "DataPlaneStarting",
    "DataPlaneUnreachable",
    "DataPlaneTaskStalled",
    "DataPlaneTaskStarved",
    "DataPlaneUnavailable",
    "DataPlaneGroupsGivenUp",
    "DataPlaneStorageUnitFlapping",
    "DataPlaneFullRepeatedly",
    "DataPlaneStorageLeaking",
    "DataPlaneStorageFull",
    "DataPlaneStorageEvicting",
    "DataPlaneStorageAllocationsFailing",
    "DataPlaneClientWritesFailing",
    "DataPlaneClientCrashLooping",
}
"""``tests/end_to_end`` sees what the first query: ``test_not_usable.py`` two discovery states, ``test_tasks.py`` tasks.
``tests/mooncake`` sees evictions and allocations that fail. The others need a fault that comes and goes, or lasts, for
longer than this test; promtool tests them."""

SCENARIO_OF_PANEL = {
    "Time until full": "stale and stalled",
    "Age of the oldest unfinished group": "stale and stalled",
    "Errors of the exporter's calls": "unavailable",
    "Errors by type": "unavailable",
    "Error ratio by operation": "unavailable",
    "Unavailable ratio": "unavailable",
    "Timeout ratio": "silent",
    "Firing alerts": "unavailable",
}
"""Panels that have no data in a healthy run. All others must have data in the normal scenario."""

PANELS_NOT_HERE = {
    "SSD offload",
    "Values on SSD and in memory",
    "Accept queue peak",
    "Dropped connections",
    "Consumed by task",
    "Failed requests",
    "Mooncake store",
    "Mooncake evictions",
    "Mooncake objects",
    "Conditions",
    "Recorder up",
    "Recording size",
    "Recording rows dropped",
    "Tracker points",
}
"""Panels about what the test's job does not do or use, and one whose four queries have data in different scenarios:
``test_drawn.py`` asks them."""


def panel_queries() -> Iterator[tuple[str, str]]:
    """Yield the title and each query of every panel, as Grafana would send it with everything selected."""
    for text in render().values():
        for panel in json.loads(text)["panels"]:
            for target in panel.get("targets", ()):
                query = re.sub(r"\$(cluster|namespace|run|job|tq_job|instance|partition)\b", ".*", target["expr"])
                query = query.replace("$processes", PROCESSES["each"]).replace("$__rate_interval", "10s")
                yield panel["title"], query.replace("$__range", "1h").replace("[1h]", "[120s]")


class Watch:
    """Which queries must return data in which scenario, and which have done so."""

    def __init__(self, monitoring: Monitoring) -> None:
        self._monitoring = monitoring
        self._open: dict[str, set[str]] = {}
        for name, alert in rules.alerts().items():
            if name in ALERTS_NOT_HERE:
                continue
            self._open.setdefault(SCENARIO_OF_ALERT[name], set()).add(scaled(alert["expr"]))
        for title, query in panel_queries():
            if title in PANELS_NOT_HERE or "keys_estimated" in query:  # no partition here is too large to be listed
                continue
            self._open.setdefault(SCENARIO_OF_PANEL.get(title, "normal"), set()).add(query)

    def expect(self, scenario: str, at: float | None = None) -> None:
        """Wait until every query of *scenario* has returned data."""
        left = self._open.pop(scenario)

        def all_have() -> bool:
            for query in sorted(left):
                if self._monitoring.query(query, at):
                    left.discard(query)
            return not left

        try:
            wait_until(all_have, scenario, WITHIN_S)
        except AssertionError as error:
            missing = "\n\n".join(sorted(left))
            raise AssertionError(f"{error}; no data for:\n{missing}") from None

    @property
    def left(self) -> set[str]:
        return set(self._open)


def write_record(path: Path, cluster: TQCluster) -> None:
    """Write the discovery record of the present data plane."""
    record = Endpoint(
        address=cluster.controller.address,
        controller_id=cluster.controller.id,
        actor_id=cluster.controller.actor_id,
        backend="SimpleStorage",
        storage_units=tuple(
            StorageUnitEndpoint(index=unit.index, id=unit.id, address=unit.address) for unit in cluster.storage_units
        ),
        metrics_endpoint=cluster.metrics_endpoint,
        versions=cluster.versions,
        written_at=time.time(),
    )
    unfinished = path.with_suffix(".new")
    unfinished.write_bytes(encode_endpoint(record))
    unfinished.replace(path)
    assert msgspec.json.decode(path.read_bytes())["address"] == cluster.controller.address


def spoil(cluster: TQCluster) -> None:
    """Leave behind what a healthy job would not: unfinished writes, incomplete groups, unreadable tags."""
    whole = {"weight_version": 1, "committed": True, "created_at": time.time()}
    cluster.put("odd", ["u/0"], tags=[{**whole, "group_id": "u", "committed": False}])
    cluster.put("odd", ["i/0"], tags=[{**whole, "group_id": "i", "expected_num_keys": 2}])
    cluster.put("odd", ["m/0"], tags=[{**whole, "group_id": "m", "weight_version": "new"}])


def leave_behind(cluster: TQCluster) -> None:
    """Leave a taken group of verl, whose prompt row is gone. Not among those that train, where it would be a batch."""
    cluster.put("val", ["u0_0_0"], tags=[{"status": "success", "seq_len": 9, "global_steps": 1, "min_global_steps": 0}])
    time.sleep(3)  # the exporter sees it before the version moves


def test_every_query_returns_data_in_the_scenario_that_it_is_meant_for(
    cluster: TQCluster, ray_connected: None, tmp_path: Path
) -> None:
    cluster.restart_tq(metrics=True)
    record = tmp_path / "endpoint.json"
    write_record(record, cluster)
    job = Job()
    own_metrics = (cluster.metrics_endpoint or "").removeprefix("http://").removesuffix("/metrics")
    often = ("--ping-interval", "1s", "--metadata-interval", "1s")
    nobody = {"TQ_EXPORTER_OTLP": "http://127.0.0.1:9", "TQ_EXPORTER_OTLP_INTERVAL": "1s"}
    fast = {"TQ_EXPORTER_STORAGE_INTERVAL": "1s", "TQ_EXPORTER_STORAGE_TIMEOUT": "1s"}
    fast["TQ_EXPORTER_TQ_METRICS_INTERVAL"] = "1s"
    frugal = {"TQ_EXPORTER_METADATA_MAX_CONTROLLER_SHARE": "0.0001"}
    try:
        with (
            ExporterProcess("--discovery-file", str(record), *often, env={**fast, **nobody}) as exporter,
            ExporterProcess("--controller", cluster.controller.address, *often, env=frugal) as second,
            Monitoring(
                {
                    "tq-exporter": [exporter.url.removeprefix("http://"), second.url.removeprefix("http://")],
                    "trainer": [job.address],
                    "transfer-queue": [own_metrics],
                },
                THRESHOLDS,
            ) as monitoring,
        ):
            watch = Watch(monitoring)
            watch.expect("before", at=time.time() - 3600)

            cluster.put("foreign", ["from another process"], tags=[{"weight_version": 1, "committed": True}])
            job.foreign = "from another process"
            watch.expect("normal")
            assert monitoring.broken_rules() == []

            job.foreign = None
            cluster.run("tq.kv_clear(keys=['from another process'], partition_id='foreign')")
            job.generating = False
            watch.expect("starved")

            job.failing = True
            watch.expect("failing")

            leave_behind(cluster)
            job.failing, job.generating, job.training = False, True, False
            job.version += 10
            spoil(cluster)
            watch.expect("stale and stalled")

            cluster.put("broken", ["b"], tags=[{"weight_version": 2**70}])
            job.version -= 1
            watch.expect("unreadable")

            with frozen(cluster.storage_units[0].pid):
                watch.expect("storage unit frozen")

            with frozen(cluster.controller.pid):
                watch.expect("silent")

            kill(cluster.controller.pid)
            watch.expect("unavailable")
            wait_until(lambda: ("firing", "DataPlaneLost") in monitoring.received, "the page", WITHIN_S)

            cluster.restart_tq()
            write_record(record, cluster)
            job.renew()
            watch.expect("recovered")
            wait_until(lambda: ("resolved", "DataPlaneLost") in monitoring.received, "the all-clear", WITHIN_S)

            kill(cluster.storage_units[0].pid)
            watch.expect("storage unit gone")

            second.close()
            watch.expect("exporter gone")
            assert monitoring.broken_rules() == []
            assert watch.left == set()
    finally:
        job.close()
