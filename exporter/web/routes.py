"""What is answered on which path. Knows nothing of connections."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

from exporter.snapshot import Snapshot, encode_snapshot

__all__ = ["Reply", "Routes", "Scrape", "plain"]

logger = logging.getLogger(__name__)

Scrape = Callable[[str | None], tuple[bytes, str]]
"""Gives the exposition and its content type for an ``Accept`` header."""

_INDEX: Final = b"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>TransferQueue exporter</title></head>
<body>
<h1>TransferQueue exporter</h1>
<ul>
<li><a href="metrics">Metrics</a></li>
<li><a href="api/v1/snapshot">Snapshot as JSON</a></li>
<li><a href="healthz">Health</a>: the exporter's own loop is alive</li>
<li><a href="readyz">Readiness</a>: the first round of polls is done</li>
</ul>
</body>
</html>
"""


class Reply(NamedTuple):
    """Status, content type and body of one answer."""

    status: HTTPStatus
    content_type: str
    body: bytes


def plain(status: HTTPStatus, text: str | None = None) -> Reply:
    """Return a reply of one line of text, by default the status's own phrase."""
    return Reply(status, "text/plain; charset=utf-8", f"{text or status.phrase}\n".encode())


class Routes:
    """The paths and their answers.

    Args:
        scrape: Gives the exposition.
        snapshot: Gives the snapshot now in force.
        alive: Whether the poll loop runs; health depends on nothing else.
    """

    def __init__(self, scrape: Scrape, snapshot: Callable[[], Snapshot], alive: Callable[[], bool]) -> None:
        self._scrape = scrape
        self._snapshot = snapshot
        self._alive = alive
        self._by_path: Mapping[str, Callable[[str | None], Reply]] = {
            "/": self._index,
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/api/v1/snapshot": self._snapshot_json,
        }

    def answer(self, path: str, accept: str | None) -> Reply:
        """Return the reply to a request for *path*; a defect in what it calls is logged and becomes a plain 500.

        Args:
            path: The URL's path, without its query.
            accept: The request's ``Accept`` header.
        """
        route = self._by_path.get(path)
        if route is None:
            return plain(HTTPStatus.NOT_FOUND)
        try:
            return route(accept)
        except Exception:
            logger.exception("answering %s failed", path)
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _index(self, _accept: str | None) -> Reply:
        return Reply(HTTPStatus.OK, "text/html; charset=utf-8", _INDEX)

    def _metrics(self, accept: str | None) -> Reply:
        body, content_type = self._scrape(accept)
        return Reply(HTTPStatus.OK, content_type, body)

    def _health(self, _accept: str | None) -> Reply:
        if self._alive():
            return plain(HTTPStatus.OK, "ok")
        return plain(HTTPStatus.SERVICE_UNAVAILABLE, "the poll loop has stopped")

    def _readiness(self, _accept: str | None) -> Reply:
        if self._snapshot().ready:
            return plain(HTTPStatus.OK, "ready")
        return plain(HTTPStatus.SERVICE_UNAVAILABLE, "the first round of polls is not done")

    def _snapshot_json(self, _accept: str | None) -> Reply:
        body = encode_snapshot(self._snapshot())
        return Reply(HTTPStatus.OK, "application/json", body)
