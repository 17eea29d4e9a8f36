"""Checks that a request must pass before it is answered: host name, login, and what HTTP it uses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.web.auth import BasicAuth, TooManyChecksError
from exporter.web.guard import Protection
from exporter.web.hosts import AllowedHosts
from exporter.web.replies import plain

__all__ = ["Access"]

logger = logging.getLogger(__name__)  # warnings only: the log's repeat filter then passes one a minute

MAX_HEADERS: Final = 100
_METHODS: Final = ("GET", "HEAD")
_CHALLENGE: Final = {"WWW-Authenticate": 'Basic realm="tq-exporter", charset="UTF-8"'}


class Access:
    """An ASGI application that refuses requests which fail a check, and passes the others to *app*.

    Args:
        app: The application that answers the accepted requests.
        hosts: The host names that clients may use for this server.
        refused_login: Called for each request whose user name or password is wrong.
    """

    def __init__(self, app: ASGIApp, hosts: AllowedHosts, refused_login: Callable[[], None]) -> None:
        self._app = app
        self._hosts = hosts
        self._refused_login = refused_login
        self._basic_auth = BasicAuth()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        refusal = await self._refuse(Request(scope))
        await (refusal or self._app)(scope, receive, send)

    async def _refuse(self, request: Request) -> Response | None:
        """Return the answer to a refused request, None when the request is accepted."""
        if request.scope["http_version"] not in ("1.0", "1.1"):
            return plain(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        if len(request.headers.raw) > MAX_HEADERS:
            return plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        client = request.state.slot.host
        if not self._hosts.allow(request.headers.get("host")):
            logger.warning("refused a request of %s: its host name is not in web.allowed_hosts", client)
            remedy = "this host name is not in web.allowed_hosts: add it there, or use the IP address"
            return plain(HTTPStatus.MISDIRECTED_REQUEST, remedy)
        try:
            if not await self._is_let_in(request):
                if "authorization" in request.headers:
                    self._refused_login()
                    logger.warning("refused a login of %s: wrong user name or password", client)
                return plain(HTTPStatus.UNAUTHORIZED, headers=_CHALLENGE)
        except TooManyChecksError:
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": "1"})
        if request.method not in _METHODS:
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(_METHODS)})
        return None

    async def _is_let_in(self, request: Request) -> bool:
        protection: Protection = request.state.protection
        if not protection.users:
            return True
        authorization = request.headers.get("authorization")
        return await self._basic_auth.check(protection.users, authorization, request.state.slot.host)
