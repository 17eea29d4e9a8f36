"""The limits of the conditions: the alerts' thresholds, unless the configuration says otherwise."""

from __future__ import annotations

from exporter.app import limits_of
from exporter.conditions import Limits
from exporter.config import Config, Ping, Thresholds
from exporter.shipped.thresholds import THRESHOLDS
from tests.conditions.run import Run


def test_the_settings_have_the_names_and_defaults_of_the_alerts_thresholds() -> None:
    assert limits_of(Config()) == Limits()
    assert Limits().thresholds == {threshold.name: threshold.default for threshold in THRESHOLDS}


def test_a_run_may_have_limits_of_its_own() -> None:
    run = Run(limits_of(Config(ping=Ping(slo=1.0), thresholds=Thresholds(staleness_versions=8))))
    run.lag = 8
    assert run.condition("DataPlaneStalenessAboveWindow").holds is False
    run.lag = 9
    assert run.condition("DataPlaneStalenessAboveWindow").text == (
        "the stalest group of partition “train” is 9 weight versions behind"
    )
    assert limits_of(Config(ping=Ping(slo=1.0))).ping_slo_s == 1.0
