"""The whole demo: real Ray, real TransferQueue, real exporter process, and nothing left of them at the end."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from dataplane.errors import ERROR_TYPES
from dataplane.groups import GROUP_STATES
from tests.support.demo_process import DemoProcess
from tests.support.otlp_receiver import Received, http_receiver
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)  # each starts Ray, which takes minutes on a busy machine

_END_S = 60.0


def spans(received: Received) -> Iterator[tuple[str, Any]]:
    """Service name and name of every span that was pushed."""
    for request in received.traces:
        for resource_spans in request.resource_spans:
            attributes = {each.key: each.value.string_value for each in resource_spans.resource.attributes}
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    yield attributes["service.name"], span


def test_it_shows_the_data_plane_tells_each_rollouts_story_and_ends_by_itself() -> None:
    with http_receiver() as received, DemoProcess("--duration", "20s", "--otlp", received.url) as demo:
        demo.wait_until_ready()

        def arrived() -> float:
            return demo.scrape().value("dataplane_partition_groups_arrived_total", partition="train") or 0.0

        wait_until(lambda: arrived() > 0, "groups arrive")
        earlier = arrived()
        wait_until(lambda: arrived() > earlier + 5, "more groups arrive")

        seen = demo.scrape()
        assert seen.value("dataplane_up") == 1
        states = seen.by("dataplane_partition_groups", "state", partition="train")
        assert states.keys() == set(GROUP_STATES)
        assert sum(states.values()) > 0
        assert sum(seen.by("dataplane_partition_staleness_groups", "lag", partition="train").values()) > 0
        assert seen.samples("dataplane_partition_weight_version_groups", partition="train")
        assert seen.value("dataplane_partition_staleness_reference", partition="train", reference="published") == 1
        unavailable = seen.samples("dataplane_errors_total", error_type="DataPlaneUnavailable")
        assert unavailable
        assert all(value == 0 for _, value in unavailable)
        assert seen.by("dataplane_storage_keys", "storage_unit").keys() == {"0", "1"}

        assert demo.urls.keys() == {"exporter", "rollout-0", "rollout-1", "trainer"}
        duration = "messaging_client_operation_duration_seconds_count"
        assert demo.scrape("rollout-0").by(duration, "messaging_operation_name").keys() >= {"put_samples"}
        trained = demo.scrape("trainer").by(duration, "messaging_operation_name", messaging_destination_name="train")
        assert trained.keys() >= {"list_metadata", "get_samples", "pop"}

        assert demo.wait(_END_S) == 0, demo.out
        assert demo.left_behind() == []
        assert len(re.findall(r"^up \| restarts 0 .*train: \d+ ready", demo.out, re.MULTILINE)) >= 2

    by_id = {(span.trace_id, span.span_id): span for _, span in spans(received)}
    puts = {key: span for key, span in by_id.items() if span.name == "put_samples train" and span.parent_span_id}
    parents = {
        by_id[span.trace_id, span.parent_span_id].name
        for span in puts.values()
        if (span.trace_id, span.parent_span_id) in by_id
    }
    assert parents == {"generate group"}
    linked = {
        name: {
            (link.trace_id, link.span_id)
            for span in by_id.values()
            if span.name == f"{name} train"
            for link in span.links
        }
        for name in ("get_samples", "pop")
    }
    assert linked["get_samples"] & linked["pop"] & puts.keys(), "no put is linked from its read and its pop"
    assert {service for service, _ in spans(received)} >= {"demo-rollout", "demo-trainer"}


def test_chaos_takes_it_down_and_it_comes_back_by_itself() -> None:
    with DemoProcess("--chaos", "5s", "--convention", "verl") as demo:
        demo.wait_until_ready()
        down = demo_down(demo)
        assert down.value("dataplane_controller_restarts_total") == 0

        def is_back() -> bool:
            seen = demo.scrape()
            return bool(
                seen.value("dataplane_controller_restarts_total")
                and seen.value("dataplane_partition_groups_lost_total", partition="train")
                and seen.value("dataplane_up")
            )

        wait_until(is_back, "a new controller is up and the old one's groups are lost", 240.0)
        assert "chaos: killing the controller" in demo.out
        actors = ("rollout-0", "rollout-1", "trainer")
        wait_until(lambda: all("attached again" in demo.log(name) for name in actors), "they attach again", 240.0)
        demo.send(signal.SIGINT)
        assert demo.wait(_END_S) == 0, demo.out
        assert demo.left_behind() == []
        for name in actors:
            (summary,) = re.findall(r"ended: .*; attached (\d+) times; errors: (.*)", demo.log(name))
            kinds = set(re.findall(r"\d+ (\w+)", summary[1]))
            assert int(summary[0]) >= 2, demo.log(name)
            assert "DataPlaneUnavailable" in kinds
            assert kinds <= set(ERROR_TYPES), demo.log(name)


def demo_down(demo: DemoProcess) -> Any:
    """Wait for dataplane_up 0 with the error counted, and return that scrape."""
    scrapes: list[Any] = []

    def is_down() -> bool:
        scrapes[:] = [demo.scrape()]
        unavailable = scrapes[0].value("dataplane_errors_total", operation="ping", error_type="DataPlaneUnavailable")
        return scrapes[0].value("dataplane_up") == 0 and bool(unavailable)

    wait_until(is_down, "the controller's death shows", 180.0)
    return scrapes[0]


def test_it_ends_also_when_it_is_killed() -> None:
    with DemoProcess("--convention", "nemo-rl", "--rollouts", "1", forks=False) as demo:
        demo.wait_until_ready()

        def ready() -> float:
            seen = demo.scrape()
            return seen.value("dataplane_partition_groups", partition="rollout_data", state="ready") or 0.0

        wait_until(lambda: ready() > 0, "groups of the nemo-rl convention are ready")
        demo.send(signal.SIGKILL)
        demo.wait(10.0)
        assert demo.left_behind(within_s=_END_S) == []


def test_sigterm_while_it_starts_leaves_nothing() -> None:
    with DemoProcess() as demo:
        wait_until(lambda: list(demo.folder.glob("*/session_*/logs/raylet.out")) != [], "Ray is being started", 60.0)
        demo.send(signal.SIGTERM)
        assert demo.wait(_END_S) == 0, demo.out
        assert demo.left_behind() == []
