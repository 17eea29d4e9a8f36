"""Helpers for responses that several modules make."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

__all__ = ["compressed", "plain"]

_WORTH_BYTES: Final = 1024
_LEVEL: Final = 1
_GZIP: Final = re.compile(r"(?:^|,)\s*gzip\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))[^,]*)?(?:,|$)", re.IGNORECASE)


def plain(status: HTTPStatus, text: str | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """Return one line of text, by default the status's own phrase."""
    return PlainTextResponse(f"{text or status.phrase}\n", status, headers)


def compressed(response: Response, request: Request) -> Response:
    """Return *response*, compressed with gzip when *request* accepts it and the body is large enough.

    Not Starlette's middleware: that compresses on the event loop, or on as many threads as there are requests.
    """
    if len(response.body) >= _WORTH_BYTES:
        response.headers.add_vary_header("Accept-Encoding")
        if _GZIP.search(request.headers.get("accept-encoding", "")):
            response.body = gzip.compress(response.body, _LEVEL, mtime=0)
            response.headers["Content-Encoding"] = "gzip"
            response.headers["Content-Length"] = str(len(response.body))
    return response
