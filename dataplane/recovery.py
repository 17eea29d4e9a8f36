"""What a training controller needs to survive the loss of its data plane.

Three parts, which do not depend on each other: :func:`wait_until_available` waits for a data plane that answers,
:func:`select` and :func:`stale` decide what to train on and what to evict, and :class:`Occupancy` counts the groups for
which a controller with backpressure has asked. ``docs/recovery.md`` shows how they work together.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable
from typing import Final, Literal, TypeVar, get_args

from dataplane.errors import DataPlaneBadRequest, DataPlaneError, DataPlaneTimeout, DataPlaneUnavailable, error_type
from dataplane.groups import DataPlaneGroupMeta
from dataplane.interfaces import MetadataReader

__all__ = ["ABANDONED_AFTER", "Occupancy", "Order", "select", "stale", "wait_until_available"]

ClientT = TypeVar("ClientT", bound=MetadataReader)

Order = Literal["oldest", "newest", "fifo"]

ABANDONED_AFTER: Final = 8
"""By default an unfinished group counts as abandoned once it misses the window by more versions than this."""

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
_PING_S: Final = 5.0
_SHORTEST_PING_S: Final = 1.0


def wait_until_available(
    client_factory: Callable[[], ClientT],
    timeout_s: float,
    on_wait: Callable[[DataPlaneError, float], object] | None = None,
    *,
    check: Callable[[ClientT], object] | None = None,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> ClientT:
    """Return a client of a data plane that answers. Close the client that was lost before.

    Each try makes a new client, so it finds a controller that replaced the lost one, and pings it. A client that fails
    is closed. Between two tries it waits 0.05 to 0.1 s at first and 2.5 to 5 s in the end; the random part keeps many
    processes from coming back at the same moment.

    Args:
        client_factory: Makes an attached client.
        timeout_s: No try begins later than this, in seconds; ``math.inf`` waits for ever. The last try may take as long
            as *client_factory* and *check* do, and the ping up to 1 s.
        on_wait: Called before each wait with the error and the seconds waited so far. What it raises ends the wait.
        check: Called with the pinged client; a DataPlaneError of it counts as a failed try. A ping asks the controller
            alone. Only a put of rows with fields shows that the storage units answer too.
        sleep: Waits; what it raises ends the wait.
        clock: Seconds of a monotonic clock.

    Raises:
        DataPlaneTimeout: The last try ended with a timeout. Its error is the cause.
        DataPlaneUnavailable: The last try ended with any other DataPlaneError, which is the cause.
        DataPlaneBadRequest: A try raised it: waiting does not help. Likewise any other error that is not a
            DataPlaneError.
        ValueError: Likewise: a wrong configuration. Or *timeout_s* is not positive.
    """
    if not timeout_s > 0:
        raise ValueError(f"timeout_s must be a positive number of seconds, not {timeout_s!r}")
    started, pause_s = clock(), FIRST_PAUSE_S
    while True:
        try:
            return _attach(client_factory, timeout_s - (clock() - started), check)
        except (DataPlaneBadRequest, ValueError):
            raise
        except DataPlaneError as error:
            last = error
        waited_s = clock() - started
        if waited_s >= timeout_s:
            kind = DataPlaneTimeout if isinstance(last, DataPlaneTimeout) else DataPlaneUnavailable
            raise kind(
                f"no data plane became available within {timeout_s:g} s; the last try: {error_type(last)}: {last}",
                operation=last.operation,
                partition_id=last.partition_id,
            ) from last
        if on_wait is not None:
            on_wait(last, waited_s)
        sleep(min(pause_s * random.uniform(0.5, 1.0), timeout_s - waited_s))  # noqa: S311 - no secret
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _attach(client_factory: Callable[[], ClientT], left_s: float, check: Callable[[ClientT], object] | None) -> ClientT:
    client = client_factory()
    try:
        client.ping(timeout_s=min(_PING_S, max(_SHORTEST_PING_S, left_s)))
        if check is not None:
            check(client)
    except BaseException:
        with contextlib.suppress(Exception):  # what made it fail is worth more
            client.close()
        raise
    return client


def select(
    groups: Iterable[DataPlaneGroupMeta], trainer_version: int, max_lag: int, n: int, order: Order = "oldest"
) -> list[DataPlaneGroupMeta]:
    """Return up to *n* groups to train on: those that are ``ready``, with a lag of 0 to *max_lag* versions.

    Never selected: a group without a version, since its lag is unknown; a group ahead of the trainer, since the trainer
    does not have the weights that generated it; and every group that is not ``ready``.

    Args:
        groups: What :meth:`~dataplane.interfaces.MetadataReader.list_metadata` returned.
        trainer_version: The trainer's weight version. A group's lag is this minus its own version.
        max_lag: Largest lag in versions.
        n: Number of groups. Fewer are returned when fewer are usable; the caller decides whether they are a batch.
        order: ``oldest`` or ``newest`` weight version first, equal ones as listed; or ``fifo``, as listed, which in
            TransferQueue is the order in which the groups' first rows were written.

    Raises:
        ValueError: *n* or *max_lag* is negative, or there is no such *order*.
    """
    if n < 0:
        raise ValueError(f"n must not be negative, not {n!r}")
    if order not in get_args(Order):
        raise ValueError(f"order must be one of {', '.join(get_args(Order))}, not {order!r}")
    oldest = _oldest(trainer_version, max_lag)
    usable = [
        (version, group)
        for group in groups
        if (version := group.weight_version) is not None
        and oldest <= version <= trainer_version
        and group.state == "ready"
    ]
    if order != "fifo":
        sign = 1 if order == "oldest" else -1
        usable.sort(key=lambda item: sign * item[0])
    return [group for _, group in usable[:n]]


def stale(
    groups: Iterable[DataPlaneGroupMeta],
    trainer_version: int,
    max_lag: int,
    *,
    abandoned_after: int = ABANDONED_AFTER,
    ahead: bool = False,
) -> list[DataPlaneGroupMeta]:
    """Return the groups to evict: those that :func:`select` will never return, at this version or a later one.

    * ``ready`` with a lag above *max_lag*, or without a version;
    * ``failed``;
    * ``uncommitted`` or ``incomplete`` and abandoned: the lag is above *max_lag* + *abandoned_after*. Without a version
      it is never listed, since its producer may still write;
    * with *ahead*, those of any of these states whose version is newer than the trainer's.

    A ``taken`` group is never listed: a trainer still needs its rows.

    Args:
        groups: See :func:`select`, also for the next two arguments.
        trainer_version: Likewise.
        max_lag: Likewise.
        abandoned_after: Versions beyond the window after which the producer of an unfinished group counts as dead.
        ahead: Also list what is ahead of the trainer. Without it such groups stay, and are usable once the trainer gets
            there. A trainer that went back to an older checkpoint needs it, or they fill the queue until then.

    Raises:
        ValueError: *max_lag* or *abandoned_after* is negative.
    """
    oldest = _oldest(trainer_version, max_lag)
    if abandoned_after < 0:
        raise ValueError(f"abandoned_after must not be negative, not {abandoned_after!r}")
    return [group for group in groups if _is_stale(group, trainer_version if ahead else None, oldest, abandoned_after)]


def _is_stale(group: DataPlaneGroupMeta, newest: int | None, oldest: int, abandoned_after: int) -> bool:
    state, version = group.state, group.weight_version
    if state in ("failed", "taken"):
        return state == "failed"
    if version is None:
        return state == "ready"
    if newest is not None and version > newest:
        return True
    return version < (oldest if state == "ready" else oldest - abandoned_after)


def _oldest(trainer_version: int, max_lag: int) -> int:
    if max_lag < 0:
        raise ValueError(f"max_lag must not be negative, not {max_lag!r}")
    return trainer_version - max_lag


class Occupancy:
    """The groups that hold a permit of a controller with backpressure, by group id.

    A controller takes a permit when it dispatches a rollout, and gets it back when the group is trained on, evicted or
    failed. So :attr:`in_use` is the partition's depth plus the groups in flight. Groups are counted by id: saying the
    same twice, or of a group that is not counted, changes nothing, so that no permit is returned twice or lost.

    One object is for one partition and one thread.

    Args:
        capacity: Number of permits.

    Raises:
        ValueError: *capacity* is less than 1.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity!r}")
        self.capacity = capacity
        self._in_flight: set[str] = set()
        self._queued: set[str] = set()

    @property
    def in_flight(self) -> frozenset[str]:
        """Ids of the groups that were dispatched and are not ready yet."""
        return frozenset(self._in_flight)

    @property
    def queued(self) -> frozenset[str]:
        """Ids of the groups that are ready in the data plane: as many as the partition's depth."""
        return frozenset(self._queued)

    @property
    def in_use(self) -> int:
        """Number of permits in use. Above :attr:`capacity` when the data plane has more groups than were dispatched."""
        return len(self._in_flight) + len(self._queued)

    @property
    def free(self) -> int:
        """Number of groups that may be dispatched now, never negative."""
        return max(0, self.capacity - self.in_use)

    def dispatch(self, group_id: str) -> bool:
        """Take a permit for *group_id*, whose rollout begins now. Return False when none is free.

        Raises:
            ValueError: The group holds a permit already.
        """
        if group_id in self._in_flight or group_id in self._queued:
            raise ValueError(f"group {group_id!r} holds a permit already: give each rollout an id of its own")
        if not self.free:
            return False
        self._in_flight.add(group_id)
        return True

    def arrived(self, group_id: str) -> None:
        """Move *group_id* from the flight to the queue: it is ready. Counts one that was never dispatched, too."""
        self._in_flight.discard(group_id)
        self._queued.add(group_id)

    def failed(self, group_id: str) -> None:
        """Return the permit of *group_id*, whose rollout ended without a group. A group that is ready keeps its own."""
        self._in_flight.discard(group_id)

    def removed(self, group_ids: Iterable[str]) -> None:
        """Return the permits of groups that were trained on or evicted, unfinished ones included."""
        gone = set(group_ids)
        self._in_flight -= gone
        self._queued -= gone

    def rebuild(self, groups: Iterable[DataPlaneGroupMeta], in_flight: Iterable[str] | None = None) -> None:
        """Count again from a listing, after which :attr:`in_use` is its depth plus what is still in flight.

        Permits of queued groups that were lost with the data plane are returned. A group in flight keeps its permit
        unless the listing shows that its flight is over: ``ready`` (then it is queued), ``taken`` or ``failed``.

        Args:
            groups: All groups of the partition.
            in_flight: Ids of the groups whose rollouts still run or wait to be written. None keeps those that this
                object knows; a controller that has just started must name those that outlived the one before it.
        """
        flying = set(self._in_flight if in_flight is None else in_flight)
        queued: set[str] = set()
        for group in groups:
            if group.state == "ready":
                queued.add(group.group_id)
            if group.state not in ("uncommitted", "incomplete"):
                flying.discard(group.group_id)
        self._in_flight, self._queued = flying, queued
