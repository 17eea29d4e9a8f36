"""Questions about tasks that the metadata source asks, where TransferQueue's own metrics are off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from dataplane.adapters.wire.protocol import Consumption
from dataplane.errors import DataPlaneError, DataPlaneUnavailable, error_type
from dataplane.partitions import ByName, bounded_label
from exporter.clock import Clock
from exporter.config import Metadata
from exporter.model.results import Failed, MetadataPoll, TaskAnswer
from exporter.model.source_health import MISSED_POLLS
from exporter.model.state import State
from exporter.model.tasks import TaskState
from exporter.polling.budget import Budget
from exporter.polling.sources.base import exceeded
from exporter.polling.work import WorkMeter

__all__ = ["TaskQuestions"]

_OPERATION = "get_consumption"


@runtime_checkable
class _Asker(Protocol):
    def consumption(self, partition_id: str, task: str) -> Consumption | None: ...


class TaskQuestions:
    """Asks for the consumption of the configured tasks, and no others: the controller creates a task it does not know.

    A partition whose questions take the controller too long is asked about rarely, like one whose listing does.

    Args:
        reader: The metadata reader; one that cannot ask is not asked.
        tasks: The tasks to ask for, by name of a partition or regular expression.
        settings: Interval and budget.
        clock: Measures durations.
        meter: Measures the controller's work for the reader.
    """

    def __init__(
        self,
        reader: object,
        tasks: Mapping[str, Sequence[str]],
        settings: Metadata,
        *,
        clock: Clock,
        meter: WorkMeter,
    ) -> None:
        self._reader = reader if isinstance(reader, _Asker) else None
        self._tasks = ByName(tasks)
        self._clock = clock
        self._meter = meter
        self._budget = Budget(settings.interval, settings.max_controller_share, settings.max_controller_stall)
        self._hold_s: dict[str, float] = {}

    def ask(
        self, partition: str, call: Callable[[str | None, str | None], AbstractContextManager[None]]
    ) -> TaskAnswer | None:
        """Ask about a partition; None when there is nothing to ask now. Each question is wrapped in *call*.

        Raises:
            DataPlaneUnavailable: The controller is gone.
        """
        tasks = self._tasks.get(partition)
        if self._reader is None or not tasks or partition in self._budget.held(self._clock.monotonic()):
            return None
        began = self._clock.monotonic()
        states: list[TaskState] = []
        samples, spent = 0, 0.0
        failure = None
        try:
            for task in tasks:
                before = self._meter.seconds()
                with call(partition, _OPERATION):
                    found = self._reader.consumption(partition, task)
                if found is None:  # it has gone since it was listed
                    return None
                samples = found.samples
                spent += self._meter.work(self._meter.seconds() - before, samples)
                # A share of nothing is unknown.
                states.append(TaskState(partition, task, found.consumed / samples if samples else None))
        except DataPlaneUnavailable:
            raise
        except DataPlaneError as error:
            waited = self._clock.monotonic() - began
            detail = f"tasks of partition {bounded_label(partition)!r}: {error}"
            failure = Failed(_OPERATION, error_type(error), detail, waited, exceeded(error))
        return TaskAnswer(partition, samples, tuple(states), max(spent, failure.took if failure else 0.0), failure)

    def charge(self, answers: Iterable[TaskAnswer], partitions: Sequence[str]) -> frozenset[str]:
        """Charge the budget with a round; return the partitions that are asked rarely because of their own cost."""
        self._budget.retain(frozenset(partitions))
        self._hold_s = {}
        for answer in answers:
            samples = answer.samples if answer.failure is None else None
            hold_s = self._budget.charge(answer.partition, answer.controller_s, self._clock.monotonic(), samples)
            if hold_s is not None:
                self._hold_s[answer.partition] = hold_s
        return frozenset(self._hold_s)

    def fold(self, poll: MetadataPoll, state: State, listed_every: Callable[[str], float]) -> None:
        """Apply the answers to *state*, after :meth:`charge`.

        Args:
            poll: The round.
            state: The state.
            listed_every: Returns the seconds between two listings of a partition.
        """
        state.tasks.retain(poll.partitions)
        for answer in poll.answers:
            if answer.failure is None:
                name = answer.partition
                asked_every = max(self._hold_s.get(name, 0.0), listed_every(name))
                state.tasks.asked(name, answer.samples, answer.tasks, keep_s=MISSED_POLLS * asked_every)
