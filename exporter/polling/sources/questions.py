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
from exporter.polling.schedule import Budget
from exporter.polling.sources.base import exceeded

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
        controller_seconds: Returns the time that the controller has spent on the reader, in seconds.
    """

    def __init__(
        self,
        reader: object,
        tasks: Mapping[str, Sequence[str]],
        settings: Metadata,
        *,
        clock: Clock,
        controller_seconds: Callable[[], float],
    ) -> None:
        self._reader = reader if isinstance(reader, _Asker) else None
        self._tasks = ByName(tasks)
        self._clock = clock
        self._controller_seconds = controller_seconds
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
        before, began = self._controller_seconds(), self._clock.monotonic()
        states: list[TaskState] = []
        samples = 0
        failure = None
        try:
            for task in tasks:
                with call(partition, _OPERATION):
                    found = self._reader.consumption(partition, task)
                if found is None:  # it has gone since it was listed
                    return None
                samples = found.samples
                # A share of nothing is unknown.
                states.append(TaskState(partition, task, found.consumed / samples if samples else None))
        except DataPlaneUnavailable:
            raise
        except DataPlaneError as error:
            waited = self._clock.monotonic() - began
            detail = f"tasks of partition {bounded_label(partition)!r}: {error}"
            failure = Failed(_OPERATION, error_type(error), detail, waited, exceeded(error))
        spent = self._controller_seconds() - before
        return TaskAnswer(partition, samples, tuple(states), max(spent, failure.took if failure else 0.0), failure)

    def charge(self, answers: Iterable[TaskAnswer], partitions: Sequence[str]) -> float:
        """Charge the budget with a round; return the controller's time for partitions that are asked rarely now."""
        self._budget.retain(frozenset(partitions))
        self._hold_s = {}
        held_s = 0.0
        for answer in answers:
            hold_s = self._budget.charge(answer.partition, answer.controller_s, self._clock.monotonic())
            if hold_s is not None:
                self._hold_s[answer.partition] = hold_s
                held_s += answer.controller_s
        return held_s

    def fold(self, poll: MetadataPoll, state: State, listed_every: Mapping[str, float], interval_s: float) -> None:
        """Apply the answers to *state*, after :meth:`charge`.

        Args:
            poll: The round.
            state: The state.
            listed_every: Seconds between two rounds for partitions that are listed rarely.
            interval_s: Seconds between two rounds for all others.
        """
        state.tasks.retain(poll.partitions)
        for answer in poll.answers:
            if answer.failure is None:
                name = answer.partition
                asked_every = max(self._hold_s.get(name, 0.0), listed_every.get(name, interval_s))
                state.tasks.asked(name, answer.samples, answer.tasks, keep_s=MISSED_POLLS * asked_every)
