"""Errors in the values name the value, before anything is installed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.helm.helm import CHART, CI_VALUES, install_or_fail, steps

_WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"serviceMonitors": {"enabled": True}}, "'serviceMonitors' not allowed", "a typo"),
    (
        {"serviceMonitor": {"enable": True}},
        "/serviceMonitor': additional properties 'enable' not allowed",
        "a typo below",
    ),
    ({"service": {"port": "9464"}}, "/service/port': got string, want integer", "a wrong type"),
    ({"service": {"port": 0}}, "/service/port': minimum: got 0, want 1", "a number out of range"),
    ({"mode": "daemonset"}, "/mode': value must be one of 'standalone', 'sidecar'", "an unknown mode"),
    ({"image": {"digest": "latest"}}, "/image/digest': 'latest' does not match pattern", "no digest"),
    ({"prometheusRule": {"thresholds": {"staleness_versions": "2"}}}, "want number", "a threshold in quotes"),
    ({"podMonitor": {"interval": "15"}}, "/podMonitor/interval': '15' does not match pattern", "no unit"),
    ({"config": {"discovery": None}}, "config.discovery: set how to find TransferQueue: ray_address", "no discovery"),
]


_IGNORED: list[tuple[dict[str, Any], str, str]] = [
    ({"config": {"listen": "0.0.0.0"}}, "/config/listen'", "an address without a port"),
    ({"config": {"listen": "0.0.0.0:0"}}, "/config/listen'", "any free port"),
    ({"extraArgs": ["--listen=127.0.0.1:1"]}, "/extraArgs/0'", "a flag against the configuration"),
    ({"extraEnv": [{"name": "TQ_EXPORTER_LISTEN", "value": "1"}]}, "/extraEnv/0/name'", "a variable against the file"),
    ({"extraEnv": [{"name": "HOME", "value": "/"}]}, "/extraEnv/0/name'", "a variable of the chart"),
    (
        {"commonLabels": {"app.kubernetes.io/name": "x"}},
        "propertyName 'app.kubernetes.io/name'",
        "a label of the chart",
    ),
    ({"podAnnotations": {"checksum/config": "x"}}, "propertyName 'checksum/config'", "an annotation of the chart"),
    ({"image": {"tag": "1", "digest": f"sha256:{'0' * 64}"}}, "/image/tag'", "a tag beside a digest"),
    ({"sidecar": {"podSelector": {"a": "b"}}}, "/sidecar'", "labels of a sidecar without one"),
    ({"mode": "sidecar", "nodeSelector": {"a": "b"}}, "/nodeSelector'", "a pod's setting without a pod"),
    ({"mode": "sidecar", "networkPolicy": {"enabled": True}}, "/networkPolicy/enabled'", "a policy without a pod"),
    ({"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}, "/podMonitor/enabled'", "two scrapes"),
    ({"serviceMonitor": {"labels": {"release": "x"}}}, "/serviceMonitor/labels'", "labels of a monitor that is off"),
    ({"prometheusRule": {"thresholds": {"stalled_seconds": 1}}}, "/prometheusRule/thresholds'", "rules that are off"),
    ({"ray": {"tokenSecret": {"key": "token"}}}, "/ray/tokenSecret/key'", "a key without a Secret"),
    ({"discoveryVolume": {"mountPath": "/x"}}, "/discoveryVolume/mountPath'", "a folder without a volume"),
    ({"historyVolume": {"mountPath": "/x"}}, "/historyVolume/mountPath'", "a folder without a volume"),
    ({"tests": {"basicAuth": {"username": {"name": "a", "key": "b"}}}}, "/tests/basicAuth'", "a user, no password"),
    (
        {"web": {"configSecret": {"name": "a"}}, "config": {"web": {"config_file": "b"}}},
        "/config/web/config_file'",
        "two web configurations",
    ),
]


def test_values_that_would_be_ignored_are_refused() -> None:
    discovery = CI_VALUES["default"]["config"]
    releases = [
        steps("wrong", {**values, "config": {**discovery, **values.get("config", {})}}) for values, _, _ in _IGNORED
    ]
    said = zip(install_or_fail(*releases), _IGNORED, strict=True)
    assert [f"{what}: {text}" for text, (_, wanted, what) in said if wanted not in text] == []


def test_the_conditions_of_the_schema_name_the_defaults_that_there_are() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(schema: Any, value: Any, where: str) -> None:
        if isinstance(schema, dict) and "const" in schema:
            assert schema["const"] == value, where
        for name, inner in schema.get("properties", {}).items() if isinstance(schema, dict) else ():
            if name in value:
                compare(inner, value[name], f"{where}.{name}")

    for rule in json.loads((CHART / "values.schema.json").read_text())["allOf"]:
        compare(rule["then"], defaults, rule["$comment"])


def test_wrong_values_are_refused_by_name() -> None:
    releases = [steps("wrong", {**CI_VALUES["default"], **values}) for values, _, _ in _WRONG]
    for said, (_, wanted, what) in zip(install_or_fail(*releases), _WRONG, strict=True):
        assert wanted in said, f"{what}: {said}"


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    def compare(schema: dict[str, Any], values: Any, where: str) -> None:
        if schema.get("additionalProperties") is not False or values == {}:
            return
        known = set(schema["properties"])
        # Values that Helm adds to every subchart, that an umbrella chart enables it with, and fields of Kubernetes
        # beside them.
        free = {"global", "enabled"} if not where else {"claims"}
        assert set(values) - known == set(), where
        assert known - set(values) - free == set(), where
        for name, value in values.items():
            compare(schema["properties"][name], value, f"{where}.{name}")

    compare(
        json.loads((CHART / "values.schema.json").read_text()), yaml.safe_load((CHART / "values.yaml").read_text()), ""
    )


@pytest.mark.parametrize("name", CI_VALUES)
def test_the_examples_name_no_default(name: str) -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    for key, value in CI_VALUES[name].items():
        assert value != defaults[key], key
