"""The soak test's measurements of the exporter, and their limits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from exporter.model.source_health import MISSED_POLLS
from tests.soak.stand_in import Run, number_of
from tests.support.exporter_process import ExporterProcess

__all__ = ["MAX_RSS_GROWTH_MB", "Row", "Watch"]

MAX_RSS_GROWTH_MB = 1.5
_MAX_SERIES_GROWTH = 1.05
# How long a gone partition may still be shown: three intervals, plus this for delays on a busy machine.
_SLACK_S = 5.0

Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True)
class Sample:
    """One measurement of the process."""

    at: float
    rss_mb: float
    fds: int
    threads: int
    series: int


@dataclass(frozen=True)
class Row:
    """One line of the result."""

    what: str
    early: float
    late: float
    limit: str
    good: bool


class Watch:
    """Samples an exporter and checks it. Errors in single scrapes are kept in :attr:`wrong`.

    Args:
        exporter: The process to sample.
        run: The run that it should see.
    """

    def __init__(self, exporter: ExporterProcess, run: Run) -> None:
        self._exporter = exporter
        self._run = run
        self._samples: list[Sample] = []
        self._counters: dict[Series, float] = {}
        self._interval_s = 0.0
        self.wrong: dict[str, list[str]] = {"counters that went back": [], "ghost series": []}

    def sample(self) -> None:
        """Take one sample."""
        asked = time.monotonic()
        status, text = self._exporter.get("/metrics")
        assert status == 200, text
        counters: dict[Series, float] = {}
        series = 0
        since = asked - _SLACK_S - MISSED_POLLS * self._interval_s
        for family in text_string_to_metric_families(text):
            for one in family.samples:
                series += 1
                if family.type in ("counter", "histogram") and not one.name.endswith("_created"):
                    counters[one.name, frozenset(one.labels.items())] = one.value
                elif family.name.startswith("dataplane_partition_"):
                    self._check_alive(one.name, one.labels, since)
                elif one.name == "dataplane_source_interval_seconds" and one.labels["source"] == "metadata":
                    self._interval_s = one.value
        for key, value in counters.items():
            if value < self._counters.get(key, 0.0):
                self.wrong["counters that went back"].append(f"{key}: {self._counters[key]} to {value}")
        self._counters = counters
        process = self._exporter.process
        with process.oneshot():
            self._samples.append(
                Sample(asked, process.memory_info().rss / 2**20, process.num_fds(), process.num_threads(), series)
            )

    def counter(self, name: str, **labels: str) -> float:
        """Return the sum of a counter's series that carry *labels*, as of the last sample."""
        wanted = labels.items()
        return sum(
            value for (found, has), value in self._counters.items() if found == name and wanted <= dict(has).items()
        )

    def judge(self) -> list[Row]:
        """Compare the second quarter of the samples, after the warm-up, with the last."""
        quarter = max(len(self._samples) // 4, 1)
        early, late = self._samples[quarter : 2 * quarter], self._samples[-quarter:]
        assert early, "too few samples"

        def row(
            what: str,
            of: Callable[[Sample], float],
            limit: str,
            most: Callable[[float], float],
            sum_up: Callable[[Iterable[float]], float] = statistics.median,
        ) -> Row:
            before, after = (sum_up(map(of, part)) for part in (early, late))
            return Row(what, before, after, limit, after <= most(before))

        # There are fewer files while no controller is known, so a high value says more than the median.
        rows = [
            row("resident memory, MB", lambda s: s.rss_mb, f"+{MAX_RSS_GROWTH_MB:g}", lambda b: b + MAX_RSS_GROWTH_MB),
            # The connections of two controllers overlap for a moment, longer on a busy machine. A file lost with each
            # controller would be dozens.
            row("open files, p90", lambda s: s.fds, "+3", lambda b: b + 3, _p90),
            row("threads, most", lambda s: s.threads, "+1", lambda b: b + 1, max),
            row("series", lambda s: s.series, "+5 %", lambda b: b * _MAX_SERIES_GROWTH),
        ]
        return rows + [Row(what, 0, len(found), "0", not found) for what, found in self.wrong.items()]

    def _check_alive(self, name: str, labels: dict[str, str], since: float) -> None:
        """Check that each series belongs to something that existed at some moment after *since*."""
        partition, version = labels["partition"], labels.get("weight_version", "")
        if partition.startswith("step_") and partition != "step_*":
            if not self._run.steps(since).start <= number_of(partition) < self._run.steps(time.monotonic()).stop:
                self.wrong["ghost series"].append(f"{name} of {partition}")
        elif partition not in ("other", "step_*", self._run.LONG):
            self.wrong["ghost series"].append(f"{name} of {partition}")
        oldest = self._run.version(since) - self._run.RESIDENT_VERSIONS
        if version.lstrip("-").isdigit() and int(version) < oldest:
            self.wrong["ghost series"].append(f"{name} of version {version}, {oldest} is the oldest")


def _p90(values: Iterable[float]) -> float:
    return statistics.quantiles(values, n=10)[-1]
