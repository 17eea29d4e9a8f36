"""The exporter's metrics when a real TransferQueue does not answer for long, does not exist yet, or has ended.

Failures of processes are tested in ``tests/faults``.
"""

from __future__ import annotations

from tests.support.cluster import TQCluster, frozen
from tests.support.exporter_process import ExporterProcess, Exposition

FAST = ("--ping-interval", "500ms", "--metadata-interval", "500ms")


def errors(seen: Exposition, kind: str, operation: str = "ping") -> float:
    count = seen.value("dataplane_errors_total", operation=operation, error_type=kind)
    assert count is not None
    return count


def discovery(seen: Exposition) -> str:
    states = seen.by("dataplane_discovery_state", "state")
    assert sum(states.values()) == 1
    return next(state for state, value in states.items() if value == 1)


def test_a_stopped_controller_is_a_timeout_also_after_150_pings(cluster: TQCluster) -> None:
    arguments = ("--controller", cluster.controller.address, "--ping-interval", "100ms")
    with ExporterProcess(*arguments, env={"TQ_EXPORTER_PING_TIMEOUT": "100ms"}) as exporter:
        exporter.wait_for(lambda seen: seen.value("dataplane_up") == 1, "up")
        with frozen(cluster.controller.pid):
            seen = exporter.wait_for(lambda seen: errors(seen, "DataPlaneTimeout") >= 150, "150 timeouts", 120.0)
            assert seen.value("dataplane_up") == 0
            assert discovery(seen) == "found"
            assert errors(seen, "DataPlaneUnavailable") == 0
        exporter.wait_for(lambda seen: seen.value("dataplane_up") == 1, "recovery")


def test_a_run_that_ends_on_purpose_is_told_from_one_that_is_lost(cluster: TQCluster) -> None:
    with ExporterProcess("--ray-address", cluster.ray_address, *FAST, env=cluster.env) as exporter:
        exporter.wait_for(lambda seen: seen.value("dataplane_up") == 1, "up")
        cluster.stop_tq()
        seen = exporter.wait_for(lambda seen: discovery(seen) == "ended", "the end")
        assert seen.value("dataplane_up") == 0
        assert not seen.samples("dataplane_partition_groups")


def test_nothing_there_yet_is_no_error_and_what_comes_is_found(ray_alone: TQCluster) -> None:
    with ExporterProcess("--ray-address", ray_alone.ray_address, *FAST, env=ray_alone.env) as exporter:
        seen = exporter.wait_for(lambda seen: exporter.get("/readyz")[0] == 200, "readiness")
        assert (seen.value("dataplane_up"), discovery(seen)) == (0, "never_found")
        assert all(value == 0 for _, value in seen.samples("dataplane_errors_total"))
        ray_alone.start_tq()
        seen = exporter.wait_for(lambda seen: seen.value("dataplane_up") == 1, "up", 90.0)
        assert seen.value("dataplane_controller_restarts_total") == 0


def test_the_training_side_never_notices_the_exporter(cluster: TQCluster) -> None:
    cluster.put("train", ["a_g0"], tags=[{"weight_version": 1}])
    before = (cluster.controller, cluster.list_rows())
    with ExporterProcess("--ray-address", cluster.ray_address, *FAST, env=cluster.env) as exporter:
        exporter.wait_for(lambda seen: bool(seen.samples("dataplane_partition_groups")), "groups")
    cluster.make_healthy()
    cluster.put("train", ["a_g0"], tags=[{"weight_version": 1}])
    assert (cluster.controller, cluster.list_rows()) == before
