"""A snapshot as flat figures."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import msgspec
import pytest

from exporter.model.readings import encode_readings, histograms, readings
from tests.support.snapshots import ODD_NAME, empty_snapshot, flow, partition, rich_snapshot, with_totals


def test_before_the_first_poll_nothing_is_known() -> None:
    assert dict(readings(empty_snapshot()).gauges) == {"tq/up": 0.0, "tq/controllers": 0.0}
    assert readings(empty_snapshot()).counters == {}


def test_what_is_known_has_a_finite_figure() -> None:
    found = readings(rich_snapshot())
    assert found.step == rich_snapshot().reference_version
    for key, value in {**found.gauges, **found.counters}.items():
        assert math.isfinite(value), key
        assert re.fullmatch(r"tq/[\w.-]+(/[\w.-]+)?", key), "what every tracker accepts"
    assert msgspec.json.decode(encode_readings(rich_snapshot()))["gauges"] == found.gauges


def test_a_figure_that_is_no_number_is_missing() -> None:
    shown = replace(rich_snapshot(), partitions=(replace(partition("train"), staleness_mean=math.nan),), trained=None)
    found = readings(shown).gauges
    assert "tq/train/lag_max" in found
    assert "tq/train/lag_mean" not in found


def test_while_nothing_answers_there_is_no_figure_of_the_queue() -> None:
    found = readings(replace(rich_snapshot(), up=False))
    assert found.counters == {}
    assert not [key for key in found.gauges if key.count("/") > 1]


def test_a_partition_of_which_nothing_has_left_has_counted_nothing() -> None:
    shown = replace(rich_snapshot(), partitions=(partition("train"),), flows=())
    found = readings(with_totals(shown))
    assert found.counters["tq/train/departed"] == found.gauges["tq/train/lost"] == 0


def test_evicted_are_those_that_left_without_being_whole() -> None:
    shown = replace(rich_snapshot(), partitions=(partition("train"),), flows=(flow("train"),))
    assert readings(shown).counters["tq/train/evicted"] == 16


@pytest.mark.parametrize("name", [ODD_NAME, "step_*", "a/b", "up", "training", "..", ""])
def test_a_name_that_keys_cannot_have_is_replaced_by_one_of_its_own(name: str) -> None:
    shown = replace(rich_snapshot(), partitions=(partition(name), partition("a_b")), flows=())
    keys = [key for key in readings(with_totals(shown)).gauges if key.endswith("/ready")]
    assert len(keys) == 3, "this one, a_b and those that train"
    assert all(re.fullmatch(r"tq/(?!\.+/)[\w.-]+/ready", key, re.ASCII) for key in keys)


def test_histograms_are_there_for_all_that_has_left() -> None:
    shown = replace(rich_snapshot(), up=False, partitions=(), flows=(flow("train"),))
    assert set(histograms(shown)) == {"tq/train/departed_lag", "tq/train/residence_s"}
