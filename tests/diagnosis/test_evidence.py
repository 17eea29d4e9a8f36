"""What is collected from a running exporter that gives groups, and from one that gives little."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from exporter.config import Config
from exporter.diagnosis.evidence import collect_here, collect_remote
from exporter.model.condition import Condition
from exporter.model.history import History
from exporter.model.snapshot import encode_snapshot
from exporter.remote import Remote, RemoteError, parse_url
from tests.support.clock import StoppedClock
from tests.support.snapshots import rich_snapshot

HELD = replace(
    rich_snapshot(),
    conditions=tuple(
        Condition(name, "generation", "warning", True, text="x") for name in ("About", "Not", "Broken")[:2]
    ),
)
GROUP = {"partition": "train", "group_id": "g1", "state": "ready", "version": 3, "age_seconds": 7.5}


class Scripted:
    """An exporter of another version: answers by path, with what it was asked. It stands in for ``/api/v1/groups``."""

    def __init__(self, answers: Mapping[str, tuple[int, Any]]) -> None:
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = parse_qs(parts.query)
                script.asked.append((parts.path, query))
                name = f"{parts.path}?{query['condition'][0]}" if "condition" in query else parts.path
                status, value = answers.get(name, (404, {}))
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.remote = Remote(parse_url(f"127.0.0.1:{self.server.server_address[1]}"))


@contextmanager
def scripted(**answers: tuple[int, Any]) -> Iterator[Scripted]:
    found = Scripted({"/api/v1/snapshot": (200, encode_snapshot(HELD)), "/healthz": (200, {}), **answers})
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        found.server.server_close()
        thread.join()


def test_the_groups_of_each_condition_that_is_about_groups() -> None:
    answers: dict[str, tuple[int, Any]] = {
        "/api/v1/groups": (200, {"groups": [GROUP, GROUP]}),
        "/api/v1/groups?About": (200, {"groups": [GROUP]}),
        "/api/v1/groups?Not": (400, {}),
    }
    with scripted(**answers) as exporter:
        evidence = collect_remote(exporter.remote)
    assert evidence.groups == {"oldest": [GROUP, GROUP], "About": [GROUP]}
    assert "groups" not in evidence.missing
    assert evidence.missing.keys() == {"history, recent", "history, hour", "metrics", "configuration"}
    assert [query["limit"] for path, query in exporter.asked if path == "/api/v1/groups"] == [["20"]] * 3


def test_an_exporter_that_gives_no_groups_names_a_few() -> None:
    with scripted() as exporter:
        evidence = collect_remote(exporter.remote)
    assert evidence.groups == {}  # the oldest ones of this snapshot have no id
    assert "404" in evidence.missing["groups"]
    assert len([path for path, _ in exporter.asked if path == "/api/v1/groups"]) == 1


@pytest.mark.parametrize(("status", "alive"), [(200, True), (503, False), (404, True)])
def test_whether_the_exporters_loop_runs(status: int, alive: bool) -> None:
    with scripted(**{"/healthz": (status, {})}) as exporter:
        assert collect_remote(exporter.remote).alive is alive


def test_without_a_snapshot_there_is_no_evidence() -> None:
    with scripted(**{"/api/v1/snapshot": (200, b"{}")}) as exporter, pytest.raises(RemoteError, match="version"):
        collect_remote(exporter.remote)


def test_own_groups() -> None:
    def groups(condition: str | None, limit: int) -> list[Any] | None:
        return None if condition == "Not" else [GROUP]

    found = collect_here(HELD, History(StoppedClock()), b"", Config(), {}, groups=groups)
    assert found.groups == {"oldest": [GROUP], "About": [GROUP]}
