"""Basic authentication: who is admitted, and the cost of a wrong password."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Callable

import bcrypt
import pytest

from exporter.web import auth
from exporter.web.auth import BasicAuth, TooManyChecksError


def hashed(password: bytes) -> bytes:
    return bcrypt.hashpw(password, bcrypt.gensalt(4))


USERS = {"alice": hashed(b"open sesame"), "bob": hashed("pässwörd:with:colons".encode())}


def basic(user: str, password: bytes | str) -> str:
    given = password.encode() if isinstance(password, str) else password
    return "Basic " + base64.b64encode(user.encode() + b":" + given).decode()


def check(gate: BasicAuth, users: dict[str, bytes], header: str | None, client: str = "10.0.0.1") -> bool:
    return asyncio.run(gate.check(users, header, client))


class Checks:
    """Counts the real bcrypt checks, and can block them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hashes: list[bytes] = []
        self.go = threading.Event()
        self.go.set()
        real: Callable[[bytes, bytes], bool] = bcrypt.checkpw

        def checkpw(password: bytes, hashed: bytes) -> bool:
            self.hashes.append(hashed)
            assert self.go.wait(30)
            return real(password, hashed)

        monkeypatch.setattr(bcrypt, "checkpw", checkpw)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Checks:
    return Checks(monkeypatch)


@pytest.mark.parametrize(
    ("header", "let_in"),
    [
        (basic("alice", "open sesame"), True),
        (basic("bob", "pässwörd:with:colons"), True),
        (basic("alice", "open sesame").replace("Basic", "bAsIc"), True),
        (basic("alice", "open sesam"), False),
        (basic("alice", "open sesame\0"), False),
        (basic("alice", ""), False),
        (basic("alice", b"\0"), False),
        (basic("alice", "pässwörd:with:colons"), False),
        (basic("Alice", "open sesame"), False),
        (basic("eve", "open sesame"), False),
        (basic("", ""), False),
        ("Basic " + base64.b64encode(b"\xff\xfe:x").decode(), False),
        ("Basic " + base64.b64encode(b"alice").decode(), False),
        ("Basic ????", False),
        ("Basic é", False),
        ("Basic", False),
        ("Bearer " + base64.b64encode(b"alice:open sesame").decode(), False),
        ("", False),
        (None, False),
    ],
)
def test_who_gets_in(header: str | None, let_in: bool) -> None:
    assert check(BasicAuth(), USERS, header) is let_in


def test_a_password_counts_up_to_the_72nd_byte_as_for_the_tools_that_make_hashes() -> None:
    users = {"alice": hashed(b"x" * 72)}
    assert check(BasicAuth(), users, basic("alice", b"x" * 72 + b"y"))
    assert not check(BasicAuth(), users, basic("alice", b"x" * 71))


def test_a_right_pair_is_checked_once_and_a_wrong_one_every_time(checks: Checks) -> None:
    gate = BasicAuth()
    for _ in range(5):
        assert check(gate, USERS, basic("alice", "open sesame"))
    assert len(checks.hashes) == 1
    for _ in range(5):
        assert not check(gate, USERS, basic("alice", "wrong"))
    assert len(checks.hashes) == 6


def test_a_changed_hash_ends_what_was_remembered(checks: Checks) -> None:
    gate = BasicAuth()
    assert check(gate, USERS, basic("alice", "open sesame"))
    assert not check(gate, {**USERS, "alice": hashed(b"new")}, basic("alice", "open sesame"))
    assert not check(gate, {"bob": USERS["bob"]}, basic("alice", "open sesame"))


def test_an_unknown_user_costs_one_check_of_a_real_hash(checks: Checks) -> None:
    gate = BasicAuth()
    for name in ("eve", "mallory", "", "x" * 1000):
        before = len(checks.hashes)
        assert not check(gate, USERS, basic(name, "open sesame"))
        assert not check(gate, USERS, basic(name, "open sesame"))
        first, second = checks.hashes[before:]
        assert first == second  # the same each time, so that timing reveals nothing
        assert first in USERS.values()


def test_no_password_costs_nothing(checks: Checks) -> None:
    assert not check(BasicAuth(), USERS, None)
    assert checks.hashes == []


def test_what_is_remembered_is_bounded_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "MAX_REMEMBERED", 3)
    gate = BasicAuth()
    users = {f"user{number}": hashed(b"secret") for number in range(10)}
    for name in users:
        assert check(gate, users, basic(name, "secret"))
    assert len(gate._remembered) == 3
    assert all(len(proof) == 32 and b"secret" not in proof for proof in gate._remembered)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until *condition* holds; the test's own timeout ends a wait for what never comes."""
    while not condition():
        await asyncio.sleep(0.001)


def test_wrong_passwords_run_one_at_a_time_and_few_wait(checks: Checks) -> None:
    async def attack() -> None:
        gate = BasicAuth()
        assert await gate.check(USERS, basic("alice", "open sesame"), "10.0.0.9")
        checks.hashes.clear()
        checks.go.clear()
        wrong = basic("alice", "wrong")
        tasks = [asyncio.create_task(gate.check(USERS, wrong, f"10.0.1.{number % 8}")) for number in range(80)]
        try:
            await until(lambda: sum(task.done() for task in tasks) == 80 - auth.MAX_WAITING and bool(checks.hashes))
            assert len(checks.hashes) == 1  # the others wait for it
            assert max(gate._waiting.values()) <= auth.MAX_WAITING_PER_CLIENT
            # Whoever is known waits for nobody.
            assert await gate.check(USERS, basic("alice", "open sesame"), "10.0.1.1")
        finally:
            checks.go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, TooManyChecksError) for result in results) == 80 - auth.MAX_WAITING
        assert results.count(False) == auth.MAX_WAITING
        assert not gate._waiting
        assert len(checks.hashes) == auth.MAX_WAITING

    asyncio.run(attack())


def test_one_address_leaves_room_for_the_others(checks: Checks) -> None:
    async def attack() -> None:
        gate = BasicAuth()
        checks.go.clear()
        wrong = basic("alice", "wrong")
        tasks = [asyncio.create_task(gate.check(USERS, wrong, "10.0.0.1")) for _ in range(auth.MAX_WAITING_PER_CLIENT)]
        try:
            await until(lambda: gate._waiting["10.0.0.1"] == auth.MAX_WAITING_PER_CLIENT)
            with pytest.raises(TooManyChecksError):
                await gate.check(USERS, wrong, "10.0.0.1")
        finally:
            checks.go.set()
        await asyncio.gather(*tasks)
        assert await gate.check(USERS, basic("bob", "pässwörd:with:colons"), "10.0.0.2")

    asyncio.run(attack())


def test_a_pair_that_came_many_times_at_once_is_checked_once(checks: Checks) -> None:
    async def come() -> None:
        gate = BasicAuth()
        right = basic("alice", "open sesame")
        same = [gate.check(USERS, right, "10.0.0.1") for _ in range(auth.MAX_WAITING_PER_CLIENT)]
        assert await asyncio.gather(*same) == [True] * auth.MAX_WAITING_PER_CLIENT
        assert len(checks.hashes) == 1

    asyncio.run(come())
