"""A training job and its exporter on a clock that a test moves: what Prometheus would have scraped, moment by moment.

The exporter is the real one from its sources to its exposition; its readers are scripted, since a real data plane
takes as long as the situation lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from dataplane.adapters.wire import KnownSender
from dataplane.adapters.wire.storage import StorageUnitMetrics, UnitRequests
from dataplane.discovery.record import Endpoint, StorageUnitEndpoint
from dataplane.errors import DataPlaneReadError, DataPlaneTimeout, DataPlaneUnavailable
from dataplane.groups import DataPlaneCapabilities, DataPlaneGroupMeta, Listing
from dataplane.interfaces import PUBLISHED_VERSION_KEY, RESERVED_PARTITION
from exporter.app import limits_of
from exporter.conditions import Judge
from exporter.config import Config, Otlp
from exporter.config.model import Metadata, Ping, Storage, TqMetrics
from exporter.model import histogram
from exporter.model.history import History
from exporter.model.results import Absent, Found
from exporter.model.snapshot import Snapshot
from exporter.model.tasks import REQUEST_BOUNDS, ControllerRequests, ControllerState, OwnMetrics, TaskState
from exporter.polling.poller import Poller
from exporter.polling.readers import Readers
from exporter.polling.sources import build_sources
from exporter.polling.sources.target import Target
from exporter.telemetry import Telemetry
from exporter.version import Build
from tests.dashboards.backfill import Samples, parse
from tests.dashboards.exposed import Client, OwnEndpoint
from tests.support.clock import StoppedClock

__all__ = ["STEP_S", "Simulated", "World"]

STEP_S: Final = 30.0
"""Time between two moments: that between scrapes, and between polls."""

_PER_STEP: Final = 8
_ROWS: Final = 4
_CLIENT_ERRORS: Final = {"silent": "DataPlaneTimeout", "gone": "DataPlaneUnavailable"}


@dataclass
class World:
    """The job and its data plane; a situation changes what they do.

    Attributes:
        controller: Whether the controller answers, is silent, is gone, or was never there.
        generating: Whether rollouts finish groups; ``failing``: they begin groups and give them up.
        training: Whether the trainer takes groups.
        syncing: Whether new weights reach the rollouts.
        silent_unit: The storage unit that does not answer.
        unreadable: Partitions that cannot be listed.
        exporter_up: Whether Prometheus can scrape the exporter.
        malformed: Rows of ``train`` whose tag cannot be read.
    """

    controller: Literal["answers", "silent", "gone", "absent"] = "answers"
    generating: Literal["finishing", "failing", "no"] = "finishing"
    training: bool = True
    syncing: bool = True
    silent_unit: int | None = None
    unreadable: set[str] = field(default_factory=set)
    exporter_up: bool = True
    malformed: int = 0
    actor: int = 1
    version: int = 40
    groups: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {"train": [], "val": []})
    born: int = 0

    def restart(self) -> None:
        """Replace the controller by one without data."""
        self.controller = "answers"
        self.actor += 1
        self.groups = {"train": [], "val": []}

    def advance(self, now: float, step: int) -> None:
        """Let the job work for one step of the clock."""
        if self.controller != "answers":
            return
        train, val = self.groups["train"], self.groups["val"]
        for group in train:
            if group["state"] == "uncommitted" and self.generating == "finishing":
                group["state"] = "ready"
            elif group["state"] == "uncommitted" and self.generating == "failing" and now - group["born"] > 50:
                group["state"] = "failed"
        train[:] = [group for group in train if group["state"] not in ("taken", "failed")]
        if self.generating != "no":
            behind = (step % 3 > 1) if self.syncing else 0
            made = self.version - behind if self.syncing else min(self.version, 50)
            train += [self._group(now, made) for _ in range(_PER_STEP // 2)]
        if step % 10 == 0:
            val[:] = [{**self._group(now, self.version), "state": "ready"} for _ in range(3)]
        ready = [group for group in train if group["state"] == "ready"]
        if self.training and len(ready) >= _PER_STEP and step % 2 == 0:
            for group in ready[:_PER_STEP]:
                group["state"] = "taken"
            self.version += 1

    def _group(self, now: float, version: int) -> dict[str, Any]:
        self.born += 1
        return {"id": f"g{self.born}", "born": now, "version": version, "state": "uncommitted"}

    def keys(self) -> int:
        """Return the number of keys in storage."""
        return _ROWS * sum(len(groups) for groups in self.groups.values())


class _Reader:
    """Answers pings and listings from the world."""

    controller_seconds = 0.0
    last_sender_id = None

    def __init__(self, world: World, clock: StoppedClock) -> None:
        self._world, self._clock = world, clock
        self._pings = 0

    def ping(self, timeout_s: float | None = None) -> float:
        self._check("ping")
        self._pings += 1
        took = 0.0008 if self._pings % 16 else 0.3
        self._clock.advance(took)
        return took

    def list_partitions(self) -> list[str]:
        self._check("list_partitions")
        return [*self._world.groups, RESERVED_PARTITION, *self._world.unreadable]

    def list_metadata(self, partition_id: str) -> list[DataPlaneGroupMeta]:
        self._check("list_metadata")
        self._clock.advance(0.02)
        self.controller_seconds += 0.02
        if partition_id in self._world.unreadable:
            raise DataPlaneReadError("a pickle, which is never loaded")
        if partition_id == RESERVED_PARTITION:
            tags = {"groups_per_step": _PER_STEP}
            return [DataPlaneGroupMeta(partition_id, "", [PUBLISHED_VERSION_KEY], self._world.version, tags=tags)]
        found = [self._meta(partition_id, group) for group in self._world.groups[partition_id]]
        rows = sum(len(group.keys) for group in found)
        return Listing(found, convention="recovery", rows=rows, stated_version=None)

    def _meta(self, partition: str, group: Mapping[str, Any]) -> DataPlaneGroupMeta:
        state, name = group["state"], group["id"]
        return DataPlaneGroupMeta(
            partition,
            name,
            [f"{name}/{row}" for row in range(_ROWS)],
            group["version"],
            group["born"],
            committed=state in ("ready", "taken"),
            expected_num_keys=_ROWS,
            size_bytes=_ROWS * 65_536,
            failed=state == "failed",
            taken=state == "taken",
            malformed_keys=self._world.malformed if partition == "train" and name.endswith("0") else 0,
        )

    def _check(self, operation: str) -> None:
        if self._world.controller == "silent":
            self._clock.advance(4.0)
            raise DataPlaneTimeout("no answer within 4 s", operation=operation)
        if self._world.controller != "answers":
            raise DataPlaneUnavailable("connection refused", operation=operation)

    def get_capabilities(self) -> DataPlaneCapabilities:
        return DataPlaneCapabilities(supports_persistent_recovery=True)

    def close(self) -> None:
        pass


class _Unit:
    """A storage unit."""

    def __init__(self, world: World, index: int) -> None:
        self._world, self._index = world, index
        self._asked = 0

    def read(self) -> StorageUnitMetrics:
        if self._world.controller not in ("answers", "silent"):
            raise DataPlaneUnavailable("connection refused")
        if self._world.silent_unit == self._index:
            raise DataPlaneTimeout("no answer within 3 s")
        self._asked += 1
        puts, gets = 40 * self._asked, 18 * self._asked
        return StorageUnitMetrics(
            capacity=1000,
            keys=self._world.keys() // 2 + 5 * self._index,
            memory_bytes=400_000_000 + 2_000_000 * self._asked,
            requests={
                "PUT_DATA": UnitRequests(puts, puts, 0.004 * puts),
                "GET_DATA": UnitRequests(gets, gets - 1, 0.009 * gets),
                "GET_METRICS": UnitRequests(self._asked),
            },
            ssd_bytes=3 * 2**30 + 2**20 * self._asked,
            ssd_values=640 + self._asked,
            ssd_fallbacks=3,
            accept_queue_peak_ratio=0.125,
            socket_drops=2,
        )

    def close(self) -> None:
        pass


class _OwnMetrics:
    """TransferQueue's own metrics, as the exporter reads them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._read = 0

    def read(self) -> OwnMetrics:
        if self._world.controller != "answers":
            raise DataPlaneUnavailable("connection refused")
        self._read += 1
        asked = 120 * self._read
        counts = (asked - 30, 20, 6, 2, 1, 1, 0, 0, 0, 0, 0)
        return OwnMetrics(
            {"train": self._world.keys(), "stream": 200},
            (
                TaskState("stream", "all", None, 0.75),
                TaskState("stream", "ref", 0.25, 0.75),
                TaskState("stream", "train", min(0.1 + 0.02 * self._read, 0.75), 0.75),
            ),
            ControllerState(
                300_000_000 + 100_000 * self._read,
                (
                    ControllerRequests(
                        "KV_LIST", asked, self._read // 20, histogram.Histogram(REQUEST_BOUNDS, counts, 0.4)
                    ),
                    ControllerRequests("other", 3 * self._read),
                ),
            ),
            uptime=30.0 * self._read,
        )

    def close(self) -> None:
        pass


class _Stepped(Poller):
    """A poller whose sources are polled on the caller's thread."""

    def step(self) -> None:
        """Poll every source once, and look for a controller if that is due."""
        now = self._clock.monotonic()
        due = self._slots[self._look_up.name].timer.due
        if due is not None and due <= now:
            self._poll(self._look_up, now)
        for source in self._target.sources if self._target else ():
            self._poll(source, now)
        with self._lock:
            self._publish()
        self._close_retired()


class _Discovery:
    """Finds the world's controller."""

    kind = "file"
    recheck_s = 30.0

    def __init__(self, world: World, host: str, run: str | None, units: tuple[StorageUnitEndpoint, ...]) -> None:
        self._world, self._host, self._run, self._units = world, host, run, units

    def look(self, previous: Endpoint | None) -> Found | Absent:
        if self._world.controller in ("gone", "absent"):
            return Absent(ended=False, detail="no record")
        return Found(
            Endpoint(
                f"tcp://{self._host}:4000{self._world.actor}",
                f"TQ_CONTROLLER_{self._world.actor}",
                f"actor-{self._world.actor}",
                "SimpleStorage",
                2000,
                self._units,
                f"{self._host}:9100",
                {"transfer_queue": "0.1.11", "ray": "2.60.0"},
                self._run,
            )
        )

    def close(self) -> None:
        pass


class Simulated:
    """One run: the world, its exporter, two clients, and TransferQueue's own endpoint.

    Args:
        labels: The labels of its targets, without ``job`` and ``instance``.
        host: The host part of the targets' addresses.
        script: Changes the world before each step.
        clock: The clock; shared by the runs of a situation.
    """

    def __init__(
        self, labels: Mapping[str, str], host: str, script: Callable[[World, int], None], clock: StoppedClock
    ) -> None:
        self.world = World()
        self._labels, self._host, self._script, self._clock = labels, host, script, clock
        config = Config(
            run=labels.get("run"),
            ping=Ping(interval=STEP_S),
            metadata=Metadata(interval=STEP_S),
            storage=Storage(interval=STEP_S),
            tq_metrics=TqMetrics(interval=STEP_S),
            otlp=Otlp(),
        )
        self._telemetry = Telemetry(
            config, lambda: self._poller.snapshot, clock=clock, build=Build("1.2.3", "0123abc", "3.11.7"), environ={}
        )
        units = tuple(StorageUnitEndpoint(index, f"unit-{index}", f"tcp://{host}:7{index}") for index in range(2))
        answering = tuple((unit, _Unit(self.world, unit.index)) for unit in units)

        def bind(endpoint: Endpoint) -> Target:
            reader = _Reader(self.world, clock)
            readers = Readers(reader, reader, answering, KnownSender(None), _OwnMetrics(self.world))  # type: ignore[arg-type]
            return Target(endpoint, readers, build_sources(readers, config, tracer=self._telemetry.tracer, clock=clock))

        self.history = History(clock)
        self._poller = _Stepped(
            config,
            discovery=_Discovery(self.world, host, labels.get("run"), units),  # type: ignore[arg-type]
            bind=bind,
            recorder=self._telemetry.recorder,
            tracer=self._telemetry.tracer,
            clock=clock,
            judge=Judge(self.history, limits_of(config)).judge,
        )
        self._poller.start(loop=False)
        self._clients = [Client(slow=1 + index) for index in range(2)]
        self._own = OwnEndpoint()

    def close(self) -> None:
        """End it."""
        self._poller.stop(10.0)
        self._telemetry.shutdown(1.0)

    @property
    def snapshot(self) -> Snapshot:
        """What the exporter knows."""
        return self._poller.snapshot

    def scrape(self) -> bytes:
        """Return the exporter's exposition."""
        return self._telemetry.scrape(None)[0]

    def work(self, step: int) -> None:
        """Let one step pass, which nobody scrapes."""
        self._script(self.world, step)
        self.world.advance(self._clock.time(), step)
        self._poller.step()

    def step(self, step: int) -> dict[str, Samples]:
        """Let one step pass, and return the samples of each target."""
        self.work(step)
        for signal in ("metrics", "traces"):
            self._telemetry.recorder.export(signal, "ok" if step % 9 else "failed")
        exporter = self._target("tq-exporter", 9464)
        found: dict[str, Samples] = {}
        up = float(self.world.exporter_up)
        text = self._telemetry.scrape(None)[0].decode() if up else ""
        found["exporter"] = {**parse(text, exporter), **parse(f"up {up}", exporter)}
        for index, client in enumerate(self._clients):
            target = self._target("trainer" if index == 0 else "rollout", 9500 + index)
            text = client.scrape(step, _CLIENT_ERRORS.get(self.world.controller))
            found[f"client {index}"] = {**parse(text, target), **parse("up 1", target)}
        own = self._target("transfer-queue", 9100)
        if self.world.controller == "answers":
            found["own"] = {**parse(self._own.scrape(), own), **parse("up 1", own)}
        else:
            found["own"] = parse("up 0", own)
        return found

    def _target(self, job: str, port: int) -> dict[str, str]:
        return {**self._labels, "job": job, "instance": f"{self._host}:{port}"}
