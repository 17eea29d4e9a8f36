"""The thresholds of the alerts: meaning and default of each, and the rule group that gives them to Prometheus.

A threshold is a recording rule whose expression is ``vector(x)``. Alerts and dashboards compare with that series, so a
new value changes one file and no alert. ``python -m exporter.shipped.thresholds`` prints the file with the
defaults.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from dataplane.nearest import did_you_mean

__all__ = [
    "FILE",
    "PREFIX",
    "THRESHOLDS",
    "Threshold",
    "ThresholdError",
    "parse_settings",
    "render_rules",
    "render_table",
]

PREFIX: Final = "tq:threshold:"
"""Prefix of the recorded series' names."""

FILE: Final = "thresholds.yaml"
"""The rule file with the thresholds."""


class ThresholdError(ValueError):
    """A setting with an unknown threshold or an invalid value. The text says what to write instead."""


@dataclass(frozen=True)
class Threshold:
    """One number that alerts compare with.

    Attributes:
        name: The series is ``tq:threshold:`` followed by this name.
        default: Its value unless the user sets another.
        meaning: What is compared with it, and in which unit.
        highest: The largest valid value, inclusive. The smallest is 0.
    """

    name: str
    default: float
    meaning: str
    highest: float = math.inf


THRESHOLDS: Final = (
    Threshold(
        "unavailable_fast_ratio", 0.2, "ratio of calls that fail with DataPlaneUnavailable, over 5 and 2 minutes", 1.0
    ),
    Threshold(
        "unavailable_slow_ratio",
        0.05,
        "ratio of calls that fail with DataPlaneUnavailable, over 1 hour and 5 minutes",
        1.0,
    ),
    Threshold("timeout_fast_ratio", 0.2, "ratio of calls that fail with DataPlaneTimeout, over 5 and 2 minutes", 1.0),
    Threshold(
        "timeout_slow_ratio", 0.05, "ratio of calls that fail with DataPlaneTimeout, over 1 hour and 5 minutes", 1.0
    ),
    Threshold("client_failures", 3.0, "failed client calls in an hour; with fewer, the error ratio is ignored"),
    Threshold(
        "client_write_failed_ratio",
        0.5,
        "ratio of puts that fail with an error that has no alert of its own, over 5 minutes",
        1.0,
    ),
    Threshold("client_failed_ratio", 0.5, "ratio of a process's calls since its start that fail, in a crash loop", 1.0),
    Threshold("client_crashes", 3.0, "starts and ends in 15 minutes of processes that fail, in a crash loop"),
    Threshold("ping_slo_seconds", 0.25, "longest ping within the objective; keep it equal to the exporter's ping.slo"),
    Threshold("ping_slo_objective", 0.9, "ratio of pings that must be that fast, over 10 minutes", 1.0),
    Threshold(
        "stalled_seconds",
        900.0,
        "age of the oldest ready or taken group, beside 15 minutes without a departure; set it above your longest step",
    ),
    Threshold(
        "waiting_seconds",
        300.0,
        "time with too few ready groups and none completed, for a warning; set it above your longest rollout",
    ),
    Threshold(
        "starved_seconds",
        600.0,
        "time with too few ready groups and none completed, for a page 10 minutes later; set it above your longest "
        "rollout",
    ),
    Threshold(
        "starved_groups_per_second",
        0.0,
        "completed groups per second, over 3 minutes, at or below which generation counts as stopped",
    ),
    Threshold(
        "starved_slow_ratio",
        0.25,
        "completed groups per second over 10 minutes divided by that over 6 hours; below this, generation is slow",
        1.0,
    ),
    Threshold(
        "given_up_groups",
        1.0,
        "groups that failed or left unfinished in 15 minutes; with this many or fewer, no alert about them fires",
    ),
    Threshold(
        "given_up_ratio", 0.3, "failed and unfinished groups divided by all groups that leave, over 30 minutes", 1.0
    ),
    Threshold("uncommitted_age_seconds", 3600.0, "age of an uncommitted group; set it above your longest generation"),
    Threshold("incomplete_age_seconds", 1800.0, "age of a committed group with missing keys"),
    Threshold("orphaned_groups", 0.0, "groups that stay taken although the trainer's version has increased"),
    Threshold(
        "version_unchanged_seconds",
        3600.0,
        "time without a new weight version while groups leave; set it above your longest step",
    ),
    Threshold("staleness_versions", 4.0, "largest acceptable lag; set it to your max_staleness_versions"),
    Threshold("storage_used_ratio", 0.9, "keys of a storage unit divided by its capacity", 1.0),
    Threshold(
        "storage_full_in_seconds",
        3600.0,
        "time until a storage unit is full, at the growth rate of the last 30 minutes",
    ),
    Threshold("storage_full_above_ratio", 0.5, "storage utilization below which the forecast is ignored", 1.0),
    Threshold(
        "storage_no_room_ratio", 0.1, "share of the last 10 minutes in which a storage unit had no room left", 1.0
    ),
    Threshold(
        "storage_full_time_ratio",
        0.1,
        "share of the last 30 minutes in which a storage unit was nearly full, together with storage_changes",
        1.0,
    ),
    Threshold(
        "storage_down_ratio",
        0.1,
        "share of the last 30 minutes in which a storage unit did not answer, together with storage_changes",
        1.0,
    ),
    Threshold("storage_changes", 4.0, "changes of a storage unit (full, not full, up, down) in 30 minutes"),
    Threshold("unlisted_ratio", 0.1, "keys that no partition lists divided by all keys in storage", 1.0),
    Threshold("restarts_per_hour", 3.0, "new controllers in an hour"),
    Threshold("metadata_failed_ratio", 0.5, "ratio of metadata polls that fail, over 10 minutes", 1.0),
    Threshold("controller_busy_ratio", 0.02, "share of its time that the controller spends on the exporter", 1.0),
    Threshold("otlp_failed_ratio", 0.5, "ratio of OTLP pushes that fail, over 15 minutes", 1.0),
    Threshold("malformed_rows", 0.0, "rows of a partition with an unreadable tag"),
)
"""Every threshold."""

_BY_NAME: Final = {threshold.name: threshold for threshold in THRESHOLDS}

_HEAD: Final = """\
# Written by tq-exporter; the defaults come from exporter/shipped/thresholds.py.
# The thresholds of the alerts. To change one, set thresholds.NAME in the exporter's configuration and run
# `tq-exporter rules --config exporter.yaml -o DIR`, then reload Prometheus. Each run writes the whole file:
# `--set NAME=VALUE` of an earlier run is not kept.
groups:
  - name: tq-thresholds
    rules:
"""


def parse_settings(settings: list[str]) -> dict[str, float]:
    """Return the values in *settings*, each ``name=value``. A name may be given once.

    Raises:
        ThresholdError: The name is unknown, or the value is not a number in its range.
    """
    values = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        name = name.strip().removeprefix(PREFIX)
        threshold = _BY_NAME.get(name)
        if threshold is None:
            raise ThresholdError(
                f"{name!r} is not a threshold; {did_you_mean(name, _BY_NAME, 'tq-exporter rules --list')}"
            )
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not equals or not 0 <= value <= threshold.highest or math.isinf(value):
            allowed = "from 0" if math.isinf(threshold.highest) else f"from 0 to {_shown(threshold.highest)}"
            raise ThresholdError(f"{setting!r}: write {name}=NUMBER, with a number {allowed}")
        if name in values:
            raise ThresholdError(f"{setting!r}: {name} is given twice; keep one")
        values[name] = value
    return values


def render_rules(values: Mapping[str, float] | None = None) -> str:
    """Return the rule file, with *values* in place of the defaults."""
    chosen = {threshold.name: threshold.default for threshold in THRESHOLDS} | dict(values or {})
    return _HEAD + "".join(
        f"      # {threshold.meaning}\n"
        f"      - record: {PREFIX}{threshold.name}\n"
        f"        expr: vector({chosen[threshold.name]!r})\n"
        for threshold in THRESHOLDS
    )


def render_table() -> str:
    """Return the thresholds as lines of text: name, default, meaning."""
    width = max(len(threshold.name) for threshold in THRESHOLDS)
    return "".join(f"{each.name:<{width}}  {_shown(each.default):>6}  {each.meaning}\n" for each in THRESHOLDS)


def _shown(value: float) -> str:
    """Return the shortest text that reads back as *value*."""
    return repr(value).removesuffix(".0")


if __name__ == "__main__":
    sys.stdout.write(render_rules())
