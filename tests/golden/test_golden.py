"""The exposition equals the reviewed ``*.prom`` files: every name, label and help text."""

from __future__ import annotations

import pytest

from exporter.catalogue.metrics import EXPORTER_METRICS, prometheus_name
from tests.golden.scenarios import FOLDER, SCENARIOS, expose


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_exposition_is_as_agreed(name: str) -> None:
    agreed = (FOLDER / f"{name}.prom").read_text(encoding="utf-8")
    assert expose(name) == agreed, "run: python -m tests.golden.scenarios, and read the difference"


def test_together_they_show_every_metric_but_those_of_what_is_switched_off() -> None:
    text = "".join((FOLDER / f"{name}.prom").read_text(encoding="utf-8") for name in SCENARIOS)
    for metric in EXPORTER_METRICS:
        if metric.name not in ("tq_exporter.otlp.exports", "tq_exporter.tracker.points"):
            assert f"# TYPE {prometheus_name(metric)} {metric.kind}\n" in text
