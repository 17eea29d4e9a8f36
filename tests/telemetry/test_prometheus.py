"""The scrape: valid in both formats, escaped, complete under concurrency, without duplicates."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from exporter.catalogue.metrics import EXPORTER_METRICS, prometheus_name
from exporter.config import Config
from exporter.config.addresses import Listen
from exporter.model.snapshot import Snapshot
from exporter.telemetry import Telemetry
from tests.support.snapshots import ODD_NAME, TAKEN, empty_snapshot, partition, rich_snapshot
from tests.telemetry.support import telemetry

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS_ACCEPTS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
EXPOSED = {prometheus_name(metric) for metric in EXPORTER_METRICS} - {"tq_exporter_otlp_exports_total"}


def test_no_accept_header_gives_the_classic_format() -> None:
    with telemetry() as built:
        body, content_type = built.scrape(None)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    families = {family.name: family for family in parse_classic(body.decode())}
    assert families["dataplane_up"].samples[0].value == 1


@pytest.mark.parametrize("accept", [OPENMETRICS, PROMETHEUS_ACCEPTS])
def test_openmetrics_when_asked_for(accept: str) -> None:
    with telemetry() as built:
        built.recorder.ping(0.001, None)
        body, content_type = built.scrape(accept)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    assert families["dataplane_errors"].type == "counter"
    assert families["dataplane_ping_duration_seconds"].unit == "seconds"
    assert families["target"].type == "info"


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("application/openmetrics-text", True),
        ("Application/OpenMetrics-Text; version=1.0.0", True),
        ("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5", True),
        ("text/plain;q=0.5, application/openmetrics-text;q=0.8", True),
        ("text/plain;version=0.0.4;q=0.8, application/openmetrics-text;version=1.0.0;q=0.5", False),
        ("application/openmetrics-text;q=0.3, */*", False),
        ("application/openmetrics-text;q=0.3, text/*;q=0.4", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=0.000, text/html", False),
        ('application/openmetrics-text; version="1.0.0"', False),
        ("application/openmetrics-text; version=0.0.1", False),
        ("application/openmetrics-text; version=2.0.0", False),
        ("application/openmetrics-text; version=x", False),
        ("application/openmetrics-text; version=", False),
        ("application/openmetrics-text; version", False),
        ('text/plain; version="1.0.0"', False),
        ("text/plain; version=99", False),
        ("application/openmetrics-text; q=high", False),
        ("application/openmetrics-text; q=1.5", False),
        ("application/openmetrics-text; q=nan", False),
        ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;q=0.9", False),
        ("text/html", False),
        ("", False),
        (",;=, ;;", False),
    ],
)
def test_the_format_with_the_highest_quality_that_is_known(accept: str, openmetrics: bool) -> None:
    with telemetry() as built:
        body, content_type = built.scrape(accept)
    kind = "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain; version="
    assert content_type.startswith(kind)
    assert body.endswith(b"# EOF\n") is openmetrics


@given(
    st.lists(st.sampled_from([*'",;=*/ .', "q=", "version=", "text/plain", "application/openmetrics-text", "1.0.0"]))
)
def test_no_accept_header_is_an_error(words: list[str]) -> None:
    with telemetry() as built:
        built.scrape("".join(words))


@pytest.mark.parametrize("accept", [None, OPENMETRICS])
def test_only_the_names_that_are_asked_for(accept: str | None) -> None:
    names = ["dataplane_up", "dataplane_errors_total", "target_info", "nothing"]
    with telemetry() as built:
        built.recorder.ping(0.001, None)
        everything, content_type = built.scrape(accept)
        body, same_type = built.scrape(accept, names)
    parse = parse_classic if accept is None else parse_openmetrics
    wanted = {sample for sample in _samples(parse(everything.decode())) if sample[0] in names}
    assert {sample[0] for sample in wanted} == set(names) - {"nothing"}
    assert _samples(parse(body.decode())) == wanted
    assert same_type == content_type


def test_both_formats_hold_the_same_series() -> None:
    with telemetry() as built:
        built.recorder.ping(0.001, None)
        classic = _samples(parse_classic(built.scrape(None)[0].decode()))
        openmetrics = _samples(parse_openmetrics(built.scrape(OPENMETRICS)[0].decode()))
    assert classic == openmetrics


@pytest.mark.parametrize("accept", [None, OPENMETRICS])
def test_no_series_and_no_family_appears_twice(accept: str | None) -> None:
    with telemetry() as built:
        built.recorder.ping(0.001, None)
        built.scrape(accept)
        text = built.scrape(accept)[0].decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    series = [line.rpartition(" ")[0] for line in lines]
    assert len(set(series)) == len(series)
    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(set(types)) == len(types)


def test_every_catalogue_metric_is_there_under_its_name_with_its_help() -> None:
    with telemetry() as built:
        built.recorder.ping(0.001, None)
        built.recorder.tracker_point("tensorboard", "ok")
        text = built.scrape(None)[0].decode()
    for metric in EXPORTER_METRICS:
        if (name := prometheus_name(metric)) in EXPOSED:
            assert f"# HELP {name} {metric.description}\n# TYPE {name} {metric.kind}\n" in text


def test_nothing_else_is_exposed() -> None:
    with telemetry() as built:
        built.recorder.ping(0.001, None)
        built.recorder.tracker_point("tensorboard", "ok")
        lines = built.scrape(None)[0].decode().splitlines()
    assert {line.split()[2] for line in lines if line.startswith("# TYPE")} == EXPOSED | {"target_info"}


def test_no_series_carries_the_scope_or_its_schema() -> None:
    with telemetry() as built:
        built.recorder.ping(0.001, None)
        families = list(parse_classic(built.scrape(None)[0].decode()))
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    assert not {label for label in labels if "scope" in label or "schema" in label}


@pytest.mark.parametrize("accept", [None, OPENMETRICS])
def test_odd_partition_names_come_back_as_they_were(accept: str | None) -> None:
    with telemetry() as built:
        text = built.scrape(accept)[0].decode("utf-8")
    families = parse_openmetrics(text) if accept else parse_classic(text)
    names = {s.labels["partition"] for f in families for s in f.samples if s.name == "dataplane_partition_keys"}
    assert ODD_NAME in names


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12), max_size=4, unique=True))
def test_any_partition_name_survives_the_round_trip(names: list[str]) -> None:
    snapshot = replace(empty_snapshot(), partitions=tuple(partition(name) for name in names))
    with telemetry(snapshot=snapshot) as built:
        # As in Prometheus, only \n ends a line.
        lines = built.scrape(None)[0].decode("utf-8").split("\n")
    keys = [line for line in lines if line.startswith("dataplane_partition_keys{")]
    read = {line.removeprefix('dataplane_partition_keys{partition="').rpartition('"} ')[0] for line in keys}
    assert {_unescape(value) for value in read} == set(names)


def test_the_target_carries_run_and_build() -> None:
    with telemetry() as built:
        (line,) = [line for line in built.scrape(None)[0].decode().splitlines() if line.startswith("target_info{")]
    assert 'run="grpo-7b"' in line
    assert 'service_name="tq-exporter"' in line
    assert 'service_version="1.2.3"' in line


def test_the_standard_variables_describe_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "sidecar")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "run=from-env,k8s.pod.name=pod-7")
    with telemetry(Config()) as built:
        text = built.scrape(None)[0].decode()
    assert 'service_name="sidecar"' in text
    assert 'k8s_pod_name="pod-7"' in text
    assert 'run="from-env"' in text
    with telemetry(Config(run="configured")) as built:
        assert 'run="configured"' in built.scrape(None)[0].decode()


@pytest.mark.parametrize(
    ("host", "instance"),
    [
        ("10.0.0.7", "10.0.0.7:9464"),
        ("::", "head-0:9464"),
        ("0.0.0.0", "head-0:9464"),
        ("127.0.0.1", "head-0:9464"),
        ("localhost", "head-0:9464"),
        ("fd00::7", "[fd00::7]:9464"),
        ("head.example", "head.example:9464"),
    ],
)
def test_a_restart_keeps_the_instance(monkeypatch: pytest.MonkeyPatch, host: str, instance: str) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "head-0")
    for _ in range(2):
        with telemetry(Config(listen=Listen(host))) as built:
            assert f'service_instance_id="{instance}"' in built.scrape(None)[0].decode()
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=mine")
    with telemetry(Config(listen=Listen(host))) as built:
        assert 'service_instance_id="mine"' in built.scrape(None)[0].decode()


def test_a_disabled_sdk_still_exposes_what_follows_from_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with telemetry() as built:
        built.recorder.ping(0.001, None)
        built.recorder.error("ping", "DataPlaneTimeout")
        for _ in range(2):
            text = built.scrape(None)[0].decode()
            assert "dataplane_up 1.0\n" in text
            assert "target_info{" in text


def test_a_partition_that_is_gone_is_gone_from_the_next_scrape() -> None:
    snapshots = [rich_snapshot()]
    built = Telemetry(Config(), lambda: snapshots[0], environ={})
    assert 'dataplane_partition_depth{partition="train"}' in built.scrape(None)[0].decode()
    snapshots[0] = replace(rich_snapshot(), partitions=(), taken_at=TAKEN + 10)
    text = built.scrape(None)[0].decode()
    assert "dataplane_partition_depth" not in text
    assert 'dataplane_partition_groups_arrived_total{partition="train"} 120.0' in text
    built.shutdown(1.0)


def test_concurrent_scrapes_each_get_all_of_it_once() -> None:
    inside = threading.Semaphore(1)
    overlapped: list[str] = []

    def snapshot() -> Snapshot:
        if not inside.acquire(blocking=False):
            overlapped.append("two collections at once mix their series")
            return rich_snapshot()
        time.sleep(0.02)  # long enough for the others to interfere if they could
        inside.release()
        return rich_snapshot()

    built = Telemetry(Config(), snapshot, environ={})
    expected = sorted(built.scrape(None)[0].splitlines())
    with ThreadPoolExecutor(8) as pool:
        bodies = [future.result() for future in [pool.submit(built.scrape, None) for _ in range(8)]]
    built.shutdown(1.0)
    assert overlapped == []
    assert all(sorted(body.splitlines()) == expected for body, _ in bodies)


def test_promtool_accepts_it() -> None:
    promtool = shutil.which("promtool")
    assert promtool, "promtool is missing: install the package prometheus"
    with telemetry() as built:
        built.recorder.ping(0.001, None)
        built.recorder.ping(4.0, "DataPlaneTimeout")
        body, _ = built.scrape(None)
    result = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")


def _samples(families: Iterable[Metric]) -> set[tuple[str, tuple[tuple[str, str], ...], float]]:
    return {
        (sample.name, tuple(sorted(sample.labels.items())), sample.value)
        for family in families
        for sample in family.samples
    }


def _unescape(value: str) -> str:
    return re.sub(r"\\(.)", lambda escape: {"n": "\n"}.get(escape[1], escape[1]), value)
