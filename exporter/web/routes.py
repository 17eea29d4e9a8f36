"""The paths and their answers. Independent of connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from dataplane.tracking import PATH as TRACKING_PATH
from dataplane.visible import visible
from exporter.catalogue.page import render_page
from exporter.groups import BadQuery
from exporter.model.history import WINDOWS, History
from exporter.model.readings import encode_readings
from exporter.model.snapshot import Snapshot, encode_conditions, encode_snapshot
from exporter.web.assets import ASSETS, PAGE_HEADERS
from exporter.web.recorded import Recorded, Replay, from_disk, history_of, replay_answers
from exporter.web.replies import compressed, plain
from exporter.web.service_discovery import encode_targets
from exporter.web.threads import in_daemon_thread

__all__ = ["AskGroups", "Scrape", "make_replay_router", "make_router"]

MAX_ANSWERS: Final = 4
"""Answers that are made at the same time. More would not be faster, and would slow down the polls."""

Scrape = Callable[[str | None, Sequence[str]], tuple[bytes, str]]
"""Returns the exposition and its content type, given an ``Accept`` header and the wanted sample names, if limited."""

AskGroups = Callable[[list[tuple[str, str]]], bytes]
"""Returns groups as JSON, given the parameters of the URL; raises BadQuery."""

_INDEX: Final = b"""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>TransferQueue exporter</title></head>
<body>
<h1>TransferQueue exporter</h1>
<ul>
<li><a href="metrics">Metrics</a></li>
<li><a href="api/v1/conditions">Conditions as JSON</a></li>
<li><a href="api/v1/snapshot">Snapshot as JSON</a></li>
%(groups)s<li><a href="api/v1/tracking">Figures for a trainer's logger</a></li>
<li><a href="sd">Targets for Prometheus</a></li>
<li><a href="healthz">Health</a>: the exporter's own loop is alive</li>
<li><a href="readyz">Readiness</a>: the first round of polls is done</li>
</ul>
</body>
</html>
"""
"""The page at ``/`` when the live page is switched off."""
_GROUPS_LINK: Final = b'<li><a href="api/v1/groups">Groups as JSON</a></li>\n'

_HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"
_STOPPED: Final = "the poll loop has stopped"
_NO_GROUPS: Final = "this exporter does not show groups: web.disable_groups is set"
_NOT_READY: Final = "the first round of polls is not done"


def make_router(
    scrape: Scrape,
    snapshot: Callable[[], Snapshot],
    alive: Callable[[], bool],
    *,
    history: History | None,
    about: Callable[[], bytes] | None = None,
    address: Callable[[], str],
    scheme: str,
    page: bool,
    recorded: Recorded | None = None,
    groups: AskGroups | None,
) -> Router:
    """Return the paths and their answers.

    Args:
        scrape: Returns the exposition.
        snapshot: Returns the latest snapshot.
        alive: Whether the poll loop runs; health depends on nothing else.
        history: The history that the live page draws; None for a page without one.
        about: Returns as JSON what the exporter says of itself; None to leave it out.
        address: Returns the ``host:port`` listened on, for clients that send no ``Host``.
        scheme: ``https`` when the server speaks TLS.
        page: Whether ``/`` is the live page; otherwise it is a list of links.
        recorded: The run on disk; None without.
        groups: Answers questions about groups; None when nobody may see them.
    """

    def metrics(request: Request) -> Response:
        body, content_type = scrape(request.headers.get("accept"), request.query_params.getlist("name[]"))
        return _typed(body, content_type)

    def targets(request: Request) -> Response:
        host = request.headers.get("host")
        return _typed(encode_targets(snapshot(), host=host, address=address(), scheme=scheme), _JSON)

    def ask_groups(request: Request) -> Response:
        if groups is None:
            return plain(HTTPStatus.NOT_FOUND, _NO_GROUPS)
        try:
            return _typed(groups(request.query_params.multi_items()), _JSON)
        except BadQuery as error:
            return plain(HTTPStatus.BAD_REQUEST, visible(str(error)))

    def tracking(_request: Request) -> Response:
        # A snapshot that nobody renews any more must not pass for the present.
        return (
            _typed(encode_readings(snapshot()), _JSON) if alive() else plain(HTTPStatus.SERVICE_UNAVAILABLE, _STOPPED)
        )

    # Health is answered on the event loop itself, so that a slow scrape cannot delay it.
    async def health(_request: Request) -> Response:
        return plain(HTTPStatus.OK, "ok") if alive() else plain(HTTPStatus.SERVICE_UNAVAILABLE, _STOPPED)

    async def readiness(_request: Request) -> Response:
        return plain(HTTPStatus.OK, "ready") if snapshot().ready else plain(HTTPStatus.SERVICE_UNAVAILABLE, _NOT_READY)

    answers: dict[str, _Answer] = {
        "/": lambda _: _typed(_INDEX % {b"groups": b"" if groups is None else _GROUPS_LINK}, _HTML),
        "/metrics": metrics,
        "/metrics/": metrics,
        "/sd": targets,
        "/api/v1/conditions": lambda _: _typed(encode_conditions(snapshot()), _JSON),
        "/api/v1/groups": ask_groups,
        TRACKING_PATH: tracking,
        "/api/v1/snapshot": lambda _: _typed(encode_snapshot(snapshot()), _JSON),
    }
    if page:
        answers.update(_page_answers(groups is not None))
        if history is not None:
            answers.update({f"/api/v1/history/{window}": _history(history, window) for window in WINDOWS})
    if about is not None:
        answers["/api/v1/about"] = lambda _: _typed(about(), _JSON)
    turns = asyncio.Semaphore(MAX_ANSWERS)
    routes = [Route("/healthz", health), Route("/readyz", readiness)]
    routes += [Route(path, _beside_the_loop(answer, turns)) for path, answer in answers.items()]
    if page:
        reading = _unrecorded if recorded is None else from_disk(history_of(recorded), asyncio.Lock())
        routes.append(Route("/api/v1/history", reading))
    return Router(routes, redirect_slashes=False, default=_not_found)


def make_replay_router(replay: Replay) -> Router:
    """Return the paths and their answers for a recording: the page and what it asks, and nothing that is of now."""

    async def health(_request: Request) -> Response:
        return plain(HTTPStatus.OK, "ok")

    turns, disk = asyncio.Semaphore(MAX_ANSWERS), asyncio.Lock()
    routes = [Route("/healthz", health), Route("/readyz", health)]
    routes += [Route(path, _beside_the_loop(answer, turns)) for path, answer in _page_answers(groups=False).items()]
    routes += [Route(path, from_disk(read, disk)) for path, read in replay_answers(replay).items()]
    return Router(routes, redirect_slashes=False, default=_not_found)


_Answer = Callable[[Request], Response]


def _beside_the_loop(answer: _Answer, turns: asyncio.Semaphore) -> Callable[[Request], Awaitable[Response]]:
    """Return an endpoint that makes its answer on another thread, with a limit on how many run at once."""

    async def endpoint(request: Request) -> Response:
        async with turns:
            if request.state.slot.freed:  # the client disconnected while it waited
                return Response()
            return await in_daemon_thread(lambda: compressed(answer(request), request))

    return endpoint


def _typed(body: bytes, content_type: str) -> Response:
    return Response(body, headers={"Content-Type": content_type})


def _page(body: bytes, content_type: str) -> Response:
    return Response(body, headers={"Content-Type": content_type, **dict(PAGE_HEADERS)})


def _page_answers(groups: bool) -> dict[str, _Answer]:
    return {
        "/": _asset("index.html") if groups else _without_groups,
        "/docs/metrics": lambda _: _page(render_page(), _HTML),
        **{f"/page/{name}": _asset(name) for name in ASSETS if name != "index.html"},
    }


async def _unrecorded(_request: Request) -> Response:
    return plain(HTTPStatus.NOT_FOUND, "this exporter keeps no recording; set history.file")


def _asset(name: str) -> _Answer:
    asset = ASSETS[name]
    return lambda _: _page(asset.body, asset.content_type)


def _without_groups(_request: Request) -> Response:
    index = ASSETS["index.html"]
    return _page(index.body.replace(b"<body>", b'<body data-groups="off">'), index.content_type)


def _history(history: History, window: str) -> _Answer:
    return lambda _: _typed(history.encode(window), _JSON)


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await plain(HTTPStatus.NOT_FOUND)(scope, receive, send)
