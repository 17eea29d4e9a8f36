"""A thousand timeouts leave nothing behind: no thread, no descriptor, no memory, and a client that works."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from types import ModuleType
from typing import Any, Final

import psutil
import pytest

from dataplane.adapters.transfer_queue import TQDataPlaneClient
from dataplane.adapters.transfer_queue import calls as _tq_calls
from dataplane.adapters.transfer_queue.calls import BoundedThreads, TransferQueueCalls
from dataplane.errors import DataPlaneError, DataPlaneReadError
from tests.faults.adapter_calls import CALLS, METADATA, STORAGE, load, outcomes_of
from tests.faults.adapter_report import write_leaks
from tests.support.cluster import TQCluster, frozen

_Check = Callable[[str, Sequence[Callable[[], Any]]], None]

_TIMEOUTS: Final = 1000
_WARM_UP: Final = 200
_CALLERS: Final = 4
# Nothing may grow with the number of calls, so these limits are far below one per call. They allow for threads and
# descriptors of Ray and TransferQueue, which vary.
_MOST: Final = {"python_threads": 0, "threads": 8, "descriptors": 25, "rss_bytes": 16 * 2**20}


@dataclass(frozen=True)
class Held:
    """Resources of this process."""

    python_threads: int
    threads: int
    descriptors: int
    rss_bytes: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        return cls(
            threading.active_count(),
            len(os.listdir("/proc/self/task")),
            len(os.listdir("/proc/self/fd")),
            psutil.Process().memory_info().rss,
        )

    def since(self, before: Held) -> dict[str, int]:
        """Return how much each has grown."""
        return {name: value - getattr(before, name) for name, value in asdict(self).items()}


def _kinds_of(calls: Sequence[Callable[[], Any]], count: int) -> Counter[str]:
    """Make *count* calls from a few threads and count their outcomes."""

    def one(number: int) -> str:
        try:
            calls[number % len(calls)]()
        except DataPlaneError as error:
            return type(error).__name__
        return "ok"

    with ThreadPoolExecutor(_CALLERS) as pool:
        return Counter(pool.map(one, range(count)))


@pytest.fixture
def check_nothing_is_left(request: pytest.FixtureRequest) -> _Check:
    """Let a thousand calls time out, and compare the process's resources before and after."""

    def check(what: str, calls: Sequence[Callable[[], Any]]) -> None:
        _kinds_of(calls, _WARM_UP)
        before = Held.now()
        assert _kinds_of(calls, _TIMEOUTS) == {"DataPlaneTimeout": _TIMEOUTS}
        deadline = time.monotonic() + 30  # libzmq frees a closed socket in a thread of its own
        while True:
            grown = Held.now().since(before)
            too_much = {name: more for name, more in grown.items() if more > _MOST[name]}
            if not too_much or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        assert too_much == {}, f"{before} grew by {grown}"
        write_leaks(request.config.getoption("fault_records"), what, grown)

    return check


@pytest.fixture
def client(cluster: TQCluster, ray_connected: None) -> Iterator[TQDataPlaneClient]:
    made = TQDataPlaneClient({"timeout_s": 60.0}, bootstrap=False)
    load(made)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("stopped", "operations", "timeout_s"),
    [("controller", METADATA + STORAGE, 0.02), ("storage", ("get_samples", "put_samples"), 0.05)],
    ids=["controller", "storage"],
)
def test_a_thousand_calls_that_time_out(
    stopped: str,
    operations: tuple[str, ...],
    timeout_s: float,
    cluster: TQCluster,
    client: TQDataPlaneClient,
    check_nothing_is_left: _Check,
) -> None:
    pids = [cluster.controller.pid] if stopped == "controller" else [unit.pid for unit in cluster.storage_units]
    client._timeout_s = timeout_s
    with frozen(*pids):
        check_nothing_is_left(
            f"calls, {stopped} stopped",
            [lambda name=name: CALLS[name](client) for name in operations],  # type: ignore[misc]
        )
    client._timeout_s = 60.0
    load(client)
    assert {outcome.kind for outcome in outcomes_of(client, tuple(CALLS)).values()} == {"ok"}


def test_a_thousand_attaches_that_time_out(
    cluster: TQCluster, ray_connected: None, check_nothing_is_left: _Check
) -> None:
    with frozen(cluster.controller.pid):
        check_nothing_is_left(
            "attaches, controller stopped",
            [lambda: TQDataPlaneClient({"timeout_s": 0.02}, bootstrap=False)],
        )
    TQDataPlaneClient({"timeout_s": 60.0}, bootstrap=False).close()


def test_a_thousand_plain_calls_that_hang(monkeypatch: pytest.MonkeyPatch, check_nothing_is_left: _Check) -> None:
    monkeypatch.setattr(_tq_calls, "_THREADS", BoundedThreads(_CALLERS))
    calls = TransferQueueCalls(ModuleType("transfer_queue"), timeout_s=0.02)
    release = threading.Event()
    try:
        check_nothing_is_left(
            "blocking callables that hang", [lambda: calls._call_tq("attach", release.wait, DataPlaneReadError)]
        )
    finally:
        release.set()
