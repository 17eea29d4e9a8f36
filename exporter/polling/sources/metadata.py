"""The source ``metadata``: lists the partitions and their groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from opentelemetry.trace import Tracer

from dataplane.counts import COUNTS_PREFIX, COUNTS_TAG, decode_counts
from dataplane.errors import DataPlaneError, DataPlaneTimeout, DataPlaneUnavailable, error_type
from dataplane.groups import DataPlaneGroupMeta, Listing
from dataplane.interfaces import PUBLISHED_VERSION_KEY, RESERVED_PARTITION, MetadataReader
from dataplane.partitions import bounded_label
from dataplane.tags import to_count
from exporter.clock import Clock
from exporter.config import Config
from exporter.model.estimates import ClientCounts
from exporter.model.results import Failed, MetadataPoll, PartitionFailure, PartitionListing, Result, TaskAnswer
from exporter.model.source_health import MISSED_POLLS
from exporter.model.state import State
from exporter.polling.budget import Budget
from exporter.polling.sources.base import Next, Source, exceeded
from exporter.polling.sources.questions import TaskQuestions
from exporter.polling.work import OwnTimes, WorkMeter

__all__ = ["MetadataSource"]


class MetadataSource(Source[MetadataPoll]):
    """Lists the partitions and their groups, no more often than the controller's budget allows.

    Args:
        reader: The reader to ask. See :class:`WorkMeter` for its optional attribute ``controller_seconds``.
        config: Interval and budget.
        tracer: Makes the spans.
        clock: Measures durations.
        tasks: The tasks whose consumption is asked for, by partition.
    """

    name = "metadata"
    operation = "list_partitions"
    awaited = True

    def __init__(
        self,
        reader: MetadataReader,
        config: Config,
        *,
        tracer: Tracer,
        clock: Clock,
        tasks: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        super().__init__(tracer=tracer, clock=clock)
        self._reader = reader
        settings = config.metadata
        self.interval_s = self._interval_in_force_s = settings.interval
        self.slow_s = settings.timeout / 2
        self._budget = Budget(settings.interval, settings.max_controller_share, settings.max_controller_stall)
        self._meter = WorkMeter(reader, clock)
        self._own_times = OwnTimes()
        self._questions = TaskQuestions(reader, tasks, settings, clock=clock, meter=self._meter)

    def _ask(self) -> MetadataPoll:
        """Ask for each partition in turn; the first call that passes the reader's deadline ends the round."""
        before, decoded = self._meter.seconds(), self._full_decodes()
        with self._call():
            names = self._reader.list_partitions()
        named_by = self._sender_id()
        self._meter.retain(set(names))
        beside_s = self._meter.pinged(self._meter.seconds() - before)
        held = self._budget.held(self._clock.monotonic())
        listings: list[PartitionListing] = []
        failures: list[PartitionFailure] = []
        answers: list[TaskAnswer] = []
        published = per_step = None
        clients: tuple[ClientCounts, ...] = ()
        for partition in names:
            if partition in held:
                continue
            before, began = self._meter.seconds(), self._clock.monotonic()
            try:
                groups = self._list(partition)
            except DataPlaneUnavailable:
                raise
            except DataPlaneError as error:
                silent = isinstance(error, DataPlaneTimeout)
                took = self._clock.monotonic() - began if silent else self._meter.seconds() - before
                spent = took if silent else self._meter.work(took, None)
                failures.append(PartitionFailure(partition, error_type(error), str(error), spent, exceeded(error)))
                if silent:
                    break  # the controller is stuck or overloaded: further requests would add to its load
                continue
            rows = groups.rows if isinstance(groups, Listing) else sum(len(group.keys) for group in groups)
            work_s = self._meter.work(self._meter.seconds() - before, rows, partition)
            if partition == RESERVED_PARTITION:
                published, per_step = _published(groups)
                clients = _clients(groups)
                beside_s += work_s
            else:
                listings.append(self._listing(partition, groups, rows, work_s))
            answer = self._questions.ask(partition, self._call)
            if answer is not None:
                answers.append(answer)
                if answer.failure is not None and answer.failure.error_type == "DataPlaneTimeout":
                    break
        partitions = tuple(name for name in names if name != RESERVED_PARTITION)
        spent_s = sum(map(_cost, listings)) + sum(map(_cost, failures)) + sum(map(_cost, answers))
        return MetadataPoll(
            partitions,
            tuple(listings),
            tuple(failures),
            published,
            beside_s + spent_s,
            self._sender_id(),
            named_by,
            per_step,
            tuple(name for name in partitions if name in held),
            tuple(answers),
            self._full_decodes() - decoded,
            clients,
        )

    def fold(self, result: Result[MetadataPoll], state: State) -> Next:
        """See :meth:`Source.fold`: the partitions, their flow, and what the round cost the controller."""
        if isinstance(result, Failed):
            state.partitions.failed(result)
            state.finish(self.name, result)
            return self._next(state)
        poll = result.value
        state.recorder.full_decodes(poll.full_decodes)
        self._charge(poll, state)
        state.notice_sender(poll)
        changed = state.partitions.take_in(poll, keep_s=MISSED_POLLS * self._interval_in_force_s)
        for partition in filter(self._budget.answered, poll.partitions):  # a failure makes no listing valid for longer
            state.partitions.hold(partition, MISSED_POLLS * self._budget.listed_every(partition))
        state.estimates.old_after_s = (MISSED_POLLS + 1) * self.interval_s
        state.estimates.clients_read(poll.clients)
        state.estimates.listed(state.partitions.listed_rows(), poll.partitions)
        if not poll.held:
            state.unlisted.listed(state.partitions.rows())
        elif any(map(self._budget.stalls, poll.held)):  # else they only sit this round out
            state.unlisted.listed(None)
        self._questions.fold(poll, state, self._budget.listed_every)
        failures = [_failed(failure) for failure in poll.failures]
        failures += [answer.failure for answer in poll.answers if answer.failure is not None]
        if failures:
            state.finish_with_failures(self.name, failures, result.took)
        elif unread := state.partitions.unread():
            state.finish_incomplete(self.name, unread, result.took)
        else:
            state.finish(self.name, result)
        return self._next(state)._replace(
            facts={
                "partitions": len(poll.partitions),
                "keys": sum(listing.rows for listing in poll.listings),
                "groups.changed": changed,
                "controller_seconds": poll.controller_s,
            }
        )

    def _next(self, state: State) -> Next:
        state.controller_time.interval = self._budget.longest_s
        return Next(self._interval_in_force_s, self._budget.explain())

    def _charge(self, poll: MetadataPoll, state: State) -> None:
        """Charge the budget with a round, corrected by what the controller itself measures, where it does."""
        if state.tasks.controller is not None:
            self._own_times.measured(state.tasks.controller.requests)
        factor = self._own_times.factor
        self._own_times.listed(listing.controller_s for listing in poll.listings)
        self._budget.retain(frozenset(poll.partitions))
        now = self._clock.monotonic()
        for listing in poll.listings:
            self._budget.charge(listing.partition, factor * listing.controller_s, now, listing.rows)
        for failure in poll.failures:
            self._budget.charge(failure.partition, failure.controller_s, now, grown=failure.limit is not None)
        rarely = self._questions.charge(poll.answers, poll.partitions)
        spent_s = sum(map(_cost, poll.listings)) + sum(map(_cost, poll.failures)) + sum(map(_cost, poll.answers))
        for answer in poll.answers:
            if answer.partition not in rarely:
                self._budget.add(answer.partition, answer.controller_s)
        self._interval_in_force_s = self._budget.interval_s(max(poll.controller_s - spent_s, 0.0))
        state.controller_time.spend(factor * poll.controller_s)

    def _list(self, partition: str) -> list[DataPlaneGroupMeta]:
        with self._call(partition, "list_metadata"):
            return self._reader.list_metadata(partition)

    def _listing(
        self, partition: str, groups: list[DataPlaneGroupMeta], rows: int, controller_s: float
    ) -> PartitionListing:
        sender_id = self._sender_id()
        if not isinstance(groups, Listing):  # a reader of another kind: its rows are those of its groups
            return PartitionListing(partition, groups, controller_s, rows=rows, sender_id=sender_id)
        return PartitionListing(
            partition, groups, controller_s, groups.convention, rows, groups.stated_version, sender_id
        )

    def _sender_id(self) -> str | None:
        return getattr(self._reader, "last_sender_id", None)

    def _full_decodes(self) -> int:
        return getattr(self._reader, "full_decodes", 0)


def _cost(one: PartitionListing | PartitionFailure | TaskAnswer) -> float:
    return one.controller_s


def _failed(failure: PartitionFailure) -> Failed:
    detail = f"partition {bounded_label(failure.partition)!r}: {failure.detail}"
    return Failed("list_metadata", failure.error_type, detail, failure.controller_s, failure.limit)


def _published(groups: Sequence[DataPlaneGroupMeta]) -> tuple[int | None, int | None]:
    """Return the version that the trainer publishes, and how many groups it takes per step; None if it does not."""
    for group in groups:
        if PUBLISHED_VERSION_KEY in group.keys:
            return group.weight_version, to_count(group.tags.get("groups_per_step"))
    return None, None


def _clients(groups: Sequence[DataPlaneGroupMeta]) -> tuple[ClientCounts, ...]:
    """Return what clients publish of their own calls, without what cannot be read."""
    found = []
    for group in groups:
        line = decode_counts(group.tags.get(COUNTS_TAG)) if group.keys[0].startswith(COUNTS_PREFIX) else None
        if line is not None:
            found.append(ClientCounts(group.keys[0], *line))
    return tuple(found)
