"""The source ``metadata``: lists the partitions and their groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from opentelemetry.trace import Tracer

from dataplane.errors import DataPlaneError, DataPlaneTimeout, DataPlaneUnavailable, error_type
from dataplane.groups import DataPlaneGroupMeta, Listing
from dataplane.interfaces import PUBLISHED_VERSION_KEY, RESERVED_PARTITION, MetadataReader
from dataplane.partitions import bounded_label
from dataplane.tags import to_count
from exporter.clock import Clock
from exporter.config import Config
from exporter.model.results import Failed, MetadataPoll, PartitionFailure, PartitionListing, Result, TaskAnswer
from exporter.model.source_health import MISSED_POLLS
from exporter.model.state import State
from exporter.polling.schedule import Budget
from exporter.polling.sources.base import Next, Source, exceeded
from exporter.polling.sources.questions import TaskQuestions

__all__ = ["MetadataSource"]


class MetadataSource(Source[MetadataPoll]):
    """Lists the partitions and their groups, no more often than the controller's budget allows.

    Args:
        reader: The reader to ask. Its optional attribute ``controller_seconds`` is the time that the controller spent
            on it. Without it, the calls' duration is used: an upper bound.
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
        self._questions = TaskQuestions(
            reader, tasks, settings, clock=clock, controller_seconds=self._controller_seconds
        )

    def _ask(self) -> MetadataPoll:
        """Ask for each partition in turn; the first call that passes the reader's deadline ends the round."""
        started, decoded = self._controller_seconds(), self._full_decodes()
        with self._call():
            names = self._reader.list_partitions()
        named_by = self._sender_id()
        held = self._budget.held(self._clock.monotonic())
        listings: list[PartitionListing] = []
        failures: list[PartitionFailure] = []
        answers: list[TaskAnswer] = []
        published = per_step = None
        for partition in names:
            if partition in held:
                continue
            before, before_mono = self._controller_seconds(), self._clock.monotonic()
            try:
                groups = self._list(partition)
            except DataPlaneUnavailable:
                raise
            except DataPlaneError as error:
                waited = self._clock.monotonic() - before_mono
                failures.append(PartitionFailure(partition, error_type(error), str(error), waited, exceeded(error)))
                if isinstance(error, DataPlaneTimeout):
                    break  # the controller is stuck or overloaded: further requests would add to its load
                continue
            if partition == RESERVED_PARTITION:
                published, per_step = _published(groups)
            else:
                listings.append(self._listing(partition, groups, self._controller_seconds() - before))
            answer = self._questions.ask(partition, self._call)
            if answer is not None:
                answers.append(answer)
                if answer.failure is not None and answer.failure.error_type == "DataPlaneTimeout":
                    break
        partitions = tuple(name for name in names if name != RESERVED_PARTITION)
        return MetadataPoll(
            partitions,
            tuple(listings),
            tuple(failures),
            published,
            max(
                self._controller_seconds() - started,
                sum(failure.controller_s for failure in failures) + sum(answer.controller_s for answer in answers),
            ),
            self._sender_id(),
            named_by,
            per_step,
            tuple(name for name in partitions if name in held),
            tuple(answers),
            self._full_decodes() - decoded,
        )

    def fold(self, result: Result[MetadataPoll], state: State) -> Next:
        """See :meth:`Source.fold`: the partitions, their flow, and what the round cost the controller."""
        if isinstance(result, Failed):
            state.partitions.failed(result)
            state.finish(self.name, result)
            return self._next(state)
        poll = result.value
        held_s = self._charge(poll)
        free_s = poll.controller_s - sum(cost for cost, _ in held_s.values())
        free_s -= self._questions.charge(poll.answers, poll.partitions)
        self._interval_in_force_s = self._budget.interval_s(max(free_s, 0.0))
        state.controller_time.spend(poll.controller_s)
        state.recorder.full_decodes(poll.full_decodes)
        state.notice_sender(poll)
        changed = state.partitions.take_in(poll, keep_s=MISSED_POLLS * self._interval_in_force_s)
        state.unlisted.listed(None if poll.held else state.partitions.rows())
        for listing in poll.listings:
            if listing.partition in held_s:
                state.partitions.hold(listing.partition, MISSED_POLLS * held_s[listing.partition][1])
        listed_every = {name: hold_s for name, (_, hold_s) in held_s.items()}
        self._questions.fold(poll, state, listed_every, self._interval_in_force_s)
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
        state.controller_time.interval = self._interval_in_force_s
        return Next(self._interval_in_force_s, self._budget.explain(self._interval_in_force_s))

    def _charge(self, poll: MetadataPoll) -> dict[str, tuple[float, float]]:
        """Charge the budget with a round; return cost and hold time of each partition that is held back now."""
        self._budget.retain(frozenset(poll.partitions))
        now = self._clock.monotonic()
        held: dict[str, tuple[float, float]] = {}
        asked: list[PartitionListing | PartitionFailure] = [*poll.listings, *poll.failures]
        for one in asked:
            hold_s = self._budget.charge(one.partition, one.controller_s, now)
            if hold_s is not None:
                held[one.partition] = (one.controller_s, hold_s)
        return held

    def _list(self, partition: str) -> list[DataPlaneGroupMeta]:
        with self._call(partition, "list_metadata"):
            return self._reader.list_metadata(partition)

    def _listing(self, partition: str, groups: list[DataPlaneGroupMeta], controller_s: float) -> PartitionListing:
        if not isinstance(groups, Listing):  # a reader of another kind: its rows are those of its groups
            return PartitionListing(
                partition,
                groups,
                controller_s,
                rows=sum(len(group.keys) for group in groups),
                sender_id=self._sender_id(),
            )
        return PartitionListing(
            partition, groups, controller_s, groups.convention, groups.rows, groups.stated_version, self._sender_id()
        )

    def _sender_id(self) -> str | None:
        return getattr(self._reader, "last_sender_id", None)

    def _full_decodes(self) -> int:
        return getattr(self._reader, "full_decodes", 0)

    def _controller_seconds(self) -> float:
        seconds = getattr(self._reader, "controller_seconds", None)
        return self._clock.monotonic() if seconds is None else seconds


def _failed(failure: PartitionFailure) -> Failed:
    detail = f"partition {bounded_label(failure.partition)!r}: {failure.detail}"
    return Failed("list_metadata", failure.error_type, detail, failure.controller_s, failure.limit)


def _published(groups: Sequence[DataPlaneGroupMeta]) -> tuple[int | None, int | None]:
    """Return the version that the trainer publishes, and how many groups it takes per step; None if it does not."""
    for group in groups:
        if PUBLISHED_VERSION_KEY in group.keys:
            return group.weight_version, to_count(group.tags.get("groups_per_step"))
    return None, None
