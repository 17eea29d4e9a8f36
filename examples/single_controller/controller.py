"""An asynchronous training controller that survives the loss of its data plane.

Rollouts run in threads while the controller trains. All calls of the data plane are made by the controller's own
thread, so a lost data plane is noticed, waited for and taken up again in one place: :meth:`Controller._attach`.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import uuid4

import torch
from tensordict import TensorDict

from dataplane import DataPlaneClient, DataPlaneError, DataPlaneGroupMeta
from dataplane.errors import DataPlaneNotReady, DataPlaneReadError, DataPlaneTimeout, DataPlaneUnavailable
from dataplane.recovery import Occupancy, select, stale, wait_until_available

__all__ = ["FIELDS", "PARTITION", "Controller"]

PARTITION = "train"
FIELDS = ["tokens"]
_IDLE_S = 0.02
# Rows of consecutive indexes go to the storage units in turn, so this many reach every unit of up to as many.
_PROBE_ROWS = 16

_log = logging.getLogger(__name__)


class Controller:
    """Keeps up to *capacity* groups in flight or queued, and trains on them, oldest first.

    It is the only producer and consumer of :data:`PARTITION`. No group is trained on twice, and a rollout whose put was
    not answered is put again.

    Args:
        connect: Makes an attached client.
        rollout: Returns the rows of one group, the fields :data:`FIELDS`. Called in a thread with the group's id and
            the weight version to generate with. What it raises counts as a failed rollout.
        train: Trains on a batch: its groups and the rows of each.
        capacity: Permits: groups in flight and in the queue.
        batch_groups: Groups of one training step.
        max_lag: Largest lag of a trained group, in versions.
        wait_s: How long to wait for a lost data plane, in seconds, before :meth:`run` raises.

    Attributes:
        version: The weight version, one more after each training step.
    """

    def __init__(
        self,
        connect: Callable[[], DataPlaneClient],
        rollout: Callable[[str, int], TensorDict],
        train: Callable[[list[DataPlaneGroupMeta], list[TensorDict]], object],
        *,
        capacity: int = 16,
        batch_groups: int = 4,
        max_lag: int = 2,
        wait_s: float = 600.0,
    ) -> None:
        if capacity < batch_groups:
            raise ValueError(f"capacity must be at least batch_groups, {batch_groups}: else no batch is ever complete")
        self.version = 0
        self.occupancy = Occupancy(capacity)
        self._connect, self._rollout, self._train = connect, rollout, train
        self._batch_groups, self._max_lag, self._wait_s = batch_groups, max_lag, wait_s
        self._pool = ThreadPoolExecutor(max_workers=4)
        self._run = uuid4().hex[:8]  # ids of another run never repeat
        self._dispatched = 0
        # Every group in flight: its version, and its rows once they are generated. A rollout stays here until its put
        # has been answered, so that it can be put again.
        self._rollouts: dict[str, tuple[int, Future[TensorDict]]] = {}
        # Keys that were trained on, and whose removal has not been confirmed. Nothing is read before they are gone.
        self._trained: list[str] = []

    def run(self, steps: int) -> None:
        """Train until the weight version is *steps*. Raises when a lost data plane does not come back in time."""
        with self._pool:
            client = self._attach()
            try:
                while self.version < steps:
                    try:
                        self._deliver(client)
                        self._dispatch()
                        if not self._step(client):
                            time.sleep(_IDLE_S)
                    except (DataPlaneUnavailable, DataPlaneTimeout) as error:
                        self._lost(client, error)
                        client = self._attach()
            finally:
                _close(client)

    def _lost(self, client: DataPlaneClient, error: DataPlaneError) -> None:
        _log.warning("%s: %s: dispatch pauses: %s", error.operation, type(error).__name__, error)
        _close(client)

    def _attach(self) -> DataPlaneClient:
        """Wait for a data plane and take up the work on it. Rollouts go on meanwhile; no new one is dispatched."""
        client = wait_until_available(self._connect, self._wait_s, self._waiting, check=self._resume)
        _log.info("attached: %d queued, %d in flight", len(self.occupancy.queued), len(self.occupancy.in_flight))
        return client

    def _waiting(self, error: DataPlaneError, waited_s: float) -> None:
        _log.info("waiting for %.1f s: %s: %s", waited_s, type(error).__name__, error)

    def _resume(self, client: DataPlaneClient) -> None:
        """Make this controller and the data plane agree, whether it is the same as before, an empty one or not whole.

        A call that was cut off may have had its effect. So what was trained is removed again, and the listing decides
        which puts arrived.
        """
        self._check_storage(client)
        self._remove_trained(client)
        groups = client.list_metadata(PARTITION)
        self.occupancy.rebuild(groups, self._rollouts)
        for group_id in self._rollouts.keys() - self.occupancy.in_flight:
            del self._rollouts[group_id]
        # What is unfinished and not in flight was left by an earlier run or by a put that broke off.
        unfinished = [group for group in groups if group.state in ("uncommitted", "incomplete")]
        self._evict(client, [group for group in unfinished if group.group_id not in self._rollouts])

    def _check_storage(self, client: DataPlaneClient) -> None:
        """Raise a DataPlaneError when a storage unit does not answer, which a ping cannot tell."""
        # Keys that begin with two underscores belong to no group.
        keys = [f"__probe-{row}" for row in range(_PROBE_ROWS)]
        fields = TensorDict({name: torch.zeros(_PROBE_ROWS, 1) for name in FIELDS}, batch_size=[_PROBE_ROWS])
        client.put_samples(keys, PARTITION, fields, [{}] * _PROBE_ROWS)
        client.clear_samples(keys, PARTITION)

    def _dispatch(self) -> None:
        while self.occupancy.dispatch(group_id := f"{self._run}-{self._dispatched}"):
            self._dispatched += 1
            self._rollouts[group_id] = self.version, self._pool.submit(self._rollout, group_id, self.version)

    def _deliver(self, client: DataPlaneClient) -> None:
        """Put what was generated. In production the rollout workers do this, and tell the controller."""
        for group_id, (version, rollout) in list(self._rollouts.items()):
            if not rollout.done():
                continue
            if (error := rollout.exception()) is not None:
                _log.warning("rollout %s failed: %s", group_id, error)
                self.occupancy.failed(group_id)
            else:
                self._put(client, group_id, version, rollout.result())
                self.occupancy.arrived(group_id)
            del self._rollouts[group_id]

    def _put(self, client: DataPlaneClient, group_id: str, version: int, rows: TensorDict) -> None:
        keys = [f"{group_id}/{row}" for row in range(rows.batch_size[0])]
        tag = {"group_id": group_id, "weight_version": version, "expected_num_keys": len(keys), "committed": False}
        client.put_samples(keys, PARTITION, rows, [tag] * len(keys))
        # Only now is the group ready. TransferQueue also lists rows whose data was refused or lost on the way.
        client.put_samples(keys, PARTITION, tags=[{"committed": True}] * len(keys))

    def _step(self, client: DataPlaneClient) -> bool:
        """Evict what is stale and train on one batch. Return False when there is none yet."""
        groups = client.list_metadata(PARTITION)
        # This trainer's version is the newest there is. What is ahead was left by a run that got further.
        self._evict(client, stale(groups, self.version, self._max_lag, ahead=True))
        batch = select(groups, self.version, self._max_lag, self._batch_groups)
        if len(batch) < self._batch_groups:
            return False
        rows = [self._read(client, group) for group in batch]
        whole = [row for row in rows if row is not None]
        if len(whole) == len(batch):
            self._train(batch, whole)
            self.version += 1
            self._trained = [key for group in batch for key in group.keys]
            self._remove_trained(client)
            self.occupancy.removed(group.group_id for group in batch)
        return True

    def _read(self, client: DataPlaneClient, group: DataPlaneGroupMeta) -> TensorDict | None:
        """Return a group's rows, None when they cannot be read: then it is evicted."""
        try:
            return client.get_samples(group.keys, PARTITION, FIELDS)
        except (DataPlaneNotReady, DataPlaneReadError) as error:
            _log.warning("group %s is listed and has no data: %s", group.group_id, error)
            self._evict(client, [group])
            return None

    def _remove_trained(self, client: DataPlaneClient) -> None:
        if self._trained:
            client.pop(self._trained, PARTITION)
            self._trained = []

    def _evict(self, client: DataPlaneClient, groups: list[DataPlaneGroupMeta]) -> None:
        if groups:
            client.evict([key for group in groups for key in group.keys], PARTITION)
            self.occupancy.removed(group.group_id for group in groups)


def _close(client: DataPlaneClient) -> None:
    with contextlib.suppress(DataPlaneError):  # the data plane may be lost
        client.close()
