"""Who has to go when there are too many connections, and who takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps

import pytest

from exporter.web import limits
from exporter.web.limits import Slot, Slots
from tests.support.clock import StoppedClock


def on_a_loop(test: Callable[..., Coroutine[None, None, None]]) -> Callable[..., None]:
    """Run a test on an event loop of its own."""

    @wraps(test)
    def run(*arguments: object, **named: object) -> None:
        asyncio.run(test(*arguments, **named))

    return run


class House:
    """Four places and a stopped clock."""

    def __init__(self) -> None:
        self.clock = StoppedClock()
        self.slots = Slots(4, self.clock.monotonic)
        self.ended: list[Slot] = []

    async def connect(self, host: str = "10.0.0.1") -> Slot:
        slot = await self.slots.take(host, lambda: None)
        slot.end = lambda: self.ended.append(slot)
        return slot

    async def full_of_answers(self) -> list[Slot]:
        held = [await self.connect() for _ in range(4)]
        for slot in held:
            self.slots.enter(slot, "answering")
        return held


@on_a_loop
async def test_the_oldest_that_is_still_asking_goes() -> None:
    house = House()
    old, *_ = [await house.connect() for _ in range(5)]
    assert house.ended == [old]
    assert old.freed


@on_a_loop
async def test_an_address_that_floods_crowds_out_itself() -> None:
    house = House()
    scraper = await house.connect("10.0.0.1")
    flood = [await house.connect("10.0.0.2") for _ in range(50)]
    assert not scraper.freed
    assert house.ended == flood[:47]


@on_a_loop
async def test_what_is_being_answered_stays_and_the_next_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_RETRY_S", 0.0)
    house = House()
    held = await house.full_of_answers()
    waiting = asyncio.create_task(house.connect())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()
    assert house.ended == []
    house.slots.free(held[2])
    assert not (await waiting).freed


@on_a_loop
async def test_a_client_that_does_not_take_its_answer_goes_after_a_while() -> None:
    house = House()
    held = await house.full_of_answers()
    house.slots.enter(held[1], "sending")
    house.clock.advance(0.5)
    house.slots.enter(held[3], "sending")
    house.clock.advance(0.6)  # the one has waited for more than a second, the other for less
    await house.connect()
    assert house.ended == [held[1]]


@on_a_loop
async def test_of_several_that_do_not_take_their_answer_the_one_that_waits_longest_goes() -> None:
    house = House()
    held = await house.full_of_answers()
    for slot in (held[3], held[0]):
        house.slots.enter(slot, "sending")
        house.clock.advance(1.5)
    await house.connect()
    assert house.ended == [held[3]]


@on_a_loop
async def test_shedding_ends_one_and_never_one_that_is_being_answered() -> None:
    house = House()
    assert not house.slots.shed()
    slot = await house.connect()
    house.slots.enter(slot, "answering")
    assert not house.slots.shed()
    house.slots.enter(slot, "sending")
    assert not house.slots.shed()  # its client may still be taking it
    house.slots.enter(slot, "asking")
    assert house.slots.shed()
    assert house.ended == [slot]
    assert not house.slots.shed()


@pytest.mark.parametrize(("stage", "ends"), [("asking", True), ("sending", True), ("answering", False)])
def test_who_asks_or_takes_the_answer_too_slowly_is_ended(
    stage: limits.Stage, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "_DEADLINE_S", {"asking": 0.0, "sending": 0.0})

    async def enter() -> None:
        house = House()
        slot = await house.connect()
        house.slots.enter(slot, stage)
        await asyncio.sleep(0.01)
        assert house.ended == ([slot] if ends else [])

    asyncio.run(enter())


@on_a_loop
async def test_a_connection_that_ended_has_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_DEADLINE_S", {"asking": 0.0, "sending": 0.0})
    house = House()
    for slot in [await house.connect() for _ in range(2)]:
        house.slots.free(slot)
        house.slots.enter(slot, "sending")
    await asyncio.sleep(0.01)
    assert house.ended == []


@on_a_loop
async def test_the_end_is_every_connections() -> None:
    house = House()
    held = [await house.connect() for _ in range(3)]
    house.slots.enter(held[1], "answering")
    house.slots.end_all()
    assert house.ended == held
    assert all(slot.freed for slot in held)
