"""Figures of the queue for a trainer's own logger, read from a running exporter. Needs only the standard library.

queue = QueueMetrics("http://127.0.0.1:9464")
logger.log_metrics(queue.read(), step)
"""

from __future__ import annotations

import base64
import json
import logging
import math
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, Final
from urllib.parse import unquote, urlsplit

__all__ = ["EXPORTER_UP", "PATH", "PREFIX", "QueueMetrics", "Readings", "Window"]

PREFIX: Final = "tq/"
"""What every key begins with."""

PATH: Final = "/api/v1/tracking"
"""Where an exporter serves its readings."""

EXPORTER_UP: Final = "tq/exporter_up"
"""The key that is 1 if the exporter answered and 0 if not. Every result of :meth:`QueueMetrics.read` has it."""

_RATES: Final = ("arrived", "completed", "departed")
_MEANS: Final = {"departed_lag": "departed_lag_mean", "residence_s": "residence_mean_s"}
_RATE_WINDOW_S: Final = 30.0
_MAX_READINGS: Final = 64
_MAX_BODY: Final = 4 * 2**20

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Readings:
    """What an exporter knows at one moment, as flat figures. What is unknown is missing.

    Attributes:
        at: When it was known, seconds since the epoch.
        since: When the exporter started, seconds since the epoch: its counters were 0 then.
        step: The trainer's weight version, None while unknown.
        gauges: Value by key.
        counters: Count by key, for :class:`Window`.
    """

    at: float
    since: float
    step: int | None = None
    gauges: Mapping[str, float] = field(default_factory=dict)
    counters: Mapping[str, float] = field(default_factory=dict)


class Window:
    """Turns counters into rates, shares and means. Not thread-safe.

    They are over the time since the last reading, and over at least 30 s if there are older ones: the exporter lists
    the queue every ten seconds or less often, and between two listings nothing is counted.
    """

    def __init__(self) -> None:
        self._kept: deque[Readings] = deque(maxlen=_MAX_READINGS)

    def add(self, now: Readings) -> dict[str, float]:
        """Return the gauges of *now*, and what its counters say together with earlier readings."""
        scalars = dict(now.gauges)
        kept = self._kept
        if kept and (kept[-1].since != now.since or now.at < kept[-1].at):
            kept.clear()  # another exporter: its counters started again
        while len(kept) > 1 and now.at - kept[1].at >= _RATE_WINDOW_S:
            kept.popleft()
        if kept and now.at > kept[0].at:
            scalars.update(_changes(kept[0], now))
        if not kept or now.at > kept[-1].at:
            kept.append(now)
        return scalars


def _changes(before: Readings, now: Readings) -> dict[str, float]:
    """Return what happened between two readings. A counter that is new or started again gives none."""
    grown = {key: count - before.counters[key] for key, count in now.counters.items() if key in before.counters}
    fallen = {key.rpartition("/")[0] for key, more in grown.items() if more < 0}
    changes: dict[str, float] = {}
    for key, more in grown.items():
        above, _, name = key.rpartition("/")
        if above in fallen:
            continue
        if name in _RATES:
            changes[f"{key}_per_s"] = more / (now.at - before.at)
        elif name == "evicted":
            departed = grown.get(f"{above}/departed", 0.0)
            if departed > 0:
                changes[f"{key}_share"] = more / departed
        elif name.endswith(".sum") and (mean := _MEANS.get(name.removesuffix(".sum"))):
            count = grown.get(f"{key.removesuffix('.sum')}.count", 0.0)
            if count > 0:
                changes[f"{above}/{mean}"] = more / count
    return changes


class QueueMetrics:
    """Reads a running exporter, for the trainer's own logger.

    It logs one line when the exporter stops answering and one when it answers again. Not thread-safe: one object per
    logger.

    Args:
        url: The exporter's address, ``http://HOST:PORT``; user and password may be in it.
        timeout: Seconds that :meth:`read` may take.
        username: User, where the exporter asks for one.
        password: That user's password.
        ca_file: Certificate of the authority that has signed the exporter's, None for the system's authorities.

    Raises:
        ValueError: *url* is no such address.
        OSError: *ca_file* cannot be read.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 1.0,
        username: str | None = None,
        password: str | None = None,
        ca_file: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{_without_user(url)!r} is not the address of an exporter; give http://HOST:PORT")
        self._host, self._port = parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
        self._path = parts.path.rstrip("/") + PATH
        self._where = _without_user(url)
        self._timeout = timeout
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None
        self._headers = {"Accept": "application/json"}
        user = username if username is not None else unquote(parts.username or "")
        if user:
            secret = f"{user}:{password if password is not None else unquote(parts.password or '')}"
            self._headers["Authorization"] = "Basic " + base64.b64encode(secret.encode()).decode("ascii")
        self._window = Window()
        self._fetch: _Fetch | None = None
        self._answered: bool | None = None

    def read(self) -> dict[str, float]:
        """Return the figures by key: ``tq/train/ready``, ``tq/train/lag_max``, …; see docs/tracking.md.

        Never raises, and returns within the timeout whatever the network and the resolver do. What is unknown is
        missing; if the exporter does not answer, ``tq/exporter_up`` is 0 and the only key.
        """
        try:
            body = self._ask()
            scalars = self._window.add(_decode(body))
        except Exception as error:  # a logger must not end the training
            self._say(False, f"{type(error).__name__}: {error}")
            return {EXPORTER_UP: 0.0}
        self._say(True, "")
        return {EXPORTER_UP: 1.0, **scalars}

    def _ask(self) -> bytes:
        """Return the exporter's answer.

        The connection is made on another thread, since the system's resolver cannot be interrupted. There is at most
        one such thread: while an earlier one still waits, nothing is asked.
        """
        if self._fetch is not None and not self._fetch.done.is_set():
            raise TimeoutError("the last request still waits for its answer")
        self._fetch = _Fetch(self._get)
        if not self._fetch.done.wait(self._timeout):
            raise TimeoutError(f"no answer within {self._timeout:g} s")
        fetch, self._fetch = self._fetch, None
        if fetch.error is not None:
            raise fetch.error
        return fetch.body

    def _get(self) -> bytes:
        deadline = time.monotonic() + self._timeout
        if self._tls is None:
            connection = HTTPConnection(self._host, self._port, timeout=self._timeout)
        else:
            connection = HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._tls)
        try:
            connection.request("GET", self._path, headers=self._headers)
            with connection.getresponse() as response:
                if response.status != 200:
                    raise HTTPException(f"{response.status} {response.reason}")
                body = b""
                while chunk := response.read1(65536):
                    body += chunk
                    if len(body) > _MAX_BODY:
                        raise HTTPException(f"the answer is longer than {_MAX_BODY} bytes")
                    if time.monotonic() > deadline:
                        raise TimeoutError("the answer did not end in time")
                return body
        finally:
            connection.close()

    def _say(self, answered: bool, why: str) -> None:
        if answered == self._answered:
            return
        if not answered:
            logger.warning("no figures of the queue from %s, they are left out until it answers: %s", self._where, why)
        elif self._answered is not None:
            logger.warning("the exporter at %s answers again", self._where)
        self._answered = answered


class _Fetch:
    """One request, on a thread of its own that never keeps the process alive."""

    def __init__(self, get: Callable[[], bytes]) -> None:
        self.body = b""
        self.error: Exception | None = None
        self.done = threading.Event()
        self._get = get
        threading.Thread(target=self._run, name="tq-queue-metrics", daemon=True).start()

    def _run(self) -> None:
        try:
            self.body = self._get()
        except Exception as error:  # raised to the caller
            self.error = error
        finally:
            self.done.set()


def _decode(body: bytes) -> Readings:
    fields = json.loads(body)
    step = fields.get("step")
    return Readings(
        _number(fields["at"]),
        _number(fields["since"]),
        None if step is None else int(step),
        _numbers(fields["gauges"]),
        _numbers(fields["counters"]),
    )


def _numbers(given: Mapping[str, Any]) -> dict[str, float]:
    return {key: _number(value) for key, value in given.items() if key.startswith(PREFIX)}


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number


def _without_user(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
