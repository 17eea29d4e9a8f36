"""A real Prometheus that is given the past: samples with their times, then what the shipped rules make of them.

Samples go in by remote write, since a Prometheus that scrapes would take as long as the situation lasts. The rules are
evaluated over them by the same Prometheus, one after the other, and their results are written back. Of alerts, which no
API evaluates for the past, ``for`` and ``keep_firing_for`` are applied here.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import struct
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import yaml

from exporter.demo.stack import free_port, prometheus_command
from exporter.shipped import rules
from tests.support.waiting import wait_until

__all__ = ["Past", "Samples", "parse"]

Labels = tuple[tuple[str, str], ...]
Samples = Mapping[Labels, float]
"""The samples of one moment by their labels, which are sorted and include ``__name__``."""

_STALE: Final = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""Prometheus's marker of the end of a series. It has to go over the wire bit by bit."""

_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600}


def parse(exposition: str, target: Mapping[str, str]) -> dict[Labels, float]:
    """Return the samples of an exposition as a scrape of *target* stores them."""
    found: dict[Labels, float] = {}
    for line in exposition.splitlines():
        if not line or line.startswith("#"):
            continue
        series, _, number = line.rpartition(" ")
        name, _, rest = series.partition("{")
        labels = {"__name__": name}
        for label, text in _LABEL.findall(rest):
            value = _ESCAPED.sub(lambda escaped: {"n": "\n"}.get(escaped[1], escaped[1]), text)
            labels[f"exported_{label}" if label in target else label] = value
        found[tuple(sorted({**labels, **target}.items()))] = float(number)
    return found


class Past:
    """The Prometheus. A context manager.

    Args:
        step_s: Time between two moments.

    Attributes:
        url: Where it answers.
    """

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._series: dict[Labels, list[tuple[float, float]]] = {}
        self._seen: dict[str, set[Labels]] = {}
        self._times: list[float] = []
        self._folder = Path(tempfile.mkdtemp(prefix="tqpast"))
        config = self._folder / "prometheus.yaml"
        config.write_text(yaml.safe_dump({"storage": {"tsdb": {"out_of_order_time_window": "1d"}}}))
        port = free_port()
        command = [*prometheus_command(config, self._folder / "data", port), "--web.enable-remote-write-receiver"]
        self.url = f"http://127.0.0.1:{port}"
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_until(self._is_ready, "Prometheus is ready")
        except BaseException:
            self.close()
            raise

    def note(self, at: float, samples: Samples, *, of: str) -> None:
        """Note the samples of one moment. Series that *of* has no more are ended."""
        if not self._times or at > self._times[-1]:
            self._times.append(at)
        for labels, value in samples.items():
            self._series.setdefault(labels, []).append((at, value))
        for labels in self._seen.get(of, set()) - samples.keys():
            self._series.setdefault(labels, []).append((at, _STALE))
        self._seen[of] = set(samples)

    def write(self) -> None:
        """Send what was noted."""
        if self._series:
            body = b"".join(_field(1, _encoded(labels, samples)) for labels, samples in self._series.items())
            request = urllib.request.Request(
                f"{self.url}/api/v1/write",
                data=_snappy(body),
                headers={"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"},
            )
            urllib.request.urlopen(request, timeout=60).close()
        self._series = {}

    def evaluate(self) -> None:
        """Evaluate the recording rules and the alerts at each moment."""
        for name, expression in rules.recorded().items():
            if f"{name}[" in expression:
                for at in self._times:  # it reads its own last value
                    self._record(name, self._query("query", query=expression, time=at), (at,))
            else:
                self._record(name, self._range(expression), self._times)
        for name, alert in rules.alerts().items():
            for moment, firing in zip(self._times, self._states(name, alert), strict=True):
                self.note(moment, firing, of=name)
        self.write()

    def close(self) -> None:
        """Stop it."""
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Past:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def start(self) -> float:
        """The first moment."""
        return self._times[0]

    @property
    def end(self) -> float:
        """The last moment."""
        return self._times[-1]

    def _record(self, name: str, result: Sequence[Mapping[str, Any]], times: Sequence[float]) -> None:
        by_time = _by_time(result)
        for at in times:
            found = {_named(labels, name): value for labels, value in by_time.get(at, {}).items()}
            self.note(at, found, of=name)
        self.write()

    def _states(self, name: str, alert: Mapping[str, Any]) -> Iterator[dict[Labels, float]]:
        """Yield the series ``ALERTS`` of an alert at each moment."""
        held = _seconds(alert.get("for", "0s"))
        kept = _seconds(alert.get("keep_firing_for", "0s"))
        since: dict[Labels, float] = {}
        last: dict[Labels, float] = {}
        fired: set[Labels] = set()
        by_time = _by_time(self._range(alert["expr"]))
        for at in self._times:
            active = by_time.get(at, {}).keys()
            for labels in active:
                since.setdefault(labels, at)
                last[labels] = at
                if at - since[labels] >= held:
                    fired.add(labels)
            for labels in [one for one in since if one not in active]:
                if labels not in fired or at - last[labels] > kept:
                    del since[labels]
                    fired.discard(labels)
            yield {
                _named(
                    tuple(sorted({**dict(labels), **alert["labels"]}.items())),
                    "ALERTS",
                    alertname=name,
                    alertstate="firing" if labels in fired else "pending",
                ): 1.0
                for labels in since
            }

    def _range(self, expression: str) -> list[dict[str, Any]]:
        return self._query("query_range", query=expression, start=self.start, end=self.end, step=self._step_s)

    def _query(self, path: str, **asked: object) -> list[dict[str, Any]]:
        data = urllib.parse.urlencode(asked).encode()
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}", data=data, timeout=60) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with suppress(OSError):
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=2).close()
            return True
        return False


def _by_time(result: Sequence[Mapping[str, Any]]) -> dict[float, dict[Labels, float]]:
    """Return the samples of a query's result by their time, without NaN."""
    found: dict[float, dict[Labels, float]] = {}
    for series in result:
        labels = tuple(sorted((name, text) for name, text in series["metric"].items() if name != "__name__"))
        for at, number in series.get("values") or [series["value"]]:
            if not math.isnan(float(number)):
                found.setdefault(float(at), {})[labels] = float(number)
    return found


def _named(labels: Labels, name: str, **further: str) -> Labels:
    return tuple(sorted({**dict(labels), **further, "__name__": name}.items()))


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * _UNITS[duration[-1]]


# Remote write 1.0: a protobuf message, compressed with snappy. Snappy allows blocks that are not compressed.


def _encoded(labels: Labels, samples: Sequence[tuple[float, float]]) -> bytes:
    message = [_field(1, _field(1, name.encode()) + _field(2, text.encode())) for name, text in labels]
    message += [
        _field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(round(at * 1000))) for at, value in samples
    ]
    return b"".join(message)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _snappy(content: bytes) -> bytes:
    blocks = (content[start : start + 65536] for start in range(0, len(content), 65536))
    literals = (b"\xf4" + struct.pack("<H", len(block) - 1) + block for block in blocks)
    return _varint(len(content)) + b"".join(literals)
