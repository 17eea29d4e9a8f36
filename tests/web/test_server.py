"""The web server: the right answer on each path, and no client can lock out others."""

from __future__ import annotations

import base64
import errno
import gzip
import http.client
import json
import logging
import socket
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import bcrypt
import pytest

from dataplane.groups import GROUP_STATES
from exporter.config import Listen
from exporter.model.snapshot import Snapshot
from exporter.web import MAX_CONNECTIONS, Guard, WebServer
from exporter.web import guard as guard_module
from exporter.web.routes import MAX_ANSWERS, Scrape
from tests.support.snapshots import ODD_NAME, empty_snapshot, rich_snapshot

LOOPBACK = Listen("127.0.0.1", 0)


class Served:
    """A running server whose answers a test can change."""

    def __init__(self, listen: Listen = LOOPBACK, guard: Guard | None = None) -> None:
        self.body = b"dataplane_up 1\n"
        self.accepted: list[str | None] = []
        self.names: list[Sequence[str]] = []
        self.slow: Scrape | None = None
        self.refused = 0
        self.snapshot: Snapshot = rich_snapshot()
        self.alive = True
        self.web = WebServer(
            listen,
            scrape=self.scrape,
            snapshot=lambda: self.snapshot,
            alive=lambda: self.alive,
            guard=guard,
            refused_login=self.refuse,
        )
        self.host, self.port = self.web.listen()
        self.web.start()

    def scrape(self, accept: str | None, names: Sequence[str]) -> tuple[bytes, str]:
        self.accepted.append(accept)
        self.names.append(names)
        if self.slow is not None:
            return self.slow(accept, names)
        return self.body, "text/plain; version=0.0.4"

    def refuse(self) -> None:
        self.refused += 1

    def request(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None, host: str | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection(host or "127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
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


def test_the_conditions_as_json(served: Served) -> None:
    status, headers, body = served.request("/api/v1/conditions")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    answer = json.loads(body)
    assert (answer["severity"], answer["degraded"], answer["up"]) == ("ok", False, True)
    assert answer["conditions"] == json.loads(served.request("/api/v1/snapshot")[2])["conditions"] != []


def test_the_snapshot_as_json(served: Served) -> None:
    status, headers, body = served.request("/api/v1/snapshot")
    assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "application/json", "no-store")
    snapshot = json.loads(body)
    assert snapshot["discovery"] == "found"
    assert snapshot["endpoint"]["run"] == "grpo-7b"
    assert [partition["partition"] for partition in snapshot["partitions"]] == ["train", "val", ODD_NAME]
    assert snapshot["partitions"][0]["groups"] == dict(zip(GROUP_STATES, range(7, 12), strict=True))
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
    for path in ("metrics", "healthz", "readyz", "api/v1/conditions", "api/v1/snapshot"):
        assert f'href="{path}"'.encode() in body
        assert served.request(f"/{path}")[0] == 200


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz", "/api/v1/snapshot", "/nothing"])
def test_head_is_get_without_a_body(served: Served, path: str) -> None:
    status, headers, body = served.request(path)
    head = served.request(path, "HEAD")
    assert head[0] == status
    assert head[2] == b""
    assert {k: v for k, v in head[1].items() if k != "date"} == {k: v for k, v in headers.items() if k != "date"}
    assert int(headers["Content-Length"]) == len(body)


@pytest.mark.parametrize("path", ["/nothing", "/metrics/x", "/healthz/", "/api/v1", "/../etc/passwd", "//[", "/%00"])
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
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"x: y\r\n" * 300 + b"\r\n", b"431"),
    ],
)
def test_nonsense_gets_a_plain_answer_that_repeats_nothing_of_it(
    served: Served, request_line: bytes, status: bytes
) -> None:
    answer = served.raw(request_line)
    assert b"script" not in answer
    assert b"<" not in answer
    assert answer.startswith(b"HTTP/1.1 " + status)
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
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: " if index % 2 else b"")
        status, _, body = served.request("/metrics")
        assert (status, body) == (200, b"dataplane_up 1\n")
        assert threading.active_count() < 20


def test_a_client_that_does_not_read_does_not_keep_a_scrape_out(served: Served) -> None:
    served.body = b"x" * 16_000_000
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS + 4):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), timeout=20))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert len(served.request("/metrics")[2]) == 16_000_000


def test_a_client_that_goes_away_leaves_no_trace_in_the_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    served.body = b"x" * 4_000_000
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
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
    # The wait is shorter than the time after which an idle connection is closed anyway.
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


# What is asked for.


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
def test_metrics_with_and_without_a_slash_at_the_end(served: Served, path: str) -> None:
    status, headers, body = served.request(path)
    assert (status, body) == (200, b"dataplane_up 1\n")
    assert headers["Location"] is None


def test_only_some_names(served: Served) -> None:
    served.request("/metrics?name[]=dataplane_up&x=y&name%5B%5D=target_info&name[]=")
    served.request("/metrics")
    assert served.names == [["dataplane_up", "target_info", ""], []]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("http://localhost/metrics", b"200"),
        ("HTTP://127.0.0.1:9464/metrics/?name[]=x", b"200"),
        ("https://localhost/metrics", b"200"),
        ("http://localhost", b"200"),
        ("http://localhost/%6Detrics", b"200"),
        ("http://localhost/nothing", b"404"),
        ("http://evil.example/metrics", b"421"),
        ("http://[/metrics", b"404"),
        ("ftp://localhost/metrics", b"404"),
        ("*", b"404"),
    ],
)
def test_a_target_in_absolute_form(served: Served, target: str, status: bytes) -> None:
    # The target's host is the one that counts (RFC 9112, 3.2.2).
    answer = served.raw(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 " + status)


def test_the_targets_host_counts_and_not_the_headers(served: Served) -> None:
    answer = served.raw(b"GET http://localhost:81/sd HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"localhost:81"' in answer
    assert b"evil" not in answer


@pytest.mark.parametrize("encodings", ["gzip", "deflate, gzip;q=0.5, br", "GZIP ; q=1.0", "identity;q=0.1,gzip"])
@pytest.mark.parametrize("path", ["/metrics", "/api/v1/snapshot"])
def test_a_long_answer_is_compressed_on_request(served: Served, path: str, encodings: str) -> None:
    served.body = b"dataplane_up 1\n" * 1000
    plain = served.request(path)
    status, headers, body = served.request(path, headers={"Accept-Encoding": encodings})
    assert (status, headers["Content-Encoding"], headers["Vary"]) == (200, "gzip", "Accept-Encoding")
    assert headers["Content-Type"] == plain[1]["Content-Type"]
    assert int(headers["Content-Length"]) == len(body) < len(plain[2]) / 2
    assert gzip.decompress(body) == plain[2]
    assert (plain[1]["Content-Encoding"], plain[1]["Vary"]) == (None, "Accept-Encoding")
    head = served.request(path, "HEAD", headers={"Accept-Encoding": encodings})
    assert (head[1]["Content-Length"], head[2]) == (headers["Content-Length"], b"")


@pytest.mark.parametrize("encodings", ["", "gzip;q=0", "gzip; q=0.000", "br, gzip;q=0.0, deflate", "x-gzip-ish", "*"])
def test_an_answer_is_not_compressed_unasked(served: Served, encodings: str) -> None:
    served.body = b"dataplane_up 1\n" * 1000
    _, headers, body = served.request("/metrics", headers={"Accept-Encoding": encodings})
    assert (headers["Content-Encoding"], body) == (None, served.body)


def test_a_short_answer_is_not_compressed(served: Served) -> None:
    _, headers, body = served.request("/metrics", headers={"Accept-Encoding": "gzip"})
    assert (headers["Content-Encoding"], body) == (None, b"dataplane_up 1\n")


# For whom.


@pytest.mark.parametrize("host", ["localhost:9464", "127.0.0.1", "[::1]:9464", "10.1.2.3:9464", None, ""])
@pytest.mark.parametrize("path", ["/healthz", "/metrics"])
def test_a_host_that_is_this_server(served: Served, path: str, host: str | None) -> None:
    header = "" if host is None else f"Host: {host}\r\n"
    assert served.raw(f"GET {path} HTTP/1.0\r\n{header}\r\n".encode()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("path", ["/healthz", "/metrics", "/", "/nothing"])
def test_a_host_that_is_another_gets_nothing_but_a_remedy(
    served: Served, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    status, _, body = served.request(path, headers={"Host": "evil.example:9464"})
    assert status == 421
    assert body == b"this host name is not in web.allowed_hosts: add it there, or use the IP address\n"
    assert served.accepted == []
    assert "127.0.0.1: its host name is not in web.allowed_hosts" in caplog.text
    assert "evil" not in caplog.text


# Nobody waits for another.


def test_slow_scrapes_hold_up_no_health_and_few_run_at_once(served: Served) -> None:
    go, running = threading.Event(), threading.Semaphore(0)

    def slow(accept: str | None, names: Sequence[str]) -> tuple[bytes, str]:
        running.release()
        assert go.wait(30)
        return b"late\n", "text/plain"

    served.slow = slow
    with ThreadPoolExecutor(MAX_ANSWERS + 4) as pool:
        late = [pool.submit(served.request, "/metrics") for _ in range(MAX_ANSWERS + 4)]
        try:
            assert all(running.acquire(timeout=30) for _ in range(MAX_ANSWERS))
            assert served.request("/healthz")[0] == 200
            assert served.request("/readyz")[0] == 200
            assert not running.acquire(blocking=False)
        finally:
            go.set()
        assert {one.result()[2] for one in late} == {b"late\n"}


def test_nothing_is_made_for_who_has_gone(served: Served) -> None:
    go, running = threading.Event(), threading.Semaphore(0)

    def slow(accept: str | None, names: Sequence[str]) -> tuple[bytes, str]:
        running.release()
        assert go.wait(30)
        return b"late\n", "text/plain"

    served.slow = slow
    with ThreadPoolExecutor(MAX_ANSWERS) as pool:
        late = [pool.submit(served.request, "/metrics") for _ in range(MAX_ANSWERS)]
        try:
            assert all(running.acquire(timeout=30) for _ in range(MAX_ANSWERS))
            for _ in range(10):
                with socket.create_connection(("127.0.0.1", served.port), timeout=20) as connection:
                    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert served.request("/healthz")[0] == 200  # by now they have been read, and found to be gone
        finally:
            go.set()
        for one in late:
            one.result()
    assert served.request("/metrics")[0] == 200
    assert running.acquire(timeout=30)
    assert not running.acquire(blocking=False)


def test_a_password_that_is_being_checked_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = tmp_path / "web.yml"
    web.write_text(f"basic_auth_users: {{alice: '{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}'}}\n")
    served = Served(guard=Guard(web))
    go, running = threading.Event(), threading.Event()

    def checkpw(password: bytes, hashed: bytes) -> bool:
        running.set()
        assert go.wait(30)
        return False

    monkeypatch.setattr("exporter.web.auth.bcrypt.checkpw", checkpw)
    wrong = {"Authorization": "Basic " + base64.b64encode(b"alice:wrong").decode()}
    try:
        with ThreadPoolExecutor(1) as pool:
            refused = pool.submit(served.request, "/metrics", headers=wrong)
            assert running.wait(30)
            assert served.request("/metrics")[0] == 401
            go.set()
            assert refused.result()[0] == 401
        assert served.refused == 1
    finally:
        go.set()
        served.web.stop()


def test_a_disk_that_hangs_holds_up_one_connection_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    web = tmp_path / "web.yml"
    web.write_text("http_server_config: {headers: {X-Frame-Options: deny}}\n")
    served = Served(guard=Guard(web))
    entered, go = threading.Event(), threading.Event()

    def hang(path: Path) -> None:
        entered.set()
        assert go.wait(30)

    monkeypatch.setattr(guard_module, "_sign", hang)
    try:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(served.request, "/healthz")
            assert entered.wait(30)
            for _ in range(3):
                assert served.request("/healthz")[1]["X-Frame-Options"] == "deny"
            assert not first.done()
            go.set()
            assert first.result()[0] == 200
    finally:
        go.set()
        served.web.stop()


def test_a_request_with_a_body_gets_its_answer(served: Served) -> None:
    body = b"z" * 300_000
    for length in (len(body), 10 * len(body)):  # all of it, or a part and then nothing for a while
        answer = served.raw(b"POST / HTTP/1.1\r\nHost: x.localhost\r\nContent-Length: %d\r\n\r\n" % length + body)
        assert answer.startswith(b"HTTP/1.1 405 ")
        assert answer.endswith(b"Method Not Allowed\n")


def test_a_connection_is_for_one_request(served: Served) -> None:
    assert served.request("/healthz")[1]["Connection"] == "close"
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert served.raw(request * 3).count(b"HTTP/1.1 200") == 1
    assert len(served.accepted) == 1


def test_uvicorn_says_nothing_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        served = Served()
        served.request("/healthz")
        served.raw(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        served.raw(b"nonsense\r\n\r\n")
        served.web.stop()
    assert [record for record in caplog.records if not record.name.startswith("exporter.web.access")] == []
