"""The page's files: served with the right types and a strict security policy, and no other file is served."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from email.message import Message

import pytest

from exporter.web.assets import ASSETS
from tests.page.support import Served


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    running = Served()
    yield running
    running.stop()


def get(server: Served, path: str) -> tuple[int, Message, bytes]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://").rstrip("/"), timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_the_page_allows_its_own_files_and_nothing_else(server: Served) -> None:
    status, headers, _ = get(server, "/")
    assert status == 200
    policy = dict(rule.strip().partition(" ")[::2] for rule in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[what] for what in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert {policy[what] for what in ("trusted-types", "base-uri", "form-action", "frame-ancestors")} == {"'none'"}


@pytest.mark.parametrize("name", sorted(set(ASSETS) - {"index.html"}))
def test_a_file_is_what_it_says(server: Served, name: str) -> None:
    status, headers, body = get(server, f"/page/{name}")
    assert status == 200
    kind = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
    assert headers["Content-Type"] == kind[name.rpartition(".")[2]]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert body == ASSETS[name].body


@pytest.mark.parametrize(
    "path",
    ["/page/", "/page/index.html", "/page/../routes.py", "/page/%2e%2e/routes.py", "/page//etc/passwd", "/page/x.js"],
)
def test_nothing_else_is_served(server: Served, path: str) -> None:
    assert get(server, path)[0] == 404


def test_no_file_names_another_host_or_makes_markup_of_text() -> None:
    for name, asset in ASSETS.items():
        source = asset.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.", source), name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", source), (
            name
        )
    index = ASSETS["index.html"].body.decode()
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?! type=\"module\" src=\"page/)", index)
    for named in re.findall(r'(?:href|src)="page/([^"]+)"', index):
        assert named in ASSETS


def test_every_module_that_is_imported_is_there() -> None:
    for name, asset in ASSETS.items():
        for imported in re.findall(r'from "\./([^"]+)"', asset.body.decode()):
            assert imported in ASSETS, f"{name} imports {imported}"
