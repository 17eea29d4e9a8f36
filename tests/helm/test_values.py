"""Errors in the values name the value, before anything is installed."""

from __future__ import annotations

import json
import re
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


def test_wrong_values_are_refused_by_name() -> None:
    releases = [steps("wrong", {**CI_VALUES["default"], **values}) for values, _, _ in _WRONG]
    for said, (_, wanted, what) in zip(install_or_fail(*releases), _WRONG, strict=True):
        assert wanted in said, f"{what}: {said}"


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    def compare(schema: dict[str, Any], values: Any, where: str) -> None:
        if schema.get("additionalProperties") is not False:
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


def test_the_chart_has_the_version_of_the_package() -> None:
    """The release that the chart installs is the one that the source becomes."""
    settings = (CHART.parents[1] / "pyproject.toml").read_text()
    becomes = re.search(r'^fallback_version = "([\d.]+)\.dev0"$', settings, re.MULTILINE)
    assert becomes is not None
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == becomes[1]


@pytest.mark.parametrize("name", CI_VALUES)
def test_the_examples_name_no_default(name: str) -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    for key, value in CI_VALUES[name].items():
        assert value != defaults[key], key
