"""Deadlines on plain callables and coroutines, without a TransferQueue."""

from __future__ import annotations

import asyncio
import contextvars
import math
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from dataplane.adapters.arguments import check_wait
from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.adapters.transfer_queue import calls as _tq_calls
from dataplane.adapters.transfer_queue.calls import BoundedThreads, TransferQueueCalls
from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneNotReady,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
)


@pytest.fixture
def calls() -> Iterator[TransferQueueCalls]:
    """A caller whose loop runs in a thread, as TransferQueue's does, without any peer."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    made = TransferQueueCalls(ModuleType("transfer_queue"), timeout_s=5.0)
    made._loop = loop
    yield made
    if loop.is_running():
        loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=10)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> BoundedThreads:
    own = BoundedThreads(2)
    monkeypatch.setattr(_tq_calls, "_THREADS", own)
    return own


async def _hang() -> None:
    await asyncio.Event().wait()


def test_a_coroutine_a_callable_and_a_callable_that_gives_a_coroutine(calls: TransferQueueCalls) -> None:
    async def answer() -> int:
        return 42

    for fn in (answer, lambda: 42, lambda: answer()):  # noqa: PLW0108
        assert calls._call_tq("ping", fn, DataPlaneReadError) == 42


def test_a_hung_coroutine_is_cancelled_at_its_deadline(calls: TransferQueueCalls) -> None:
    cancelled = threading.Event()

    async def hang() -> None:
        try:
            await _hang()
        finally:
            cancelled.set()

    with pytest.raises(DataPlaneTimeout, match=r"no answer within 0\.02 s") as caught:
        calls._call_tq("ping", hang, DataPlaneReadError, timeout_s=0.02)
    assert cancelled.wait(timeout=5)
    assert isinstance(caught.value.__cause__, Exception)


def test_a_mutation_that_timed_out_may_have_happened(calls: TransferQueueCalls) -> None:
    for operation, unknown in (("put_samples", True), ("claim_meta", True), ("list_metadata", False)):
        with pytest.raises(DataPlaneTimeout) as caught:
            calls._call_tq(operation, _hang, DataPlaneReadError, timeout_s=0.01)
        assert ("outcome unknown" in str(caught.value)) is unknown


def test_hung_callables_cost_no_more_than_the_few_threads(calls: TransferQueueCalls, threads: BoundedThreads) -> None:
    release = threading.Event()
    before = threading.active_count()
    for _ in range(6):
        with pytest.raises(DataPlaneTimeout):
            calls._call_tq("attach", release.wait, DataPlaneReadError, timeout_s=0.02)
    hung = [thread for thread in threading.enumerate() if thread.name == "dataplane-blocking-call"]
    assert threading.active_count() - before == 2
    assert all(thread.daemon for thread in hung)
    release.set()
    for thread in hung:
        thread.join(timeout=10)
    assert calls._call_tq("ping", lambda: 1, DataPlaneReadError) == 1


def test_the_callers_context_reaches_both_kinds_of_call(calls: TransferQueueCalls) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("mine")

    async def read() -> str:
        return variable.get()

    assert calls._call_tq("ping", read, DataPlaneReadError) == "mine"
    assert calls._call_tq("ping", variable.get, DataPlaneReadError) == "mine"


def test_our_own_errors_pass_and_learn_where_they_happened(calls: TransferQueueCalls) -> None:
    error = DataPlaneNotReady("not yet")

    async def fail() -> None:
        raise error

    with pytest.raises(DataPlaneNotReady) as caught:
        calls._call_tq("get_samples", fail, DataPlaneReadError, partition_id="p")
    assert caught.value is error
    assert (error.operation, error.partition_id) == ("get_samples", "p")


def test_a_loop_that_ends_under_a_call_is_unavailable(
    calls: TransferQueueCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tq_calls, "_CANCEL_GRACE_S", 0.05)

    async def stop() -> None:
        asyncio.get_running_loop().stop()
        await _hang()

    with pytest.raises(DataPlaneUnavailable):
        calls._call_tq("ping", stop, DataPlaneReadError, timeout_s=0.02)


def test_closing_ends_the_calls_in_flight(calls: TransferQueueCalls) -> None:
    caught: list[BaseException] = []
    started = threading.Event()

    async def hang() -> None:
        started.set()
        await _hang()

    def call() -> None:
        try:
            calls._call_tq("put_samples", hang, DataPlaneReadError, timeout_s=60)
        except DataPlaneUnavailable as error:
            caught.append(error)

    caller = threading.Thread(target=call)
    caller.start()
    assert started.wait(timeout=10)
    calls._close_calls()
    caller.join(timeout=10)
    assert "outcome unknown" in str(caught[0])
    with pytest.raises(DataPlaneUnavailable, match="closed"):
        calls._call_tq("ping", hang, DataPlaneReadError)


def test_a_call_from_the_loop_itself_is_refused(calls: TransferQueueCalls) -> None:
    async def answer() -> int:
        return 42

    async def nested() -> Any:
        return calls._call_tq("ping", answer, DataPlaneReadError)

    with pytest.raises(DataPlaneBadRequest, match="event loop"):
        calls._call_tq("ping", nested, DataPlaneReadError)


def test_an_interrupt_is_not_translated(calls: TransferQueueCalls) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calls._call_tq("ping", interrupt, DataPlaneReadError)


def test_a_close_that_hangs_goes_on_in_the_background(calls: TransferQueueCalls) -> None:
    release, ended = threading.Event(), threading.Event()

    def give_back() -> None:
        release.wait(timeout=30)
        ended.set()

    with pytest.raises(DataPlaneTimeout, match="continues in the background") as caught:
        calls._close(give_back, 0.02)
    assert caught.value.operation == "close"
    calls._close(give_back, 0.02)
    release.set()
    assert ended.wait(timeout=10)


def test_a_close_that_fails_raises_nothing_raw(calls: TransferQueueCalls) -> None:
    def fail() -> None:
        raise RuntimeError("Event loop is closed")

    with pytest.raises(DataPlaneUnavailable, match="Event loop is closed") as caught:
        calls._close(fail, 5.0)
    assert caught.value.operation == "close"


def test_attaches_that_hang_keep_nobody_from_closing(calls: TransferQueueCalls, threads: BoundedThreads) -> None:
    release = threading.Event()
    for _ in range(2):
        threads.start(release.wait, 1.0)
    closed: list[bool] = []
    calls._close(lambda: closed.append(True), 5.0)
    assert closed == [True]
    release.set()


def test_without_a_thread_to_be_had(
    calls: TransferQueueCalls, threads: BoundedThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        for _ in range(3):  # more than the limit: a failed start must not use up a place
            with pytest.raises(DataPlaneUnavailable, match="can't start new thread"):
                calls._call_tq("attach", lambda: 1, DataPlaneUnavailable, timeout_s=0.1)
        closed: list[bool] = []
        calls._close(lambda: closed.append(True), 5.0)
    assert closed == [True]


def test_a_close_from_the_loop_itself_is_refused(calls: TransferQueueCalls) -> None:
    async def nested() -> None:
        calls._close(lambda: None, 5.0)

    with pytest.raises(DataPlaneBadRequest, match="event loop"):
        calls._call_tq("ping", nested, DataPlaneReadError)
    assert calls._call_tq("ping", lambda: 1, DataPlaneReadError) == 1


@pytest.mark.parametrize("timeout_s", [0, -1.0, math.nan, math.inf, True, "5"], ids=repr)
def test_a_deadline_is_a_positive_finite_number(timeout_s: Any) -> None:
    with pytest.raises(ValueError, match="timeout_s must be a positive number of seconds"):
        TransferQueueCalls(ModuleType("transfer_queue"), timeout_s=timeout_s)


@pytest.mark.parametrize("wait_s", [math.nan, -1, True, "5", None], ids=repr)
def test_a_wait_is_a_number_that_a_clock_reaches(wait_s: Any) -> None:
    with pytest.raises(DataPlaneBadRequest, match="timeout_s must be a number of seconds") as caught:
        check_wait("ping", wait_s)
    assert caught.value.operation == "ping"
    client = NoOpDataPlaneClient()
    with pytest.raises(DataPlaneBadRequest, match="timeout_s must be a number of seconds"):
        client.claim_meta("p", "train", ["tokens"], 1, timeout_s=wait_s)


def test_a_wait_without_end_is_no_overflow(calls: TransferQueueCalls) -> None:
    async def answer() -> int:
        return 42

    for fn in (answer, lambda: 42):
        assert calls._call_tq("ping", fn, DataPlaneReadError, timeout_s=math.inf) == 42
