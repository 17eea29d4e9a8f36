"""The receivers, chosen from the configuration and the standard variables."""

from __future__ import annotations

import logging

import pytest

from exporter.config import ConfigError, Otlp
from exporter.telemetry.targets import PushTarget, push_interval_s, push_target

CONFIGURED = Otlp(endpoint="http://collector:4318")


def test_nothing_is_pushed_by_default():
    assert push_target("metrics", Otlp(), {}) is None
    assert push_target("traces", Otlp(), {}) is None


def test_a_configured_endpoint_pushes_both_signals():
    assert push_target("metrics", CONFIGURED, {}) == PushTarget(
        "metrics", "http/protobuf", "http://collector:4318/v1/metrics", 2.0, "collector:4318"
    )
    assert push_target("traces", CONFIGURED, {}) == PushTarget(
        "traces", "http/protobuf", "http://collector:4318/v1/traces", 2.0, "collector:4318"
    )


@pytest.mark.parametrize(
    ("endpoint", "protocol", "environ", "expected"),
    [
        ("http://c:4317", None, {}, "grpc"),
        ("http://c:4318", None, {}, "http/protobuf"),
        ("http://c", None, {}, "http/protobuf"),
        ("http://c:4317", "http/protobuf", {}, "http/protobuf"),
        ("http://c:4318", None, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc"),
        ("http://c:4318", "http/protobuf", {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "http/protobuf"),
        (
            "http://c:4318",
            None,
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"},
            "grpc",
        ),
        (None, None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, "grpc"),
    ],
)
def test_the_protocol_is_configured_or_standard_or_told_by_the_port(endpoint, protocol, environ, expected):
    target = push_target("metrics", Otlp(endpoint=endpoint, protocol=protocol), environ)
    assert target is not None
    assert target.protocol == expected


def test_grpc_takes_the_endpoint_as_it_is():
    target = push_target("metrics", Otlp(endpoint="http://c:4317"), {})
    assert target is not None
    assert target.endpoint == "http://c:4317"


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
        {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318/custom"},
        {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
        {"OTEL_METRICS_EXPORTER": "prometheus,otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"},
    ],
)
def test_standard_variables_alone_push_and_are_left_to_the_sdk(environ):
    target = push_target("metrics", Otlp(), environ)
    assert target is not None
    assert target.endpoint is None
    assert target.receiver == "c:4318"


def test_naming_the_exporter_is_enough():
    target = push_target("traces", Otlp(), {"OTEL_TRACES_EXPORTER": "otlp"})
    assert target == PushTarget("traces", "http/protobuf", None, 2.0, "localhost:4318")


@pytest.mark.parametrize(
    "environ",
    [{"OTEL_METRICS_EXPORTER": "none"}, {"OTEL_METRICS_EXPORTER": "prometheus"}, {"OTEL_SDK_DISABLED": " TRUE "}],
)
def test_standard_variables_can_switch_the_push_off(environ):
    assert push_target("metrics", CONFIGURED, environ) is None


def test_switching_one_signal_off_leaves_the_other():
    assert push_target("metrics", CONFIGURED, {"OTEL_TRACES_EXPORTER": "none"}) is not None


def test_an_exporter_that_is_not_supported_is_said_so(caplog):
    with caplog.at_level(logging.WARNING):
        assert push_target("metrics", CONFIGURED, {"OTEL_METRICS_EXPORTER": "console"}) is None
    assert "'console' is not supported" in caplog.text


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"])
def test_a_protocol_that_is_not_supported_ends_the_start(variable):
    with pytest.raises(ConfigError, match=f"{variable}: 'http/json' is not supported; write http/protobuf or grpc"):
        push_target("metrics", CONFIGURED, {variable: "http/json"})


def test_the_standard_timeout_counts_unless_ours_is_configured():
    environ = {"OTEL_EXPORTER_OTLP_TIMEOUT": "7"}
    assert push_target("metrics", CONFIGURED, environ).timeout is None
    assert push_target("metrics", Otlp(endpoint="http://c:1", timeout=1.5), environ).timeout == 1.5


def test_the_receivers_name_carries_no_credentials():
    target = push_target("metrics", Otlp(endpoint="http://user:secret@c:4318"), {})
    assert target is not None
    assert target.receiver == "c:4318"


def test_the_interval():
    assert push_interval_s(Otlp(), {}) == 15.0
    assert push_interval_s(Otlp(), {"OTEL_METRIC_EXPORT_INTERVAL": "2500"}) == 2.5
    assert push_interval_s(Otlp(interval=30.0), {"OTEL_METRIC_EXPORT_INTERVAL": "2500"}) == 30.0
    for given in ("soon", "0", "-5", "inf", "nan"):
        with pytest.raises(ConfigError, match="OTEL_METRIC_EXPORT_INTERVAL"):
            push_interval_s(Otlp(), {"OTEL_METRIC_EXPORT_INTERVAL": given})
