"""The web server: the right answer on each path, and no client that can keep others out."""

from __future__ import annotations

import errno
import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import MappingProxyType

import pytest

from exporter.config import Listen
from exporter.model.snapshot import Snapshot
from exporter.web import MAX_CONNECTIONS, WebServer
from tests.support.snapshots import ODD_NAME, empty_snapshot, rich_snapshot

LOOPBACK = Listen("127.0.0.1", 0)


class Served:
    """A running server whose answers a test can change."""

    def __init__(self, listen: Listen = LOOPBACK) -> None:
        self.body = b"dataplane_up 1\n"
        self.accepted: list[str | None] = []
        self.snapshot: Snapshot = rich_snapshot()
        self.alive = True
        self.web = WebServer(listen, scrape=self.scrape, snapshot=lambda: self.snapshot, alive=lambda: self.alive)
        self.host, self.port = self.web.listen()
        self.web.start()

    def scrape(self, accept: str | None) -> tuple[bytes, str]:
        self.accepted.append(accept)
        return self.body, "text/plain; version=0.0.4"

    def request(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None, host: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(host or "127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read()
        finally:
            connection.close()

    def raw(self, data: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(data)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def served() -> Iterator[Served]:
    running = Served()
    yield running
    running.web.stop()


def test_metrics(served: Served) -> None:
    status, headers, body = served.request("/metrics?debug=1", headers={"Accept": "application/openmetrics-text"})
    assert (status, body) == (200, b"dataplane_up 1\n")
    assert headers["Content-Type"] == "text/plain; version=0.0.4"
    assert headers["Cache-Control"] == "no-store"
    assert served.accepted == ["application/openmetrics-text"]


def test_health_is_the_loops_and_nothing_elses(served: Served) -> None:
    served.snapshot = replace(empty_snapshot(), discovery="lost", up=False)
    assert served.request("/healthz")[::2] == (200, b"ok\n")
    served.alive = False
    assert served.request("/healthz")[::2] == (503, b"the poll loop has stopped\n")


def test_readiness_is_the_first_round(served: Served) -> None:
    served.snapshot = empty_snapshot()
    assert served.request("/readyz")[::2] == (503, b"the first round of polls is not done\n")
    served.snapshot = replace(empty_snapshot(), ready=True, up=False)
    assert served.request("/readyz")[::2] == (200, b"ready\n")


def test_the_snapshot_as_json(served: Served) -> None:
    status, headers, body = served.request("/api/v1/snapshot")
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "application/json", "no-store")
    snapshot = json.loads(body)
    assert snapshot["discovery"] == "found"
    assert snapshot["endpoint"]["run"] == "grpo-7b"
    assert [partition["partition"] for partition in snapshot["partitions"]] == ["train", "val", ODD_NAME]
    assert snapshot["partitions"][0]["groups"] == {"ready": 7, "incomplete": 8, "uncommitted": 9, "failed": 10}
    assert snapshot["flows"][0]["residence"]["sum"] == 54321.5
    assert snapshot["storage"][1]["capacity"] is None


def test_any_mapping_has_a_form_in_json(served: Served) -> None:
    first = served.snapshot.partitions[0]
    served.snapshot = replace(
        served.snapshot, partitions=(replace(first, groups=MappingProxyType(dict(first.groups))),)
    )
    assert json.loads(served.request("/api/v1/snapshot")[2])["partitions"][0]["groups"]["ready"] == 7


def test_the_index_links_to_every_path(served: Served) -> None:
    status, headers, body = served.request("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    for path in ("metrics", "healthz", "readyz", "api/v1/snapshot"):
        assert f'href="{path}"'.encode() in body
        assert served.request(f"/{path}")[0] == 200


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/api/v1/snapshot", "/nothing"])
def test_head_is_get_without_a_body(served: Served, path: str) -> None:
    status, headers, body = served.request(path)
    head = served.request(path, "HEAD")
    assert head[0] == status
    assert head[2] == b""
    assert {k: v for k, v in head[1].items() if k != "Date"} == {k: v for k, v in headers.items() if k != "Date"}
    assert int(headers["Content-Length"]) == len(body)


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/api/v1", "/../etc/passwd", "//[", "/%00"])
def test_other_paths_are_not_found(served: Served, path: str) -> None:
    status, headers, body = served.request(path)
    assert (status, body) == (404, b"Not Found\n")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
def test_other_methods_are_not_allowed(served: Served, method: str) -> None:
    status, headers, body = served.request("/metrics", method)
    assert (status, headers["Allow"], body) == (405, "GET, HEAD", b"Method Not Allowed\n")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET\r\n\r\n", b"400"),
        (b"<script>alert(1)</script>\r\n\r\n", b"400"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 300 + b"\r\n", b"431"),
    ],
)
def test_nonsense_gets_a_plain_answer_that_repeats_nothing_of_it(
    served: Served, request_line: bytes, status: bytes
) -> None:
    answer = served.raw(request_line)
    assert b"script" not in answer
    assert b"<" not in answer
    assert answer.startswith(b"HTTP/1.0 " + status)
    assert served.request("/healthz")[0] == 200


def test_the_server_does_not_say_what_it_is_made_of(served: Served) -> None:
    assert served.request("/")[1]["Server"].strip() == "tq-exporter"


def test_a_defect_is_a_plain_500_and_a_traceback_in_the_log_alone(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    served.snapshot = None  # type: ignore[assignment]
    status, _, body = served.request("/readyz")
    assert (status, body) == (500, b"Internal Server Error\n")
    assert "Traceback" in caplog.text
    assert served.request("/healthz")[0] == 200


def test_requests_are_logged_at_debug_alone(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        served.request("/metrics")
        served.request("/nothing")
    assert not caplog.records
    with caplog.at_level(logging.DEBUG):
        served.request("/metrics")
    assert "GET /metrics" in caplog.text


def test_clients_that_hang_do_not_keep_a_scrape_out(served: Served) -> None:
    with ExitStack() as stack:
        for index in range(3 * MAX_CONNECTIONS):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=20))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nX-Slow: " if index % 2 else b"")
        status, _, body = served.request("/metrics")
        assert (status, body) == (200, b"dataplane_up 1\n")
        assert sum(thread.name.startswith("Thread-") for thread in threading.enumerate()) <= 2 * MAX_CONNECTIONS


def test_a_client_that_does_not_read_does_not_keep_a_scrape_out(served: Served) -> None:
    served.body = b"x" * 16_000_000
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS + 4):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=20))
            connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert len(served.request("/metrics")[2]) == 16_000_000


def test_a_client_that_goes_away_leaves_no_trace_in_the_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.body = b"x" * 4_000_000
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                connection.recv(1)
        assert served.request("/healthz")[0] == 200
    assert not caplog.records


def test_it_listens_on_ipv6() -> None:
    served = Served(Listen("::1", 0))
    try:
        assert served.host == "::1"
        assert served.request("/healthz", host="::1")[0] == 200
    finally:
        served.web.stop()


def test_any_ipv6_address_is_any_ipv4_address_too() -> None:
    served = Served(Listen("::", 0))
    try:
        assert served.request("/healthz", host="::1")[0] == 200
        assert served.request("/healthz", host="127.0.0.1")[0] == 200
    finally:
        served.web.stop()


def test_a_port_in_use_is_said_in_one_line(served: Served) -> None:
    taken = Listen("127.0.0.1", served.port)
    with pytest.raises(
        OSError, match=rf"cannot listen on 127\.0\.0\.1:{served.port}: Address already in use"
    ) as caught:
        Served(taken)
    assert caught.value.errno == errno.EADDRINUSE


def test_an_address_that_is_not_here_is_said_in_one_line() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        Served(Listen("192.0.2.1", 0))


def test_stopping_frees_the_port_and_ends_what_is_open(served: Served) -> None:
    # The wait is shorter than the time after which an idle connection is closed anyhow.
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
        served.request("/healthz")  # by now the connection above has been accepted
        served.web.stop()
        assert connection.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port), timeout=20)
    Served(Listen("127.0.0.1", served.port)).web.stop()


def test_stopping_twice_or_before_the_start_does_nothing(served: Served) -> None:
    served.web.stop()
    served.web.stop()
    WebServer(LOOPBACK, scrape=served.scrape, snapshot=rich_snapshot, alive=lambda: True).stop()
