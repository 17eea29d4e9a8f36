"""What each task has consumed of each partition, and what the controller says of itself.

From TransferQueue's own metrics where they are on, else from questions about the tasks that the configuration names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dataplane.labels import OTHER_PARTITION, label_bytes
from dataplane.partitions import MAX_LABEL, ByName
from exporter.clock import Clock
from exporter.config.model import MAX_TASKS, Partition
from exporter.model.histogram import Histogram

__all__ = [
    "ALL_TASKS",
    "CONTROLLER_OPERATIONS",
    "OTHER_OPERATION",
    "REQUEST_BOUNDS",
    "ControllerRequests",
    "ControllerState",
    "OwnMetrics",
    "PartitionSamples",
    "TaskState",
    "Tasks",
]

ALL_TASKS: Final = "all"
"""TransferQueue's name for a partition's production as a whole. No task consumes under it."""

OTHER_OPERATION: Final = "other"
CONTROLLER_OPERATIONS: Final = (
    "GET_META",
    "NOTIFY_DATA_UPDATE",
    "GET_PARTITION_META",
    "SET_CUSTOM_META",
    "MARK_CLEARING",
    "CLEAR_META",
    "CLEAR_PARTITION",
    "GET_CONSUMPTION",
    "RESET_CONSUMPTION",
    "GET_PRODUCTION",
    "GET_LIST_PARTITIONS",
    "KV_RETRIEVE_META",
    "KV_RETRIEVE_KEYS",
    "KV_LIST",
    OTHER_OPERATION,
)
"""TransferQueue's names of what the controller is asked to do; all further ones together are ``other``."""

_MAX_BYTES: Final = 96 * 2**10
_BYTES_PER_TASK: Final = 64
"""All tasks together take twice these bytes on a scrape, 64 for each beside its labels."""

REQUEST_BOUNDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Upper bounds of TransferQueue's histogram of request durations, seconds."""


@dataclass(frozen=True, slots=True)
class TaskState:
    """One task's progress in a partition. A ratio that is not known is None.

    Attributes:
        partition: The partition's name.
        task: The task's name; ``all`` for the partition's production as a whole.
        consumed_ratio: Samples that the task has consumed, of those in the partition, 0..1.
        produced_ratio: Samples with data, of those in the partition. The same for all tasks.
    """

    partition: str
    task: str
    consumed_ratio: float | None = None
    produced_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class PartitionSamples:
    """The samples of a partition, with keys or without.

    Attributes:
        partition: Its name, or :data:`~dataplane.labels.OTHER_PARTITION` for the sum of those past the limit.
        samples: Their number.
        task: The task by which the partition is judged: the configured one, else the slowest. None when unknown.
        waiting: Samples with data that this task has not consumed, None when unknown.
        tasks_left_out: Tasks that are not in the snapshot, because there are too many.
    """

    partition: str
    samples: int
    task: str | None = None
    waiting: int | None = None
    tasks_left_out: int = 0


@dataclass(frozen=True, slots=True)
class ControllerRequests:
    """The controller's requests of one operation since its process started, as TransferQueue counts them.

    Attributes:
        operation: One of :data:`CONTROLLER_OPERATIONS`.
        arrived: Requests that it has begun.
        failed: Requests whose handler failed, None when there were none yet.
        duration: Time in the handler, None when it is not known with these bounds.
    """

    operation: str
    arrived: int | None = None
    failed: int | None = None
    duration: Histogram | None = None


@dataclass(frozen=True, slots=True)
class ControllerState:
    """The controller as TransferQueue's own metrics show it. ``memory_bytes``: resident memory, None when unknown."""

    memory_bytes: int | None = None
    requests: tuple[ControllerRequests, ...] = ()


@dataclass(frozen=True, slots=True)
class OwnMetrics:
    """One reading of TransferQueue's own metrics.

    Attributes:
        samples: Samples by partition.
        tasks: The tasks, in any number and order.
        controller: The controller.
        uptime: Seconds since the controller's metrics began; it grows whenever they are refreshed. None when unknown.
    """

    samples: Mapping[str, int]
    tasks: Sequence[TaskState]
    controller: ControllerState
    uptime: float | None = None


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is known of one partition from questions: until which monotonic time."""

    samples: int
    tasks: tuple[TaskState, ...]
    until: float


class Tasks:
    """Keeps what the last reading or the last questions have shown, within limits. Not thread-safe.

    Args:
        clock: The clock.
        max_partitions: How many partitions keep a label of their own.
        settings: Settings by partition name.
    """

    def __init__(self, clock: Clock, *, max_partitions: int, settings: ByName[Partition]) -> None:
        self._clock = clock
        self._max_partitions = max_partitions
        self._settings = settings
        self._answers: dict[str, _Answer] = {}
        self._own: OwnMetrics | None = None

    @property
    def controller(self) -> ControllerState | None:
        """The controller, None while TransferQueue's own metrics are not known."""
        return None if self._own is None else self._own.controller

    def note_metrics(self, own: OwnMetrics) -> None:
        """Note a reading of TransferQueue's own metrics, which replaces the last one."""
        self._own = own

    def forget_reading(self) -> None:
        """Forget the last reading of TransferQueue's own metrics."""
        self._own = None

    def asked(self, partition: str, samples: int, tasks: Sequence[TaskState], *, keep_s: float) -> None:
        """Note the answers about all configured tasks of a partition. They are valid for *keep_s* seconds."""
        self._answers[partition] = _Answer(samples, tuple(tasks), self._clock.monotonic() + keep_s)

    def retain(self, partitions: Sequence[str]) -> None:
        """Forget the answers about partitions that are gone."""
        self._answers = {name: answer for name, answer in self._answers.items() if name in partitions}

    def forget(self) -> None:
        """Forget everything, since another controller or none is polled from now on."""
        self._answers.clear()
        self._own = None

    def samples(self) -> Mapping[str, int]:
        """Return the number of samples of each partition for which it is known."""
        if self._own is not None:
            return self._own.samples
        return {name: answer.samples for name, answer in self._answers.items()}

    def states(self, label: Callable[[str], str]) -> tuple[tuple[PartitionSamples, ...], tuple[TaskState, ...]]:
        """Return the samples and the tasks under each label, ordered by name. *label*: the label of a partition."""
        now = self._clock.monotonic()
        self._answers = {name: answer for name, answer in self._answers.items() if now <= answer.until}
        samples = self.samples()
        tasks: Iterable[TaskState] = (task for answer in self._answers.values() for task in answer.tasks)
        if self._own is not None:
            tasks = self._own.tasks
        by_partition: dict[str, list[TaskState]] = {}
        for task in tasks:
            by_partition.setdefault(task.partition, []).append(task)
        by_label: dict[str, list[str]] = {}
        for name in sorted(samples):
            by_label.setdefault(label(name), []).append(name)
        room = _MAX_BYTES
        found: list[PartitionSamples] = []
        kept: list[TaskState] = []
        rest = by_label.pop(OTHER_PARTITION, [])
        for number, (shown, names) in enumerate(sorted(by_label.items())):
            if number >= self._max_partitions:
                rest += names
                continue
            all_of_it = _merge(shown, [(samples[name], by_partition.get(name, ())) for name in names])
            named = self._named(names[0])
            of_it = [task for task in _kept(all_of_it, named) if (room := room - _room_of(task)) >= 0]
            kept += of_it
            total = sum(samples[name] for name in names)
            judge = _judge(of_it, named)
            left_out = len(all_of_it) - len(of_it)
            if judge is None:
                found.append(PartitionSamples(shown, total, tasks_left_out=left_out))
            else:
                found.append(PartitionSamples(shown, total, judge.task, _waiting(judge, total), left_out))
        if rest:
            left_out = sum(len(by_partition.get(name, ())) for name in rest)
            total = sum(samples[name] for name in rest)
            found.append(PartitionSamples(OTHER_PARTITION, total, tasks_left_out=left_out))
        return tuple(found), tuple(kept)

    def _named(self, partition: str) -> str | None:
        settings = self._settings.get(partition)
        return None if settings is None else settings.task


def _merge(label: str, parts: Sequence[tuple[int, Iterable[TaskState]]]) -> list[TaskState]:
    """Return the tasks of several partitions, each with its number of samples, under one label."""
    consumed: dict[str, list[tuple[int, float | None]]] = {}
    produced: dict[str, list[tuple[int, float | None]]] = {}
    for samples, tasks in parts:
        for task in tasks:
            consumed.setdefault(task.task, []).append((samples, task.consumed_ratio))
            produced.setdefault(task.task, []).append((samples, task.produced_ratio))
    return [TaskState(label, task, _mean(consumed[task]), _mean(produced[task])) for task in consumed]


def _mean(ratios: Sequence[tuple[int, float | None]]) -> float | None:
    if len(ratios) == 1:
        return ratios[0][1]
    known = [(samples, ratio) for samples, ratio in ratios if ratio is not None]
    total = sum(samples for samples, _ in known)
    return sum(samples * ratio for samples, ratio in known) / total if total else None


def _kept(tasks: Sequence[TaskState], named: str | None) -> list[TaskState]:
    """Return at most :data:`MAX_TASKS` tasks, by name; the configured one and ``all`` come first when they must."""
    first = (named, ALL_TASKS)
    short = [task for task in tasks if len(task.task) <= MAX_LABEL]
    chosen = sorted(short, key=lambda task: (task.task not in first, task.task))[:MAX_TASKS]
    return sorted(chosen, key=lambda task: task.task)


def _room_of(task: TaskState) -> int:
    return _BYTES_PER_TASK + label_bytes(task.partition) + label_bytes(task.task)


def _judge(tasks: Sequence[TaskState], named: str | None) -> TaskState | None:
    known = [task for task in tasks if task.consumed_ratio is not None and named in (None, task.task)]
    return min(known, key=lambda task: (task.consumed_ratio, task.task), default=None)


def _waiting(task: TaskState, samples: int) -> int:
    produced = 1.0 if task.produced_ratio is None else task.produced_ratio
    return max(0, round(samples * (produced - (task.consumed_ratio or 0.0))))
