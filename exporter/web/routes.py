"""What is answered on which path. Knows nothing of connections."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, NamedTuple

from exporter.catalogue.docs import render_markdown
from exporter.model.history import WINDOWS, History
from exporter.model.snapshot import Snapshot, encode_snapshot
from exporter.web.assets import ASSETS, PAGE_HEADERS
from exporter.web.service_discovery import encode_targets

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
<li><a href="sd">Targets for Prometheus</a></li>
<li><a href="healthz">Health</a>: the exporter's own loop is alive</li>
<li><a href="readyz">Readiness</a>: the first round of polls is done</li>
</ul>
</body>
</html>
"""
"""What ``/`` is when the live page is switched off."""

_HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"


class Reply(NamedTuple):
    """Status, content type, body and further headers of one answer."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def plain(status: HTTPStatus, text: str | None = None) -> Reply:
    """Return a reply of one line of text, by default the status's own phrase."""
    return Reply(status, "text/plain; charset=utf-8", f"{text or status.phrase}\n".encode())


class Request(NamedTuple):
    """What of a request's headers an answer depends on."""

    accept: str | None
    host: str | None


class Routes:
    """The paths and their answers.

    Args:
        scrape: Gives the exposition.
        snapshot: Gives the snapshot now in force.
        alive: Whether the poll loop runs; health depends on nothing else.
        history: The past that the live page draws; None for a page without one.
        address: Gives ``host:port`` as listened on, for clients that name no host.
        scheme: ``https`` when the server speaks TLS.
        page: Whether ``/`` is the live page; otherwise it is a list of links.
    """

    def __init__(
        self,
        scrape: Scrape,
        snapshot: Callable[[], Snapshot],
        alive: Callable[[], bool],
        *,
        history: History | None = None,
        address: Callable[[], str] = lambda: "localhost",
        scheme: str = "http",
        page: bool = True,
    ) -> None:
        self._scrape = scrape
        self._snapshot = snapshot
        self._alive = alive
        self._address = address
        self._scheme = scheme
        self._by_path: dict[str, Callable[[Request], Reply]] = {
            "/": _index,
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/sd": self._targets,
            "/api/v1/snapshot": self._snapshot_json,
        }
        if page:
            self._by_path["/"] = _asset("index.html")
            self._by_path["/docs/metrics"] = _metrics_docs
            self._by_path.update({f"/page/{name}": _asset(name) for name in ASSETS if name != "index.html"})
            if history is not None:
                for window in WINDOWS:
                    self._by_path[f"/api/v1/history/{window}"] = _history(history, window)

    def answer(self, path: str, accept: str | None, host: str | None = None) -> Reply:
        """Return the reply to a request for *path*; a defect in what it calls is logged and becomes a plain 500.

        Args:
            path: The URL's path, without its query.
            accept: The request's ``Accept`` header.
            host: The request's ``Host`` header.
        """
        route = self._by_path.get(path)
        if route is None:
            return plain(HTTPStatus.NOT_FOUND)
        try:
            return route(Request(accept, host))
        except Exception:
            logger.exception("answering %s failed", path)
            return plain(HTTPStatus.INTERNAL_SERVER_ERROR)

    def _metrics(self, request: Request) -> Reply:
        body, content_type = self._scrape(request.accept)
        return Reply(HTTPStatus.OK, content_type, body)

    def _health(self, _request: Request) -> Reply:
        if self._alive():
            return plain(HTTPStatus.OK, "ok")
        return plain(HTTPStatus.SERVICE_UNAVAILABLE, "the poll loop has stopped")

    def _readiness(self, _request: Request) -> Reply:
        if self._snapshot().ready:
            return plain(HTTPStatus.OK, "ready")
        return plain(HTTPStatus.SERVICE_UNAVAILABLE, "the first round of polls is not done")

    def _snapshot_json(self, _request: Request) -> Reply:
        return Reply(HTTPStatus.OK, _JSON, encode_snapshot(self._snapshot()))

    def _targets(self, request: Request) -> Reply:
        body = encode_targets(self._snapshot(), host=request.host, address=self._address(), scheme=self._scheme)
        return Reply(HTTPStatus.OK, _JSON, body)


def _index(_request: Request) -> Reply:
    return Reply(HTTPStatus.OK, _HTML, _INDEX)


def _asset(name: str) -> Callable[[Request], Reply]:
    asset = ASSETS[name]
    return lambda _request: Reply(HTTPStatus.OK, asset.content_type, asset.body, PAGE_HEADERS)


def _history(history: History, window: str) -> Callable[[Request], Reply]:
    return lambda _request: Reply(HTTPStatus.OK, _JSON, history.encode(window))


def _metrics_docs(_request: Request) -> Reply:
    return Reply(HTTPStatus.OK, "text/plain; charset=utf-8", render_markdown().encode())
