"""HTTP basic authentication against bcrypt hashes, with bounded CPU cost.

A bcrypt check is slow on purpose. So valid logins are cached, one check runs at a time, and only a few may wait. Any
number of wrong passwords costs at most one core, and never delays a client whose login is cached.

The check runs on a thread of its own, everything else on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final

import bcrypt

from exporter.web.threads import in_daemon_thread

__all__ = ["BasicAuth", "TooManyChecksError"]

MAX_WAITING: Final = 16
"""Password checks that run or wait at the same time."""
MAX_WAITING_PER_CLIENT: Final = 4
"""How many of them one address may use, so that no client can use all of them."""
MAX_REMEMBERED: Final = 256
"""The largest number of cached logins."""

_BCRYPT_BYTES: Final = 72  # bcrypt ignores what follows; the tools that make hashes cut there too


class TooManyChecksError(Exception):
    """Too many password checks are running or waiting; this one was not made."""


class BasicAuth:
    """Checks ``Authorization`` headers. One object serves all connections, also after the users change."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._waiting: Counter[str] = Counter()
        self._one_at_a_time = asyncio.Lock()

    async def check(self, users: Mapping[str, bytes], authorization: str | None, client: str) -> bool:
        """Return whether *authorization* is a valid login of one of *users*.

        An unknown user takes as long as a wrong password.

        Args:
            users: The bcrypt hash of each user's password.
            authorization: The header's value, None when there is none.
            client: The address that the request came from.

        Raises:
            TooManyChecksError: Too many other checks are running or waiting; this login was not checked.
        """
        given = _decode(authorization)
        if given is None:
            return False
        user, password = given
        hashed = users.get(user)
        proof = self._proof(user, hashed or b"", password)
        if proof in self._remembered:
            return True
        with self._turn(client):
            async with self._one_at_a_time:
                if proof in self._remembered:  # another request with the same login was checked meanwhile
                    return True
                matches = await in_daemon_thread(partial(_matches, password, hashed or self._stand_in(user, users)))
            if not matches or hashed is None:
                return False
            self._remember(proof)
            return True

    def _proof(self, user: str, hashed: bytes, password: bytes) -> bytes:
        # Keyed and hashed: neither the time of a look-up nor a memory dump reveals a password. It includes the user's
        # hash, so a cached login becomes invalid when that hash changes.
        parts = (user.encode("utf-8", "surrogateescape"), hashed, password)
        return hmac.digest(self._key, b"".join(hashlib.sha256(part).digest() for part in parts), "sha256")

    def _remember(self, proof: bytes) -> None:
        self._remembered[proof] = None
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)

    def _stand_in(self, user: str, users: Mapping[str, bytes]) -> bytes:
        """Return the hash to check an unknown user against: one per user name, so its cost reveals nothing."""
        hashes = [users[name] for name in sorted(users)]
        chosen = hmac.digest(self._key, user.encode("utf-8", "surrogateescape"), "sha256")
        return hashes[int.from_bytes(chosen, "big") % len(hashes)]

    @contextmanager
    def _turn(self, client: str) -> Iterator[None]:
        if self._waiting.total() >= MAX_WAITING or self._waiting[client] >= MAX_WAITING_PER_CLIENT:
            raise TooManyChecksError
        self._waiting[client] += 1
        try:
            yield
        finally:
            self._waiting[client] -= 1
            if not self._waiting[client]:
                del self._waiting[client]


def _matches(password: bytes, hashed: bytes) -> bool:
    usable = b"\0" not in password  # bcrypt rejects NUL bytes; the check still runs, to take the same time
    return bcrypt.checkpw(password[:_BCRYPT_BYTES] if usable else b"", hashed) and usable


def _decode(authorization: str | None) -> tuple[str, bytes] | None:
    scheme, _, encoded = (authorization or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        pair = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    user, colon, password = pair.partition(b":")
    return (user.decode("utf-8", "surrogateescape"), password) if colon else None
