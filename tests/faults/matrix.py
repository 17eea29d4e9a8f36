"""One row of the fault matrix: a fault on a live data plane, watched through a real exporter process.

A test of this folder that is marked ``fault`` is one fault; it runs once per load, and every run is a row::

    @pytest.mark.fault("controller killed", in_ci=IDLE)
    def test_a_killed_controller(cluster: TQCluster, begin: Begin) -> None:
        with begin(cluster, "--ray-address", cluster.ray_address) as row:
            kill(cluster.controller.pid)
            row.expect(up=0, discovery="lost", errors={"ping": "DataPlaneUnavailable"}, ...)
            cluster.restart_tq()
            row.recover(cluster, restarts=1)

Time is measured in the exporter's own poll intervals, by its counters of polls, so that a slow machine changes no
result. ``pytest`` runs each fault under the one load that it names in ``in_ci``, ``make faults`` under all.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from tests.faults.load import RESIDENT, Load
from tests.support.cluster import TQCluster
from tests.support.exporter_process import ExporterProcess, Exposition

__all__ = ["FAST", "HOLD_LISTINGS", "INTERVAL_S", "RESTART_FREE", "Begin", "Phase", "Record", "Row"]

INTERVAL_S: Final = 2.0
"""Interval and deadline of a ping in a row. With less, a busy machine would look like a silent controller."""

FAST: Final[Mapping[str, str]] = {
    "TQ_EXPORTER_PING_INTERVAL": f"{INTERVAL_S:g}s",
    "TQ_EXPORTER_METADATA_INTERVAL": "1s",
    "TQ_EXPORTER_METADATA_TIMEOUT": "3s",
    "TQ_EXPORTER_STORAGE_INTERVAL": "1s",
    "TQ_EXPORTER_STORAGE_TIMEOUT": "2s",
    "TQ_EXPORTER_DISCOVERY_TIMEOUT": "60s",
    # On a slow machine the budget would lengthen the interval of polls of 10,000 keys, and the time until they are
    # stale.
    "TQ_EXPORTER_METADATA_MAX_CONTROLLER_SHARE": "1",
    # A listing that fails is charged with its wait; its partition would be held back for five minutes.
    "TQ_EXPORTER_METADATA_MAX_CONTROLLER_STALL": "60s",
}
"""The exporter's environment in a row."""

RESTART_FREE: Final = "the exporter's process is another one than before"

HOLD_LISTINGS: Final = 4
"""How many listings, made or skipped, an expected state must last. A listing is stale after three missed ones."""

_PAUSE_S = 0.3
_PATIENCE_S = 180.0
"""After this time a row stops waiting for missing polls."""

# Counters, and what stays as long as its subject exists: it says that the subject cannot be read, and since when, and
# what is known without reading it.
_NOT_GAUGES = re.compile(
    r"_(total|bucket|sum|count|created)$|^dataplane_partition_(info|readable|listed_timestamp_seconds)$"
    r"|^dataplane_partition_keys_estimated(_timestamp_seconds)?$"
    r"|^dataplane_storage_(info|up)$"
)
_STARTING: Final = ("discover", "DataPlaneNotReady")
"""May be counted in every row: a look-up may see the next controller before it has started."""


@dataclass
class Phase:
    """Observations while a row waited for one state.

    Attributes:
        name: The action before it, ``""`` for the fault itself.
        up: ``dataplane_up`` at the end.
        discovery: The discovery states in order.
        errors: ``operation type`` to the number of errors in this phase.
        not_shown: Series that existed when the row began and do not now.
        healthz: Every status of ``/healthz``.
        readyz: Every status of ``/readyz``.
        intervals: Ping intervals until the expected state.
        lookups: Look-ups made until then.
        seconds: Seconds until then.
    """

    name: str
    up: float
    discovery: list[str] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    not_shown: list[str] = field(default_factory=list)
    healthz: list[int] = field(default_factory=list)
    readyz: list[int] = field(default_factory=list)
    intervals: int = 0
    lookups: int = 0
    seconds: float = 0.0


@dataclass
class Record:
    """A row as ``make faults`` records it."""

    fault: str
    load: str
    phases: list[Phase] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return the row as values that JSON can represent."""
        return asdict(self)


class Row:
    """A steady data plane under one load with an exporter beside it; then the faults, and the expected states.

    Args:
        record: Where to record the observations.
        exporter: The exporter, started and watching.
        load: The load on the data plane.
        steady: Condition on the exposition before the fault. By default, all of the data plane is seen.
    """

    def __init__(
        self,
        record: Record,
        exporter: ExporterProcess,
        load: Load,
        steady: Callable[[Exposition], bool] | None = None,
    ) -> None:
        self.exporter = exporter
        self.load = load
        self._record = record
        self._pid = exporter.process.pid
        self._allowed: set[tuple[str, str]] = set()
        self._before = exporter.wait_for(steady or self._is_steady, "a steady state", _PATIENCE_S)
        self._mark = self._before
        self._marked_at = time.monotonic()

    def note(self, text: str) -> None:
        """Add *text* below the row's table entry, for what has no column."""
        self._record.notes.append(text)

    def scrape_before(self) -> Exposition:
        """The scrape before the fault."""
        return self._before

    def expect(
        self,
        phase: str = "",
        *,
        up: int,
        discovery: str,
        errors: Mapping[str, str] | None = None,
        tolerated: Collection[tuple[str, str]] = (),
        partitions: bool,
        storage: Collection[str],
        within: int = 10,
        lasting: int = HOLD_LISTINGS,
        also: Callable[[Exposition], bool] | None = None,
    ) -> Exposition:
        """Wait for exactly this state, check that it lasts, and return its last scrape.

        ``/healthz`` and ``/readyz`` must answer 200 all the time. An error counter that grows fails the row at once,
        unless it is in *errors* or *tolerated*.

        Args:
            phase: The action that led here, ``""`` for the row's fault.
            up: ``dataplane_up``.
            discovery: The state of ``dataplane_discovery_state``.
            errors: Operation to the error type that must have been counted for it since the last phase.
            tolerated: Pairs of operation and error type that may be counted, depending on the moment of the fault.
            partitions: Whether the gauges of partitions stay. False: no partition has any.
            storage: The storage units whose gauges stay; no other has any.
            within: How many ping intervals it may take.
            lasting: How many listings, made or skipped, it must last. One is due every second.
            also: What must hold besides.
        """
        must = set((errors or {}).items())
        self._allowed = must | set(tolerated) | {_STARTING}
        seen_phase = Phase(phase, up)

        def missing(seen: Exposition) -> list[str]:
            grown = self._grown(seen, self._mark)
            return [
                text
                for text, is_so in (
                    (f"up {up}", seen.value("dataplane_up") == up),
                    (f"discovery {discovery}", _discovery(seen) == discovery),
                    (f"errors {sorted(must)} (grown: {grown})", must <= set(grown)),
                    (f"partition gauges: {partitions}", self._partitions_are(seen, partitions)),
                    (f"storage gauges of {sorted(storage)}", self._storage_is(seen, storage)),
                    ("what is special to this row", also is None or also(seen)),
                )
                if not is_so
            ]

        _, seen = self._watch(seen_phase, missing, within, lasting, since=(self._mark, self._marked_at))
        self._finish(seen_phase, seen)
        return seen

    def recover(
        self,
        cluster: TQCluster,
        phase: str = "",
        *,
        restarts: int,
        lookups: int = 3,
        errors: Collection[tuple[str, str]] = (),
        storage: Collection[str] = ("0", "1"),
        also: Callable[[Exposition], bool] | None = None,
    ) -> Exposition:
        """After the repair: all must be seen again without a restart of the exporter, and the job must continue.

        The errors of the fault may be counted until then, and none afterwards. With a new controller the resident
        groups are lost and their gauges are gone.

        Args:
            cluster: The data plane as it is now.
            phase: The repair, ``""`` when the fault was the only action.
            restarts: How many new controllers the exporter must have counted since the row began.
            lookups: How many look-ups it may take: one in flight, one that finds the new controller, and one spare.
                Without a new controller no look-up is needed, and ten pings must suffice.
            errors: More pairs of operation and error type that may be counted until the recovery.
            storage: The storage units that must be seen.
            also: What must hold besides.
        """
        self._allowed |= {*errors, _STARTING}
        seen_phase = Phase(phase, 1)
        mended = (self._look(seen_phase), time.monotonic())
        self.load.assert_goes_on(cluster)
        lost = self.load.groups if restarts else 0

        def missing(seen: Exposition) -> list[str]:
            return [
                text
                for text, is_so in (
                    ("up 1", seen.value("dataplane_up") == 1),
                    ("discovery found", _discovery(seen) == "found"),
                    ("the partition that is new", bool(seen.samples("dataplane_partition_depth", partition="after"))),
                    ("the resident partition", self._resident_is(seen, stay=not restarts)),
                    (f"storage gauges of {sorted(storage)}", self._storage_is(seen, storage)),
                    (
                        f"{restarts} restarts",
                        self._since_start(seen, "dataplane_controller_restarts_total") == restarts,
                    ),
                    (f"{lost} groups lost, none departed", self._passed_through(seen) == (lost, 0)),
                    ("what is special to this row", also is None or also(seen)),
                )
                if not is_so
            ]

        settled, seen = self._watch(seen_phase, missing, None if restarts else 10, HOLD_LISTINGS, since=mended)
        assert seen_phase.lookups <= lookups, self._explain(f"found after {seen_phase.lookups} look-ups")
        late = self._grown(seen, settled)
        assert not late, f"counted after all was well: {late}"
        assert self.exporter.process.pid == self._pid, RESTART_FREE
        self._finish(seen_phase, seen)
        return seen

    # Watching

    def _watch(
        self,
        phase: Phase,
        missing: Callable[[Exposition], list[str]],
        within: int | None,
        lasting: int,
        *,
        since: tuple[Exposition, float],
    ) -> tuple[Exposition, Exposition]:
        """Scrape until nothing is missing and that has lasted. Return the first and the last such scrape."""
        before, started = since
        settled: tuple[Exposition, float] | None = None
        while True:
            seen = self._look(phase)
            now = time.monotonic()
            intervals = self._turns(before, seen, "ping")
            lacks = missing(seen)
            if lacks:
                assert settled is None, self._explain(f"it did not last: {lacks}")
                assert within is None or intervals <= within, self._explain(f"not within {within} intervals: {lacks}")
                assert now - started < _PATIENCE_S, self._explain(f"not in time: {lacks}")
            elif settled is None:
                settled = seen, now
                phase.intervals = intervals
                phase.lookups = int(self._delta(seen, before, "tq_exporter_polls_total", source="discovery"))
                phase.seconds = round(now - started, 1)
            elif self._turns(settled[0], seen, "metadata") >= lasting:
                return settled[0], seen
            else:
                assert now - settled[1] < _PATIENCE_S, self._explain("no more listings are due")
            time.sleep(_PAUSE_S)

    def _look(self, phase: Phase) -> Exposition:
        for path, statuses in (("/healthz", phase.healthz), ("/readyz", phase.readyz)):
            status, _ = self.exporter.get(path)
            if status not in statuses:
                statuses.append(status)
            assert status == 200, self._explain(f"{path} said {status}")
        seen = self.exporter.scrape()
        state = _discovery(seen)
        if not phase.discovery or phase.discovery[-1] != state:
            phase.discovery.append(state)
        times = "dataplane_source_last_success_timestamp_seconds"
        gone = self._before.by(times, "source").keys() - seen.by(times, "source").keys()
        assert not gone, self._explain(f"the time of the last success is not shown any more: {sorted(gone)}")
        surprises = set(self._grown(seen, self._mark)) - self._allowed
        assert not surprises, self._explain(f"errors that must not be counted: {sorted(surprises)}")
        return seen

    def _finish(self, phase: Phase, seen: Exposition) -> None:
        phase.errors = {f"{operation} {kind}": n for (operation, kind), n in self._grown(seen, self._mark).items()}
        phase.not_shown = _not_shown(self._before, seen)
        self._record.phases.append(phase)
        self._mark = seen
        self._marked_at = time.monotonic()

    def _explain(self, trouble: str) -> str:
        return f"{self._record.fault}, {self._record.load}: {trouble}\n{self.exporter.log[-4000:]}"

    # Reading

    def _is_steady(self, seen: Exposition) -> bool:
        up = seen.by("dataplane_source_up", "source")
        return (
            seen.value("dataplane_up") == 1
            and seen.value("dataplane_partition_depth", partition=RESIDENT) == self.load.groups
            and seen.by("dataplane_source_interval_seconds", "source").keys() <= up.keys()
            and all(value == 1 for value in up.values())
        )

    def _turns(self, before: Exposition, seen: Exposition, source: str) -> int:
        """Intervals of *source* between two scrapes: each ends in a poll, or in one that is skipped."""
        return int(
            self._delta(seen, before, "tq_exporter_polls_total", source=source)
            + self._delta(seen, before, "tq_exporter_polls_skipped_total", source=source)
        )

    def _since_start(self, seen: Exposition, name: str, **labels: str) -> float:
        return self._delta(seen, self._before, name, **labels)

    def _passed_through(self, seen: Exposition) -> tuple[float, float]:
        """Resident groups lost and departed since the row began."""
        lost, departed = (
            self._since_start(seen, f"dataplane_partition_groups_{way}_total", partition=RESIDENT)
            for way in ("lost", "departed")
        )
        return lost, departed

    @staticmethod
    def _delta(seen: Exposition, before: Exposition, name: str, **labels: str) -> float:
        return sum(v for _, v in seen.samples(name, **labels)) - sum(v for _, v in before.samples(name, **labels))

    @staticmethod
    def _grown(seen: Exposition, before: Exposition) -> dict[tuple[str, str], int]:
        def counts(exposition: Exposition) -> dict[tuple[str, str], float]:
            found = exposition.samples("dataplane_errors_total")
            return {(labels["operation"], labels["error_type"]): value for labels, value in found}

        old = counts(before)
        return {key: int(value - old.get(key, 0)) for key, value in counts(seen).items() if value != old.get(key, 0)}

    def _partitions_are(self, seen: Exposition, stay: bool) -> bool:
        return self._resident_is(seen, stay=True) if stay else not _subjects(seen, "partition")

    def _resident_is(self, seen: Exposition, *, stay: bool) -> bool:
        wanted = _subjects(self._before, "partition").get(RESIDENT) if stay else None
        return _subjects(seen, "partition").get(RESIDENT) == wanted

    def _storage_is(self, seen: Exposition, units: Collection[str]) -> bool:
        there, before = _subjects(seen, "storage_unit"), _subjects(self._before, "storage_unit")
        return there == {unit: before.get(unit) for unit in units}


Begin = Callable[..., Any]
"""``begin(cluster, *exporter_flags, env=…, steady=…)``: a context manager of a :class:`Row` with the row's load."""


def _discovery(seen: Exposition) -> str:
    states = [state for state, value in seen.by("dataplane_discovery_state", "state").items() if value == 1]
    assert len(states) == 1, states
    return states[0]


def _subjects(seen: Exposition, label: str) -> dict[str, set[str]]:
    """Return the gauges that each partition or storage unit has."""
    found: dict[str, set[str]] = {}
    for name, labels in seen.series():
        if label in labels and not _NOT_GAUGES.search(name):
            found.setdefault(labels[label], set()).add(name)
    return found


def _not_shown(before: Exposition, now: Exposition) -> list[str]:
    """Return what is not exposed any more: ``partition resident (all 12)``, or the names if only some are gone."""
    lines = []
    for label, noun in (("partition", "partition"), ("storage_unit", "storage unit")):
        old, new = _subjects(before, label), _subjects(now, label)
        for subject in sorted(old):
            if label == "partition" and subject != RESIDENT:
                continue  # changes by a client in its own partition are not part of the fault
            gone = old[subject] - new.get(subject, set())
            if gone:
                some = f"all {len(gone)}" if gone == old[subject] else ", ".join(sorted(gone))
                lines.append(f"{noun} {subject} ({some})")
    if before.samples("dataplane_controller_info") and not now.samples("dataplane_controller_info"):
        lines.append("dataplane_controller_info")
    return lines
