"""The exporter's log on standard error: text or JSON, one line per record, UTC, no repetition, no secrets."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Final, TextIO
from urllib.parse import parse_qsl, unquote, urlsplit

from dataplane.visible import visible, visible_json

__all__ = ["JsonFormatter", "RepeatFilter", "TextFormatter", "mask", "secrets_in", "set_level", "setup_logging"]

REPEAT_S: Final = 60.0
"""The same failure is logged at most once in this many seconds."""

_OURS: Final = ("exporter", "dataplane")
_HEADER_VARIABLES: Final = re.compile(r"OTEL_EXPORTER_OTLP_(METRICS_|TRACES_|LOGS_)?HEADERS")
_URL_VARIABLES: Final = re.compile(
    r"OTEL_EXPORTER_OTLP_(METRICS_|TRACES_|LOGS_)?ENDPOINT|TQ_EXPORTER_(OTLP|MLFLOW|REGISTER)|MLFLOW_TRACKING_URI|RL_INSIGHT_SERVER_URL"
)
_SECRET_VARIABLES: Final = ("RAY_AUTH_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_IN_URL: Final = re.compile(r"(?<=://)[^/\s@]+@")
_NUMBER: Final = re.compile(r"(?:[0-9a-f]*:){2,}[0-9a-f.]+|\d+", re.IGNORECASE)  # an IPv6 address is one, too
_MASK: Final = "***"


def setup_logging(
    format: str,
    level: str,
    *,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
    urls: Iterable[str] = (),
) -> None:
    """Send all log records of this process to *stream*, by default standard error. Replaces an earlier set-up.

    Args:
        format: ``text`` or ``json``.
        level: The lowest level of our own records that is written: ``debug``, ``info``, ``warning`` or ``error``.
            Libraries are logged from ``warning`` up.
        stream: Where to write.
        environ: The environment, which contains secrets that must not be written.
        urls: Addresses that may contain further secrets.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    secrets = secrets_in(environ, urls)
    handler.setFormatter(JsonFormatter(secrets) if format == "json" else TextFormatter(secrets))
    handler.addFilter(RepeatFilter())
    logging.getLogger().handlers = [handler]
    set_level(level)
    logging.captureWarnings(True)
    # Otherwise a closed standard error would turn every log line into a traceback.
    logging.raiseExceptions = False


def set_level(level: str) -> None:
    """Set the lowest level that is written, as :func:`setup_logging` does."""
    threshold = logging.getLevelName(level.upper())
    logging.getLogger().setLevel(max(threshold, logging.WARNING))
    for name in _OURS:
        logging.getLogger(name).setLevel(threshold)


def mask(text: str) -> str:
    """Return *text* with its secrets masked, as in the log. Mask before cutting a text: half a secret is not found."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Formatter):
            return handler.formatter.mask(text)
    return text


def secrets_in(environ: Mapping[str, str], urls: Iterable[str] = ()) -> frozenset[str]:
    """Return the texts that must never be written.

    They are the tokens of Ray and of trackers, the values of OTLP headers, and the passwords and query values in
    addresses.

    Args:
        environ: The environment.
        urls: Further addresses.
    """
    found = {environ.get(name, "") for name in _SECRET_VARIABLES}
    addresses = list(urls)
    for name, value in environ.items():
        if _HEADER_VARIABLES.fullmatch(name):
            for header in value.split(","):
                content = header.partition("=")[2].strip()
                # A header such as "Bearer abc" is written whole, decoded, or as its last word alone.
                found |= {content, unquote(content), unquote(content).rpartition(" ")[2]}
        elif _URL_VARIABLES.fullmatch(name):
            addresses.append(value)
    for address in addresses:
        found |= set(_secrets_of(address))
    return frozenset(secret for secret in found if len(secret) >= 4)


def _secrets_of(url: str) -> Iterator[str]:
    try:
        parts = urlsplit(url if "://" in url else f"//{url}")
    except ValueError:
        return
    if parts.password:
        yield parts.password
        yield unquote(parts.password)
    if parts.query:
        yield parts.query
        for _, value in parse_qsl(parts.query):
            yield value


class _Formatter(logging.Formatter):
    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._secrets = sorted(secrets, key=len, reverse=True)

    def mask(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        return _IN_URL.sub(f"{_MASK}@", text)

    def message(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        repeats = getattr(record, "repeats", 0)
        return f"{text} ({repeats} similar lines suppressed since the last one)" if repeats else text

    def traceback(self, record: logging.LogRecord) -> str:
        if record.exc_info and record.exc_info[0] is not None:
            return self.formatException(record.exc_info)
        return ""


class TextFormatter(_Formatter):
    """Writes ``2030-01-31T12:00:00.000Z WARNING exporter.model.source_health: the ping poll failed: …``."""

    def format(self, record: logging.LogRecord) -> str:
        """See :meth:`logging.Formatter.format`."""
        # Masked first: a secret that was made visible is not found.
        line = visible(self.mask(f"{_utc(record.created)} {record.levelname:<7} {record.name}: {self.message(record)}"))
        traceback = self.mask(self.traceback(record))
        # Indented, so that no line of an exception's text can pass for a record.
        return line + "".join(f"\n  {visible(inner)}" for inner in traceback.split("\n") if inner)


class JsonFormatter(_Formatter):
    """Writes one JSON object per line: ``time``, ``level``, ``logger``, ``message`` and, where they apply, two more.

    ``repeats`` counts the similar lines that were suppressed since the last one; ``exception`` is a traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """See :meth:`logging.Formatter.format`."""
        fields: dict[str, object] = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.mask(record.getMessage()),
        }
        if repeats := getattr(record, "repeats", 0):
            fields["repeats"] = repeats
        if traceback := self.traceback(record):
            fields["exception"] = self.mask(traceback)
        return visible_json(json.dumps(fields, ensure_ascii=False))


class RepeatFilter(logging.Filter):
    """Passes a new warning or error, then the same one at most once in :data:`REPEAT_S` seconds, with a count.

    Two lines are the same when they differ in their numbers and addresses only. A line of lower severity from the
    same logger means that something changed there, such as a recovery. Every warning after it counts as new, so that
    the last line of a logger always describes the current state.
    """

    _KEPT = 256

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[tuple[str, str], tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()  # handlers call their filters outside their own lock

    def filter(self, record: logging.LogRecord) -> bool:
        """See :meth:`logging.Filter.filter`."""
        with self._lock:
            return self._is_news(record)

    def _is_news(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            for key in [key for key in self._seen if key[0] == record.name]:
                del self._seen[key]
            return True
        key = (record.name, _NUMBER.sub("0", record.getMessage()))
        last, left_out = self._seen.get(key, (None, 0))
        if last is not None and 0 <= record.created - last < REPEAT_S:
            self._seen[key] = (last, left_out + 1)
            return False
        record.repeats = left_out
        self._seen[key] = (record.created, 0)
        self._seen.move_to_end(key)
        while len(self._seen) > self._KEPT:
            self._seen.popitem(last=False)
        return True


def _utc(seconds: float) -> str:
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
