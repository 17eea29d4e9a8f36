"""The push to real receivers over HTTP and gRPC: equal to the scrape, counted, and few log lines when it fails."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.trace import NoOpTracer, set_span_in_context
from prometheus_client.parser import text_string_to_metric_families

from dataplane.groups import DataPlaneGroupMeta
from dataplane.partitions import ByName
from exporter.catalogue.metrics import EXPORTER_METRICS, prometheus_label, prometheus_name
from exporter.config import Otlp
from exporter.model.flow import FlowTracker
from exporter.model.snapshot import Snapshot
from exporter.telemetry import Telemetry
from exporter.telemetry.outcomes import ExportLog, Outcomes
from exporter.telemetry.targets import push_target
from tests.support.clock import StoppedClock
from tests.support.otlp_receiver import Received, grpc_receiver, http_receiver
from tests.support.snapshots import ODD_NAME, rich_snapshot
from tests.telemetry.support import BUILD, pushing_to, telemetry

PROTOCOLS = {"http/protobuf": http_receiver, "grpc": grpc_receiver}
DECLARED = {metric.name: metric for metric in EXPORTER_METRICS}


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def receiver(protocol: str) -> Iterator[Received]:
    with PROTOCOLS[protocol]() as received:
        yield received


def test_the_push_says_what_the_scrape_says(receiver: Received, protocol: str) -> None:
    with telemetry(pushing_to(receiver.url, protocol=protocol)) as built:
        for _ in range(3):
            built.recorder.ping(0.002, None)
        built.recorder.ping(4.0, "DataPlaneTimeout")
        scraped = _scraped(built.scrape(None)[0].decode())
    pushed = _pushed(receiver.last_metrics())
    assert pushed == scraped
    assert pushed["dataplane_partition_depth", frozenset({("partition", ODD_NAME)})] == 7


def test_every_pushed_metric_is_declared_with_its_unit_and_kind(receiver: Received, protocol: str) -> None:
    with telemetry(pushing_to(receiver.url, protocol=protocol)) as built:
        built.recorder.ping(0.002, None)
        built.recorder.tracker_point("tensorboard", "ok")
    metrics = _metrics(receiver.last_metrics())
    assert {metric.name for metric in metrics} == DECLARED.keys()
    kinds = {"sum": "counter", "gauge": "gauge", "histogram": "histogram"}
    for metric in metrics:
        declared = DECLARED[metric.name]
        assert (metric.unit, metric.description) == (declared.unit, declared.description)
        assert kinds[str(metric.WhichOneof("data"))] == declared.kind


def test_one_resource_and_one_scope_say_who_speaks(receiver: Received, protocol: str) -> None:
    with telemetry(pushing_to(receiver.url, protocol=protocol)):
        pass
    (resource_metrics,) = receiver.last_metrics().resource_metrics
    attributes = {attribute.key: attribute.value.string_value for attribute in resource_metrics.resource.attributes}
    assert attributes["service.name"] == "tq-exporter"
    assert attributes["run"] == "grpo-7b"
    (scope_metrics,) = resource_metrics.scope_metrics
    assert (scope_metrics.scope.name, scope_metrics.scope.version) == ("tq_exporter", "1.2.3")
    assert scope_metrics.schema_url == "https://opentelemetry.io/schemas/1.40.0"


def test_spans_are_pushed_with_their_parents(receiver: Received, protocol: str) -> None:
    with telemetry(pushing_to(receiver.url, protocol=protocol)) as built:
        poll = built.tracer.start_span("tq_exporter.poll", attributes={"tq_exporter.notable": "changed"})
        built.tracer.start_span("ping", set_span_in_context(poll)).end()
        poll.end()
    (resource_spans,) = receiver.last_traces().resource_spans
    assert {scope.schema_url for scope in resource_spans.scope_spans} == {"https://opentelemetry.io/schemas/1.40.0"}
    spans = {span.name: span for scope in resource_spans.scope_spans for span in scope.spans}
    assert spans["ping"].parent_span_id == spans["tq_exporter.poll"].span_id


def test_the_standard_headers_are_sent(receiver: Received, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=rl")
    with telemetry(pushing_to(receiver.url, protocol=protocol)):
        pass
    receiver.last_metrics()
    assert receiver.headers[-1]["x-tenant"] == "rl"


def test_the_standard_endpoint_is_enough(receiver: Received, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with telemetry(environ=environ):
        pass
    assert "dataplane_up" in {name for name, _ in _pushed(receiver.last_metrics())}


def test_metrics_are_pushed_again_and_again() -> None:
    with http_receiver() as receiver, telemetry(pushing_to(receiver.url, interval=0.05)) as built:
        receiver.last_metrics()
        receiver.metrics.clear()
        receiver.last_metrics()
        text = built.scrape(None)[0].decode()
    ok = next(
        line for line in text.splitlines() if 'tq_exporter_otlp_exports_total{outcome="ok",signal="metrics"' in line
    )
    assert float(ok.rpartition(" ")[2]) >= 1


def test_a_counter_that_begins_anew_has_a_new_beginning() -> None:
    start = 1_900_000_000.0

    class Rounds:
        """Rounds of listings, one a minute, and the snapshot after the last."""

        def __init__(self) -> None:
            self.tracker = FlowTracker(ByName({}), 100)
            self.time = start

        def list(self, *groups: str) -> None:
            self.time += 60
            names = ["val", "train"] if groups else ["val"]
            self.tracker.begin_poll(names, time=self.time, now=self.time)
            self.tracker.observe("val", [], time=self.time)
            if groups:
                rows = [DataPlaneGroupMeta("train", name, [name], committed=True) for name in groups]
                self.tracker.observe("train", rows, time=self.time)

        def snapshot(self) -> Snapshot:
            return Snapshot(self.time, start, flows=self.tracker.flows())

    rounds = Rounds()
    points = []
    with http_receiver() as receiver:
        built = Telemetry(pushing_to(receiver.url), rounds.snapshot, build=BUILD, environ={})
        push = built._meter_provider._metric_readers[1]
        for listed in (["a"], ["a", "b", "c"], [], *([[]] * 11), ["d"]):
            rounds.list(*listed)
            push.force_flush()
            metrics = {metric.name: metric for metric in _metrics(receiver.last_metrics())}
            arrived, residence = (
                metrics["dataplane.partition.groups.arrived"],
                metrics["dataplane.partition.residence.duration"],
            )
            points.append(
                [
                    (point.start_time_unix_nano, point.time_unix_nano, getattr(point, "as_int", None))
                    for point in (*arrived.sum.data_points, *residence.histogram.data_points)
                    if point.attributes[0].value.string_value == "train"
                ]
            )
        built.shutdown(5.0)
    seen = [counter for counter, histogram in filter(None, points)]
    assert all(counter[:2] == histogram[:2] for counter, histogram in filter(None, points))
    assert [] in points  # gone for a while
    *before, after = seen
    assert {began for began, _, _ in before} == {int(start * 1e9)}
    assert (before[-1][2], after[2]) == (2, 1)
    assert before[-1][1] < after[0] < after[1]


def test_without_a_target_there_is_no_push_and_the_tracer_does_nothing() -> None:
    with telemetry() as built:
        assert isinstance(built.tracer, NoOpTracer)
        assert "otlp_exports" not in built.scrape(None)[0].decode()


def test_no_global_provider_is_set() -> None:
    code = (
        "from opentelemetry import metrics, trace\n"
        "from exporter.config import Config, Otlp\n"
        "from exporter.model.snapshot import Snapshot\n"
        "from exporter.telemetry import Telemetry\n"
        "telemetry = Telemetry(Config(otlp=Otlp(endpoint='http://127.0.0.1:9')), lambda: Snapshot(1.0, 1.0))\n"
        "print(type(metrics.get_meter_provider()).__name__, type(trace.get_tracer_provider()).__name__)\n"
        "import sys; print('grpc' in sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.split() == ["_ProxyMeterProvider", "ProxyTracerProvider", "False"]


def test_a_receiver_that_refuses_is_counted_logged_once_and_never_stops_a_scrape(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with http_receiver() as receiver:
        receiver.status = 400
        with caplog.at_level(logging.DEBUG), telemetry(pushing_to(receiver.url)) as built:
            with built.tracer.start_as_current_span("tq_exporter.poll"):
                pass
            for _ in range(3):
                built._meter_provider.force_flush()
            text = built.scrape(None)[0].decode()
            assert 'tq_exporter_otlp_exports_total{outcome="failed",signal="metrics"} 3.0' in text
            assert "dataplane_up 1.0" in text
            warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
            (warning,) = warnings
            assert warning.startswith("pushing metrics to 127.0.0.1:")
            assert "failed, 1 in a row: Failed to export metrics batch code: 400" in warning
            receiver.status = 200
            built._meter_provider.force_flush()
            assert "works again after 3 failures" in caplog.text
            text = built.scrape(None)[0].decode()
            assert 'tq_exporter_otlp_exports_total{outcome="ok",signal="metrics"} 1.0' in text


def test_a_push_that_cannot_be_rendered_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    snapshots: list[Snapshot] = [None]  # type: ignore[list-item]
    with http_receiver() as receiver:
        built = Telemetry(pushing_to(receiver.url), lambda: snapshots[0], build=BUILD, environ={})
        push = built._meter_provider._metric_readers[1]
        push.force_flush()
        snapshots[0] = rich_snapshot()
        assert 'outcome="failed",signal="metrics"} 1.0' in built.scrape(None)[0].decode()
        push.force_flush()
        assert 'outcome="ok",signal="metrics"} 1.0' in built.scrape(None)[0].decode()
        built.shutdown(5.0)
    assert "failed, 1 in a row: AttributeError" in caplog.text


class TestOutcomes:
    def setup_method(self) -> None:
        self.clock = StoppedClock()
        self.counted: list[tuple[str, str]] = []
        target = push_target("metrics", Otlp(endpoint="http://c:4318"), {})
        assert target is not None
        self.reasons = ExportLog()
        self.outcomes = Outcomes(target, lambda *counted: self.counted.append(counted), self.reasons, self.clock)

    def test_a_long_outage_is_logged_every_five_minutes_and_counted_every_time(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            for _ in range(121):  # half an hour at 15 s
                self.outcomes.failed()
                self.clock.advance(15)
            assert len(caplog.records) == 7
            self.outcomes.ok()
            self.outcomes.failed()
        assert self.counted.count(("metrics", "failed")) == 122
        assert [record.levelname for record in caplog.records[-2:]] == ["INFO", "WARNING"]
        assert "failed, 1 in a row" in caplog.records[-1].getMessage()

    def test_the_sdks_lines_reach_the_log_again_when_the_last_of_several_pipelines_has_ended(self) -> None:
        sdk, second = logging.getLogger("opentelemetry.exporter.otlp"), ExportLog()
        self.reasons.install()
        second.install()
        self.reasons.remove()
        assert not sdk.propagate
        second.remove()
        assert sdk.propagate

    def test_the_sdks_lines_become_the_reason_and_nothing_else(self, caplog: pytest.LogCaptureFixture) -> None:
        self.reasons.install()
        try:
            sdk = logging.getLogger("opentelemetry.exporter.otlp.proto.http.metric_exporter")
            sdk.warning("Transient error %s", "connection\nrefused")
            sdk.error("gave up")
            sdk.error("gave up again")
            self.outcomes.failed()
        finally:
            self.reasons.remove()
        (record,) = caplog.records
        assert record.getMessage().endswith("Transient error connection refused gave up")
        sdk.error("as before")
        assert "as before" in caplog.text


def _metrics(request: ExportMetricsServiceRequest) -> list[Metric]:
    return [m for resource in request.resource_metrics for scope in resource.scope_metrics for m in scope.metrics]


def _pushed(request: ExportMetricsServiceRequest) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the pushed values, under the names that a Collector gives them."""
    values = {}
    for metric in _metrics(request):
        name = prometheus_name(DECLARED[metric.name])
        for point in getattr(metric, str(metric.WhichOneof("data"))).data_points:
            labels = {prometheus_label(a.key): a.value.string_value for a in point.attributes}
            if metric.WhichOneof("data") != "histogram":
                value = getattr(point, point.WhichOneof("value"))
                values[name, frozenset(labels.items())] = value
                continue
            values[f"{name}_count", frozenset(labels.items())] = point.count
            values[f"{name}_sum", frozenset(labels.items())] = point.sum
            total = 0
            for bound, count in zip([*point.explicit_bounds, float("inf")], point.bucket_counts, strict=True):
                total += count
                values[f"{name}_bucket", frozenset({*labels.items(), ("le", str(bound))})] = total
    return values


def _scraped(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the scraped values. An empty label counts as absent."""
    return {
        (sample.name, frozenset((k, v.replace("+Inf", "inf")) for k, v in sample.labels.items() if v)): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name != "target_info"
    }
