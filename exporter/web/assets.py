"""The live page's files, read once from the package, and the security policy that browsers enforce for them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Final, NamedTuple

__all__ = ["ASSETS", "PAGE_HEADERS", "Asset"]


class Asset(NamedTuple):
    """One file of the page."""

    content_type: str
    body: bytes


_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def _read() -> dict[str, Asset]:
    return {
        file.name: Asset(_TYPES[suffix], file.read_bytes())
        for file in files("exporter.web").joinpath("page").iterdir()
        if (suffix := "." + file.name.rpartition(".")[2]) in _TYPES
    }


ASSETS: Final[Mapping[str, Asset]] = _read()
"""File name to file. Only these names are served: a request is never turned into a path."""

PAGE_HEADERS: Final = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
)
"""The page contacts only its own origin, runs no inline script, and turns no text into markup."""
