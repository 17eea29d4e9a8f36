"""The state, built from the polls' results. No threads and no I/O: the poller serialises the calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from dataplane.partitions import ByName, bounded_label
from exporter.clock import Clock
from exporter.config import Partition
from exporter.model.controller_time import ControllerTime
from exporter.model.estimates import Estimates
from exporter.model.lifecycle import Lifecycle
from exporter.model.partitions import Partitions
from exporter.model.recorder import Recorder
from exporter.model.results import Failed, MetadataPoll, Result
from exporter.model.snapshot import ON_DEMAND_SOURCES, SOURCES, KeyEstimate, Snapshot
from exporter.model.source_health import SourceHealth
from exporter.model.storage import LastAnswers, StorageState, StoreState, Unlisted
from exporter.model.tasks import Tasks
from exporter.version import this_build

__all__ = ["State"]

_LISTINGS: Final = "metadata"
_PINGS: Final = "ping"
_UNITS: Final = "storage"
_OWN_METRICS: Final = "tq_metrics"


class State:
    """Everything that the exporter knows. Each source applies its results; :meth:`snapshot` returns an immutable copy.

    Args:
        recorder: Counts errors, polls and restarts.
        clock: The clock.
        max_partitions: How many partitions keep a label of their own.
        max_versions: How many weight versions keep a count of their own, per partition.
        settings: Settings of partitions, by name or regular expression.
        window: Largest acceptable lag, in versions.
        names_groups: Whether snapshots name single groups.

    Attributes:
        recorder: As given.
        lifecycle: The discovery state and the controller in use.
        health: Health of the sources.
        controller_time: The time that the controller spends on this exporter.
        partitions: Contents and flow of the partitions.
        storage: The storage units as of the last poll.
        store: The storage as a whole, None of storage that has no figures of it.
        unlisted: The keys that no partition lists.
        tasks: The samples and tasks of the partitions.
        estimates: The keys of partitions whose listing is old.
    """

    def __init__(
        self,
        recorder: Recorder,
        clock: Clock,
        *,
        max_partitions: int,
        max_versions: int,
        settings: Mapping[str, Partition] = MappingProxyType({}),
        window: float = math.inf,
        names_groups: bool = True,
    ) -> None:
        self.recorder = recorder
        self._version = this_build().version
        self.lifecycle = Lifecycle(recorder)
        self.health = SourceHealth(recorder, clock, SOURCES, ON_DEMAND_SOURCES)
        self.controller_time = ControllerTime(clock)
        by_name = ByName(settings)
        self.partitions = Partitions(
            clock,
            settings=by_name,
            max_partitions=max_partitions,
            max_versions=max_versions,
            window=window,
            names_groups=names_groups,
        )
        self.storage: tuple[StorageState, ...] = ()
        self.store: StoreState | None = None
        self.unlisted = Unlisted()
        self.estimates = Estimates(clock)
        self.tasks = Tasks(clock, max_partitions=max_partitions, settings=by_name)
        self._clock = clock
        self._started_at = clock.time()
        self._last_answers = LastAnswers()
        self._sender_id: str | None = None
        self._looked = False
        self._ready = False

    def finish(self, source: str, result: Result[object]) -> None:
        """Note how a poll ended. A failure counts as an error unless there is nothing yet that should answer."""
        self.health.finish(source, result, expected=self.lifecycle.discovery in ("never_found", "starting"))
        if isinstance(result, Failed):
            self.health.failed(source, result, counted=self.lifecycle.counts_failures)

    def finish_with_failures(self, source: str, failures: Sequence[Failed], took: float) -> None:
        """Note a poll that failed in part. Each failure counts as an error; the first is the poll's result."""
        for failure in failures:
            self.health.failed(source, failure, counted=True)
        self.health.answered(source)
        first = failures[0]
        self.health.finish(source, Failed(first.operation, first.error_type, first.detail, took))

    def finish_incomplete(self, source: str, partitions: Sequence[str], took: float) -> None:
        """Note a poll that asked for all but *partitions*, which could not be read before and are held back now."""
        self.health.answered(source)
        first = ", ".join(repr(bounded_label(name)) for name in partitions[:3])
        detail = f"not asked again yet: {first}{', …' if len(partitions) > 3 else ''}"
        self.health.finish(source, Failed("list_metadata", "DataPlaneReadError", detail, took))

    def looked(self) -> None:
        """Note that a look-up has ended. Readiness waits for the first one."""
        self._looked = True

    def storage_polled(self, units: Sequence[StorageState], store: StoreState | None = None) -> None:
        """Note what the storage units answered, and the storage as a whole."""
        self.storage = self._last_answers.note(units, self._clock.time())
        self.store = store

    def begin_generation(self) -> None:
        """Begin with a new controller: count the last one's groups as lost, and forget its data."""
        self.lifecycle.begin_generation()
        self.partitions.lose_all()
        self.unlisted.forget()
        self.estimates.forget()
        self.tasks.forget()
        self._sender_id = None

    def switch(self) -> None:
        """Forget the last controller's answers, since another controller or none is polled from now on."""
        self.lifecycle.forget_answers()
        self.health.restart()
        self.controller_time.interval = None
        self.partitions.forget_listings()
        self.storage, self.store = (), None
        self._last_answers.forget()
        self.unlisted.forget()
        self.estimates.forget()
        self.tasks.forget()

    def notice_sender(self, poll: MetadataPoll) -> None:
        """Detect a new controller by its sender id, where there are no actor ids.

        Another sender is a new controller when it has none of the groups of the last listings. A restart of an empty
        data plane goes unnoticed.
        """
        sender, endpoint = poll.sender_id, self.lifecycle.endpoint
        if sender is None:
            return
        self.lifecycle.sender_id = sender
        if sender == self._sender_id:
            return
        if self._sender_id is not None and not (endpoint and endpoint.actor_id):
            other = self.partitions.has_other_groups(poll)
            if other is None:
                return
            if other:
                self.begin_generation()
        self._sender_id = sender

    def snapshot(self) -> Snapshot:
        """Return what is known now, without stale data."""
        lifecycle, health = self.lifecycle, self.health
        lifecycle.up = lifecycle.up and not health.is_stale(_PINGS)
        if health.is_stale(_LISTINGS):
            self.partitions.drop_all()
        if health.is_stale(_UNITS):
            self.storage, self.store = (), None
            self.estimates.storage_read(None)
        if health.is_stale(_LISTINGS) or health.is_stale(_UNITS):
            self.unlisted.forget()
        if health.is_stale(_OWN_METRICS):
            self.tasks.forget_reading()
            self.estimates.samples_read(None)
        self.partitions.drop_stale()
        self.partitions.note_samples_without_keys(self.unlisted.value, self.tasks.samples())
        states, versions = self.partitions.states(), self.partitions.versions
        listed = health.last_success(_LISTINGS) if health.is_known(_LISTINGS) else None
        samples, tasks = self.tasks.states(self.partitions.label)
        return Snapshot(
            taken_at=self._clock.time(),
            started_at=self._started_at,
            discovery=lifecycle.discovery,
            up=lifecycle.up,
            ready=self._is_ready(),
            generation=lifecycle.generation,
            endpoint=lifecycle.known_endpoint,
            capabilities=lifecycle.capabilities,
            partitions=states,
            statuses=self.partitions.statuses(),
            total=self.partitions.total(states, listed),
            trained=self.partitions.trained(listed),
            flows=self.partitions.flows(),
            total_flow=self.partitions.total_flow(),
            role_flows=self.partitions.role_flows(),
            reference_version=versions.reference and versions.reference.version,
            reference=versions.reference and versions.reference.kind,
            reference_changed_at=versions.changed_at,
            version_regressions=versions.regressions,
            storage=self.storage,
            store=self.store,
            estimates=() if health.is_stale(_LISTINGS) else self._estimates(),
            unlisted_keys=self.unlisted.value,
            samples=samples,
            tasks=tasks,
            controller=self.tasks.controller,
            sources=health.states(),
            controller_busy_ratio=self.controller_time.ratio(),
            incidents=health.incidents(),
            errors=health.errors(),
            version=self._version,
        )

    def _estimates(self) -> tuple[KeyEstimate, ...]:
        partitions = self.partitions
        return self.estimates.current(partitions.names(), partitions.listed_rows(), partitions.label)

    def _is_ready(self) -> bool:
        """Whether the first round is done. Once ready, always ready, also with another controller."""
        done = self._looked and (self.lifecycle.endpoint is None or self.health.all_polled())
        self._ready = self._ready or done
        return self._ready
