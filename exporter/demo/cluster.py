"""The cluster process: owns a local Ray, the TransferQueue in it, and the actors of the training job.

Run as ``python -m exporter.demo.cluster`` by the supervisor. It reads the options from standard input as one line of
JSON, then orders (:data:`~exporter.demo.protocol.Order`); standard input stays open for as long as the supervisor
lives. It writes one :class:`~exporter.demo.protocol.Event` per line to standard output. Everything else that this
process, Ray and TransferQueue print goes to standard error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from dataplane.discovery.actor import find_controller
from dataplane.errors import DataPlaneError
from dataplane.interfaces import DataPlaneClient
from exporter.demo.actor import THREADS, log_to
from exporter.demo.chaos import Chaos, Part, kill
from exporter.demo.protocol import Event, Options, Order
from exporter.demo.reattaching import CLIENT_CONFIG, STORAGE_UNITS
from exporter.demo.rollout import Rollout
from exporter.demo.trainer import Trainer

__all__ = ["Cluster", "ClusterError", "main"]

# TransferQueue's actors request a whole CPU each; the demo's own request none.
_NUM_CPUS: Final = 1 + STORAGE_UNITS
_OBJECT_STORE_BYTES: Final = 80 * 2**20
_WATCH_S: Final = 0.5
_PART_ANSWER_S: Final = 5.0
_ACTOR_START_S: Final = 120.0
_ACTOR_STOP_S: Final = 8.0
_REPLACE_AFTER_S: Final = 5.0
_REPLACE_WITHIN_S: Final = 60.0
_ORPHAN_ENDS_WITHIN_S: Final = 30.0


class ClusterError(RuntimeError):
    """The demo cannot continue. The text tells the user why."""


class Cluster:
    """Ray, TransferQueue and the actors, from start to end.

    Args:
        options: The demo run.
        emit: Sends an event to the supervisor.
        stop: Set to stop everything.
    """

    def __init__(self, options: Options, emit: Callable[[Event], None], stop: threading.Event) -> None:
        self._options = options
        self._emit = emit
        self._stop = stop
        self._logger = log_to(Path(options.logs) / "owner.log", "owner")
        self._owner: DataPlaneClient | None = None
        self._parts: dict[str, tuple[Part, Any]] = {}
        self._actors: dict[str, Any] = {}
        self._works: dict[Any, str] = {}  # reference to run()'s result -> name of the actor
        rng = random.Random(f"{options.seed}/chaos")  # noqa: S311 - a simulation
        self._chaos = None if options.chaos is None else Chaos(rng, options.chaos)

    def start(self) -> None:
        """Start everything and tell the supervisor."""
        import ray

        context = ray.init(
            address="local",
            num_cpus=_NUM_CPUS,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=self._options.folder,
        )
        _end_on_signals(self._stop)  # Ray has installed its own handler
        if self._stop.is_set():
            return
        self._make_actors()
        self._start_data_plane()
        self._emit(Event("data_plane", ray_address=context.address_info["gcs_address"]))
        if not self._stop.is_set():
            self._start_actors()

    def watch(self) -> None:
        """Keep TransferQueue running until *stop* is set: start a new one when a part dies.

        Raises:
            ClusterError: An actor exited unexpectedly, or TransferQueue cannot be started again.
        """
        while not self._stop.wait(_WATCH_S):
            self._check_actors()
            self._harm()
            dead = self._dead_part()
            if dead is not None:
                self._replace_data_plane(dead)

    def watched(self) -> None:
        """Allow incident and next kill of a part: the exporter sees the data plane. Called from another thread."""
        self._actors["trainer"].watched.remote()
        if self._chaos is not None:
            self._chaos.calm(time.monotonic())

    def end(self) -> None:
        """Stop the actors, TransferQueue and Ray. Every step has a deadline."""
        import ray

        if not ray.is_initialized():
            return
        for handle in self._actors.values():
            handle.stop.remote()
        if self._works:
            ray.wait(list(self._works), num_returns=len(self._works), timeout=_ACTOR_STOP_S)
        self._close_data_plane()
        ray.shutdown()

    def _start_data_plane(self) -> None:
        import ray

        from dataplane.factory import build_data_plane_client

        deadline = time.monotonic() + _REPLACE_WITHIN_S
        while True:
            try:
                self._owner = build_data_plane_client(CLIENT_CONFIG, bootstrap=True)
                break
            except DataPlaneError as error:  # a dead controller's name may still be taken
                if time.monotonic() > deadline or self._stop.wait(1.0):
                    raise ClusterError(f"TransferQueue did not start: {error}") from error
        handles = {"controller": find_controller()}
        for index in range(STORAGE_UNITS):
            handles[f"storage unit {index}"] = ray.get_actor(f"TransferQueueStorageUnit#{index}")
        pids = ray.get([handle.__ray_call__.remote(_pid) for handle in handles.values()], timeout=30)
        self._parts = {
            name: (Part(name, pid, name == "controller"), handle)
            for (name, handle), pid in zip(handles.items(), pids, strict=True)
        }

    def _make_actors(self) -> None:
        import ray

        remote = ray.remote(num_cpus=0, max_concurrency=THREADS)
        rollouts = [remote(Rollout).remote(self._options, index) for index in range(self._options.rollouts)]
        self._actors = {f"rollout-{index}": handle for index, handle in enumerate(rollouts)}
        self._actors["trainer"] = remote(Trainer).remote(self._options, rollouts)
        for handle in self._actors.values():
            handle.warm_up.remote()

    def _start_actors(self) -> None:
        """Start the actors' loops, and tell the supervisor when all of them are attached."""
        import ray

        self._works = {handle.run.remote(): name for name, handle in self._actors.items()}
        starting = [handle.at_work.remote(_ACTOR_START_S) for handle in self._actors.values()]
        while len(ray.wait(starting, num_returns=len(starting), timeout=_WATCH_S)[0]) < len(starting):
            self._check_actors()
            if self._stop.is_set():
                return
        self._emit(Event("ready", metrics=dict(zip(self._actors, ray.get(starting), strict=True))))

    def _check_actors(self) -> None:
        import ray

        for work in ray.wait(list(self._works), timeout=0)[0]:
            name = self._works[work]
            try:
                ray.get(work)
            except ray.exceptions.RayError as error:
                raise ClusterError(f"{name} failed: {str(error).strip().splitlines()[-1]}") from error
            raise ClusterError(f"{name} exited unexpectedly")

    def _harm(self) -> None:
        if self._chaos is None:
            return
        victim = self._chaos.victim([part for part, _ in self._parts.values()], time.monotonic())
        if victim is not None:
            self._tell(f"chaos: killing the {victim.name}")
            with contextlib.suppress(ProcessLookupError):
                kill(victim)

    def _dead_part(self) -> str | None:
        """Return the name of a part whose actor is dead, None when all are alive or merely slow."""
        import ray

        answers = {handle.__ray_call__.remote(_pid): part.name for part, handle in self._parts.values()}
        answered, _ = ray.wait(list(answers), num_returns=len(answers), timeout=_PART_ANSWER_S)
        for answer in answered:
            try:
                ray.get(answer)
            except ray.exceptions.RayActorError:
                return answers[answer]
        return None

    def _replace_data_plane(self, dead: str) -> None:
        """Stop the rest of TransferQueue and start a new one: a running one accepts no replacement for a part."""
        self._tell(f"the {dead} died; stopping the rest of TransferQueue")
        self._close_data_plane()
        if self._stop.wait(_REPLACE_AFTER_S):
            return
        self._start_data_plane()
        self._tell("a new TransferQueue is up")

    def _close_data_plane(self) -> None:
        owner, self._owner, self._parts = self._owner, None, {}
        if owner is not None:
            try:
                owner.close()
            except DataPlaneError as error:
                self._logger.warning("closing TransferQueue: %s", error)

    def _tell(self, text: str) -> None:
        self._logger.info(text)
        self._emit(Event("news", text=text))


def main() -> int:
    """Run the cluster process; return its exit code."""
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = msgspec.json.decode(sys.stdin.buffer.readline(), type=Options)

    def emit(event: Event) -> None:
        with contextlib.suppress(BrokenPipeError):
            events.write(msgspec.json.encode(event) + b"\n")

    stop, orphaned = threading.Event(), threading.Event()
    _end_on_signals(stop)
    cluster = Cluster(options, emit, stop)
    orders = threading.Thread(target=_take_orders, args=(cluster, stop, orphaned, options.folder), daemon=True)
    orders.start()
    code = 0
    try:
        cluster.start()
        cluster.watch()
    except Exception as error:
        logging.getLogger(__name__).exception("the demo ends")
        text = str(error) if isinstance(error, ClusterError) else f"{type(error).__name__}: {error}"
        emit(Event("failed", text=" ".join(text.split())))
        code = 1
    finally:
        cluster.end()
        if orphaned.is_set():
            shutil.rmtree(options.folder, ignore_errors=True)
    return code


def _end_on_signals(stop: threading.Event) -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())


def _take_orders(cluster: Cluster, stop: threading.Event, orphaned: threading.Event, folder: str) -> None:
    """Carry out the supervisor's orders. A killed supervisor cannot clean up, so this process does it then."""
    for line in sys.stdin.buffer:
        order: Order = msgspec.json.decode(line, type=Order)
        if order == "end":
            stop.set()
            return
        cluster.watched()
    orphaned.set()
    stop.set()
    time.sleep(_ORPHAN_ENDS_WITHIN_S)  # the time that an orderly shutdown may take
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _pid(_: object) -> int:
    return os.getpid()


if __name__ == "__main__":
    sys.exit(main())
