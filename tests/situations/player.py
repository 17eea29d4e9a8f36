"""Plays what a job's data plane shows, step by step, to a real exporter process, and returns what that exposes.

A ROUTER in a thread stands in for the controller (``FakeRouter``): the frameworks that write these rows cannot run
here, and a real controller cannot be made to show one state for exactly as long as the exporter needs. A step ends when
the exporter has listed everything and shows the result, never after a fixed time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from dataplane.discovery.record import Endpoint, StorageUnitEndpoint, encode_endpoint
from dataplane.interfaces import PUBLISHED_VERSION_KEY, RESERVED_PARTITION
from tests.support.exporter_process import ExporterProcess, Exposition
from tests.support.fake_router import FakeRouter, reply
from tests.support.waiting import wait_until

__all__ = ["Job", "Rows", "departed", "groups"]

Rows = Mapping[str, object]
"""Key to tag."""

# Poll as often as possible, without a budget.
_ENV: Final = {"TQ_EXPORTER_METADATA_MAX_CONTROLLER_SHARE": "1", "TQ_EXPORTER_STORAGE_INTERVAL": "200ms"}
_STEP_S: Final = 30.0


class _Controller:
    """Lists what it is told to, and counts the rounds of listings that begin after it was told."""

    def __init__(self, sender: str) -> None:
        self.sender = sender
        self.rounds_begun = 0
        self._step = 0
        self._partitions: Mapping[str, Rows | Sequence[bytes]] = {}
        self._named: dict[str, int] = {}  # reader to the step in which it last asked for the names
        self.router = FakeRouter(self._answer)

    def show(self, partitions: Mapping[str, Rows | Sequence[bytes]], sender: str) -> None:
        assert partitions, "rounds are counted by the partitions that are listed: show at least one"
        self.sender, self._partitions = sender, partitions
        self._step += 1
        self.rounds_begun = 0

    def _answer(self, request: dict[str, Any]) -> Sequence[bytes]:
        kind, reader, partitions = request["request_type"], request["sender_id"], self._partitions
        if kind == "GET_LIST_PARTITIONS":  # also a ping
            self._named[reader] = self._step
            return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": list(partitions)}, self.sender)
        if self._named.pop(reader, None) == self._step:
            self.rounds_begun += 1
        name = request["body"]["partition_id"]
        rows = partitions.get(name, {})
        if not isinstance(rows, Mapping):
            return rows
        return reply("KV_LIST_RESPONSE", {"partition_info": {name: rows}, "message": "success"}, self.sender)


class _StorageUnit:
    """Reports the keys that it is told to."""

    def __init__(self, index: int, keys: int, capacity: int | None) -> None:
        self.id = f"TQ_STORAGE_UNIT_{index}"
        self.keys = keys
        self.capacity = capacity
        self.router = FakeRouter(self._answer)

    def _answer(self, request: dict[str, Any]) -> Sequence[bytes]:
        figures = {"storage_unit_id": self.id, "capacity": self.capacity, "active_keys": self.keys}
        figures["process_rss_bytes"] = 1
        return reply("METRICS_RESPONSE", figures, self.id)


class Job:
    """A training job as its data plane shows it, and a real exporter that watches it. A context manager.

    Args:
        config: The exporter's configuration file, as text.
        storage_keys: The keys of each storage unit.
        storage_capacity: How many keys each can hold, None without a limit.
        interval: How often the exporter lists.

    Attributes:
        exporter: The process.
        record: The discovery file.
    """

    def __init__(
        self,
        config: str = "",
        *,
        storage_keys: Sequence[int] = (),
        storage_capacity: int | None = None,
        interval: str = "200ms",
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tqs")
        self.record = Path(self._folder.name, "endpoint.json")
        file = Path(self._folder.name, "exporter.yaml")
        file.write_text(config)
        self._controllers: list[_Controller] = []
        self._units = [_StorageUnit(index, keys, storage_capacity) for index, keys in enumerate(storage_keys)]
        try:
            self.exporter = ExporterProcess(
                *("--config", str(file), "--discovery-file", str(self.record)),
                *("--ping-interval", "1s", "--metadata-interval", interval),
                env=_ENV,
            )
        except BaseException:
            self._close()
            raise

    def shows(
        self,
        partitions: Mapping[str, Rows | Sequence[bytes]],
        *,
        published: int | None = None,
        groups_per_step: int | None = None,
        rounds: int = 1,
    ) -> Exposition:
        """Show *partitions* from now on, and return a scrape after the exporter has listed them.

        Args:
            partitions: The rows of each partition, or the frames of a reply in place of them.
            published: The weight version that the trainer publishes, None if it does not.
            groups_per_step: How many groups the trainer publishes that it takes per step.
            rounds: How many times the exporter lists everything.
        """
        if not self._controllers:
            self._start_controller()
        return self._play(self._controllers[-1].sender, partitions, published, groups_per_step, rounds)

    def restarts(self, partitions: Mapping[str, Rows]) -> Exposition:
        """Replace the controller by another actor, which shows *partitions*."""
        self._controllers[-1].router.close()
        self._start_controller()
        return self._play(self._controllers[-1].sender, partitions)

    def stop_storage_unit(self, index: int) -> None:
        """Let a storage unit answer no more. Nothing can be shown afterwards."""
        self._units[index].router.close()

    def loads_checkpoint(self, partitions: Mapping[str, Rows]) -> Exposition:
        """Let the same controller answer under the id of its checkpoint, whose *partitions* it shows."""
        return self._play("TQ_CONTROLLER_of_the_checkpoint", partitions)

    def _play(
        self,
        sender: str,
        partitions: Mapping[str, Rows | Sequence[bytes]],
        published: int | None = None,
        groups_per_step: int | None = None,
        rounds: int = 1,
    ) -> Exposition:
        controller = self._controllers[-1]
        if published is not None:
            tag = {"weight_version": published}
            if groups_per_step is not None:
                tag["groups_per_step"] = groups_per_step
            partitions = {**partitions, RESERVED_PARTITION: {PUBLISHED_VERSION_KEY: tag}}
        for unit in self._units:
            unit.router.requests.clear()
        controller.show(partitions, sender)
        # A source begins a poll only after the result of its last one was published.
        wait_until(lambda: controller.rounds_begun > rounds, f"{rounds} rounds of listings", _STEP_S)
        polled = [unit.router.requests for unit in self._units]
        wait_until(lambda: all(len(requests) > 1 for requests in polled), "a poll of the storage units", _STEP_S)
        return self.exporter.wait_for(_is_current, "metrics of this step", _STEP_S)

    def _start_controller(self) -> None:
        number = len(self._controllers) + 1
        controller = _Controller(f"TQ_CONTROLLER_{number}")
        self._controllers.append(controller)
        endpoint = Endpoint(
            controller.router.address,
            controller_id=controller.sender,
            actor_id=f"actor-{number}",
            storage_units=tuple(
                StorageUnitEndpoint(index, unit.id, unit.router.address) for index, unit in enumerate(self._units)
            ),
        )
        partial = self.record.with_suffix(".part")
        partial.write_bytes(encode_endpoint(endpoint))
        os.replace(partial, self.record)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        self.exporter.close()
        self._close()

    def _close(self) -> None:
        routers = [one.router for one in self._controllers] + [one.router for one in self._units]
        for router in routers:
            router.close()
        self._folder.cleanup()


def groups(seen: Exposition, partition: str) -> dict[str, float]:
    """Return the groups of *partition* by state, without the states that have none."""
    return _not_zero(seen.by("dataplane_partition_groups", "state", partition=partition))


def departed(seen: Exposition, partition: str) -> dict[str, float]:
    """Return how many groups have left *partition* by state, without the states that have none."""
    return _not_zero(seen.by("dataplane_partition_groups_departed_total", "state", partition=partition))


def _not_zero(by_state: Mapping[str, float]) -> dict[str, float]:
    assert by_state, "there is no series"
    return {state: number for state, number in by_state.items() if number}


def _is_current(seen: Exposition) -> bool:
    """Whether what was listed is shown. On a busy machine the next listing may be so late that it is stale already."""
    read = {labels["partition"] for labels, value in seen.samples("dataplane_partition_readable") if value}
    return read <= seen.by("dataplane_partition_depth", "partition").keys()
