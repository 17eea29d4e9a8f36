"""The standard variables: what the SDK would make a traceback, a log line or nothing of is one error."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from exporter.config import Config, ConfigError, Otlp
from exporter.config.model import OtlpProtocol
from exporter.telemetry import Telemetry, check_environment
from tests.support.snapshots import empty_snapshot

PUSHED = Config(otlp=Otlp(endpoint="http://127.0.0.1:9"))

WRONG = [
    ("OTEL_SDK_DISABLED", "yes", "'yes' is not supported; write true or false"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "sometimes", "is not supported; write always_on, always_off or trace_based"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "", "'' is not supported"),
    ("OTEL_RESOURCE_ATTRIBUTES", "team=rl,cluster", "'cluster' is not key=value; write key=value,key=value"),
    ("OTEL_RESOURCE_ATTRIBUTES", "=rl", "'=rl' is not key=value"),
    ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "otel,nowhere", "'nowhere' is not installed"),
    ("OTEL_METRIC_EXPORT_TIMEOUT", "soon", "'soon' is not a number of milliseconds"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "0", "'0' is not a number of milliseconds"),
    ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "both", "write cumulative, delta or lowmemory"),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "none", "'none' is not supported"),
    ("OTEL_TRACES_SAMPLER", "always", "'always' is not supported; write always_on, always_off, traceidratio"),
    ("OTEL_BSP_SCHEDULE_DELAY", "0", "'0' is not a number of milliseconds; write a whole number of at least 1"),
    ("OTEL_BSP_EXPORT_TIMEOUT", "1.5", "'1.5' is not a number of milliseconds"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "'many' is not a number of spans"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "100", "a queue of 100 spans holds no batch of 512; raise it, or set OTEL_BSP_MAX_EXP"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "-1", "'-1' is not a number of spans"),
    ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "-1", "'-1' is not a limit"),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "long", "'long' is not a limit; write a whole number of at least 0"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "'http/json' is not supported"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "thrift", "'thrift' is not supported"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "-1", "'-1' is not a number of seconds"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "'zip' is not supported; write gzip, deflate or none"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "'collector:4318' is not the URL of an OTLP receiver"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://me:secret@:1", "'http://***@:1' is not the URL"),
    ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "a=b,secret", "header 2 is not name=value"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer;secret", "header 1 is not name=value"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/ca.pem", "'/no/ca.pem' cannot be read (No such file or directory)"),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", __file__, "has no certificate in it"),
    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/no/key.pem", "cannot be read"),
    ("OTEL_EXPORTER_OTLP_INSECURE", "maybe", "'maybe' is not supported; write true or false"),
]


@pytest.mark.parametrize(("variable", "value", "said"), WRONG)
def test_a_wrong_variable_is_one_line(variable: str, value: str, said: str) -> None:
    environ = {variable: value}
    with pytest.raises(ConfigError) as caught:
        check_environment(PUSHED, environ)
    line = str(caught.value)
    assert line.startswith(f"{variable}: ")
    assert said in line
    assert "\n" not in line
    assert "secret" not in line
    with pytest.raises(ConfigError):
        Telemetry(PUSHED, empty_snapshot, environ=environ)


def test_the_share_of_a_sampler_that_needs_one() -> None:
    ratio = {"OTEL_TRACES_SAMPLER": "traceidratio"}
    for wrong in ("half", "1.5", "-1", ""):
        with pytest.raises(ConfigError, match="is not a share of the traces"):
            check_environment(PUSHED, {**ratio, "OTEL_TRACES_SAMPLER_ARG": wrong})
    check_environment(PUSHED, {**ratio, "OTEL_TRACES_SAMPLER_ARG": "0.25"})
    check_environment(PUSHED, {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_TRACES_SAMPLER_ARG": "half"})


@pytest.mark.parametrize(
    ("protocol", "value", "usable"),
    [
        ("http/protobuf", "deflate", True),
        ("grpc", "deflate", False),
        ("grpc", "GZIP", True),
        ("http/protobuf", "", True),
    ],
)
def test_the_compression_depends_on_the_protocol(protocol: OtlpProtocol, value: str, usable: bool) -> None:
    config = Config(otlp=Otlp(endpoint="http://c:1", protocol=protocol))
    if usable:
        check_environment(config, {"OTEL_EXPORTER_OTLP_COMPRESSION": value})
    else:
        with pytest.raises(
            ConfigError, match="OTEL_EXPORTER_OTLP_COMPRESSION: 'deflate' is not supported; write gzip, or"
        ):
            check_environment(config, {"OTEL_EXPORTER_OTLP_COMPRESSION": value})


def test_what_the_specification_allows_is_accepted_by_the_check_and_by_the_sdk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "key.pem").touch()
    environ = {
        "OTEL_SDK_DISABLED": "False",
        "OTEL_METRICS_EXEMPLAR_FILTER": "always_off",
        "OTEL_RESOURCE_ATTRIBUTES": "team=rl, k8s.pod = a%20b ,expr=a=b",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "otel,*",
        "OTEL_METRIC_EXPORT_TIMEOUT": "2500",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "CUMULATIVE",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "1",
        "OTEL_BSP_MAX_QUEUE_SIZE": "100",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "100",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "0",
        "OTEL_ATTRIBUTE_COUNT_LIMIT": "",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:pass@collector/base",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer abc==,x-tenant=a%2Cb,,x-empty=",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5",
        "OTEL_EXPORTER_OTLP_CLIENT_KEY": str(tmp_path / "key.pem"),
        "OTEL_EXPORTER_OTLP_INSECURE": "true",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    check_environment(PUSHED, environ)
    with caplog.at_level(logging.WARNING):
        Telemetry(PUSHED, empty_snapshot).shutdown(0.1)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("opentelemetry")] == []


def test_the_variables_of_what_is_not_pushed_are_left_alone() -> None:
    wrong = {variable: value for variable, value, _ in WRONG if "OTLP" in variable or "BSP" in variable}
    del wrong["OTEL_EXPORTER_OTLP_ENDPOINT"], wrong["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
    check_environment(Config(), wrong)
    check_environment(PUSHED, {"OTEL_TRACES_EXPORTER": "none", "OTEL_BSP_MAX_QUEUE_SIZE": "many"})
