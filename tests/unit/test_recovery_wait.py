"""Waiting for a data plane: backoff, new clients, the deadline, and what is not waited for."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneError,
    DataPlaneNotReady,
    DataPlaneTimeout,
    DataPlaneUnavailable,
    DataPlaneWriteError,
)
from dataplane.recovery import wait_until_available

Outcome = BaseException | None


class Client(NoOpDataPlaneClient):
    def __init__(self, ping_error: Outcome = None) -> None:
        super().__init__()
        self.ping_error = ping_error
        self.pings: list[float | None] = []
        self.closed = 0

    def ping(self, timeout_s: float | None = None) -> float:
        self.pings.append(timeout_s)
        if self.ping_error is not None:
            raise self.ping_error
        return 0.0

    def close(self) -> None:
        self.closed += 1
        super().close()


class World:
    """A clock that sleeping advances, and a factory whose outcomes are given; the last one repeats."""

    def __init__(self, *outcomes: Client | BaseException | Callable[[], Client]) -> None:
        self.now = 100.0
        self.pauses: list[float] = []
        self.waits: list[tuple[DataPlaneError, float]] = []
        self.made: list[Client] = []
        self.outcomes = list(outcomes)
        self.tries = 0

    def make(self) -> Client:
        outcome = self.outcomes[min(self.tries, len(self.outcomes) - 1)]
        self.tries += 1
        if isinstance(outcome, BaseException):
            raise outcome
        client = outcome if isinstance(outcome, Client) else outcome()
        self.made.append(client)
        return client

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def wait(self, timeout_s: float = 60.0, check: Callable[[Client], object] | None = None) -> Client:
        return wait_until_available(
            self.make,
            timeout_s,
            lambda error, waited_s: self.waits.append((error, waited_s)),
            check=check,
            sleep=self.sleep,
            clock=lambda: self.now,
        )


def test_a_data_plane_that_answers_is_returned_at_once() -> None:
    client = Client()
    world = World(client)
    assert world.wait() is client
    assert (world.pauses, world.waits, client.closed, client.pings) == ([], [], 0, [5.0])


@pytest.mark.parametrize("error", [DataPlaneUnavailable("a"), DataPlaneTimeout("b"), DataPlaneNotReady("c")])
def test_what_passes_is_waited_for(error: DataPlaneError) -> None:
    client = Client()
    world = World(error, error, client)
    assert world.wait() is client
    assert [seen for seen, _ in world.waits] == [error, error]
    waited = [seconds for _, seconds in world.waits]
    assert waited == pytest.approx([0.0, world.pauses[0]])


@pytest.mark.parametrize("error", [DataPlaneUnavailable("gone"), DataPlaneTimeout("frozen"), RuntimeError("a bug")])
def test_a_client_that_does_not_answer_is_closed_and_another_one_made(error: Exception) -> None:
    first, second = Client(error), Client()
    world = World(first, second)
    if isinstance(error, DataPlaneError):
        assert world.wait() is second
    else:
        with pytest.raises(RuntimeError, match="a bug"):
            world.wait()
    assert (first.closed, second.closed) == (1, 0)


def test_an_interrupt_closes_the_client_as_well() -> None:
    client = Client(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        World(client).wait()
    assert client.closed == 1


def test_a_close_that_fails_does_not_hide_why() -> None:
    class Sticky(Client):
        def close(self) -> None:
            super().close()
            raise DataPlaneTimeout("close hangs")

    sticky = Sticky(DataPlaneUnavailable("gone"))
    world = World(sticky, Client())
    world.wait()
    assert str(world.waits[0][0]) == "gone"
    assert sticky.closed == 1


def test_the_pauses_grow_to_a_bound_and_differ() -> None:
    world = World(*[DataPlaneUnavailable("none")] * 30, Client())
    world.wait(math.inf)
    longest = [min(0.1 * 2**index, 5.0) for index in range(30)]
    assert all(most / 2 <= pause <= most for pause, most in zip(world.pauses, longest, strict=True))
    assert len({pause / most for pause, most in zip(world.pauses, longest, strict=True)}) > 20, "no jitter"


@pytest.mark.parametrize(
    ("last", "raised"),
    [
        (DataPlaneUnavailable("gone", operation="attach"), DataPlaneUnavailable),
        (DataPlaneTimeout("mute", operation="ping", partition_id="p"), DataPlaneTimeout),
        (DataPlaneNotReady("starting"), DataPlaneUnavailable),
        (DataPlaneWriteError("full"), DataPlaneUnavailable),
    ],
)
def test_at_the_deadline_it_gives_up_with_the_last_error_as_the_cause(
    last: DataPlaneError, raised: type[DataPlaneError]
) -> None:
    made: list[Client] = []

    def frozen() -> Client:
        made.append(Client(last))
        return made[-1]

    world = World(DataPlaneTimeout("first"), DataPlaneUnavailable("then"), frozen)
    with pytest.raises(raised, match="within 20 s.*" + str(last)) as caught:
        world.wait(20.0)
    assert type(caught.value) is raised
    assert caught.value.__cause__ is last
    assert (caught.value.operation, caught.value.partition_id) == (last.operation, last.partition_id)
    assert world.now == pytest.approx(120.0), "the last try begins at the deadline"
    assert [client.closed for client in made] == [1] * len(made)
    assert len(world.waits) == len(world.pauses) == world.tries - 1
    assert made[-1].pings == [1.0], "the last ping is short"


def test_a_try_that_ends_after_the_deadline_is_the_last() -> None:
    world = World()

    def slow() -> Client:
        world.now += 30.0
        return Client(DataPlaneTimeout("mute"))

    world.outcomes = [slow]
    with pytest.raises(DataPlaneTimeout):
        world.wait(20.0)
    assert (world.tries, world.pauses) == (1, [])


@pytest.mark.parametrize("error", [DataPlaneBadRequest("no such key"), ValueError("impl must be one of")])
@pytest.mark.parametrize("where", ["factory", "ping", "check"])
def test_a_mistake_is_not_waited_for(error: Exception, where: str) -> None:
    client = Client(error if where == "ping" else None)

    def check(_: Client) -> None:
        raise error

    world = World(error if where == "factory" else client)
    with pytest.raises(type(error)) as caught:
        world.wait(check=check if where == "check" else None)
    assert caught.value is error
    assert (world.tries, world.pauses) == (1, [])
    assert client.closed == (0 if where == "factory" else 1)


def test_what_the_check_refuses_is_closed_and_tried_again() -> None:
    first, second = Client(), Client()
    world = World(first, second)

    def check(client: Client) -> None:
        assert client.pings, "it comes after the ping"
        if client is first:
            raise DataPlaneUnavailable("storage unit 1 is gone")

    assert world.wait(check=check) is second
    assert (first.closed, second.closed) == (1, 0)


def test_the_caller_can_end_the_wait() -> None:
    class Stopped(Exception): ...

    def stop(error: DataPlaneError, waited_s: float) -> None:
        raise Stopped

    client = Client(DataPlaneUnavailable("gone"))
    with pytest.raises(Stopped):
        wait_until_available(lambda: client, 60.0, stop, sleep=lambda _: pytest.fail("it slept"))
    assert client.closed == 1


@pytest.mark.parametrize("timeout_s", [0, -1.0, math.nan])
def test_a_deadline_is_positive(timeout_s: float) -> None:
    world = World(Client())
    with pytest.raises(ValueError, match="timeout_s"):
        world.wait(timeout_s)
    assert world.tries == 0
