"""Reading a running exporter: the real web server, with and without protection, and servers that are none."""

from __future__ import annotations

import argparse
import gzip
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import bcrypt
import pytest

from exporter.arguments import Parser, add_remote_arguments, remote_of
from exporter.config import ConfigError, Listen
from exporter.model.snapshot import Snapshot
from exporter.remote import Address, ClientTls, Remote, RemoteError, parse_url
from exporter.web import Guard, WebServer
from tests.support.certificates import Authority
from tests.support.snapshots import rich_snapshot

SECRET = "correct horse"


@contextmanager
def serving(web_config: Path | None = None, *, scrape: bytes = b"up 1\n") -> Iterator[int]:
    web = WebServer(
        Listen("127.0.0.1", 0),
        scrape=lambda accept, names: (scrape, "text/plain"),
        snapshot=rich_snapshot,
        alive=lambda: True,
        guard=Guard(web_config),
        allowed_hosts=(),
    )
    port = web.listen()[1]
    web.start()
    try:
        yield port
    finally:
        web.stop()


@contextmanager
def answering(answer: bytes, *, stay: bool = False, drips: bool = False) -> Iterator[int]:
    """Serve *answer* to every connection; with *stay* the connection stays open after it; *drips*: byte by byte."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    held.append(connection)
                    connection.recv(65536)
                    for piece in (answer[at : at + 1] for at in range(len(answer))) if drips else (answer,):
                        connection.sendall(piece)
                        time.sleep(0.05 if drips else 0)
                except OSError:
                    return
                if not stay:
                    connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for connection in held:
                connection.close()


def here(port: int, **settings: object) -> Remote:
    return Remote(Address("127.0.0.1", port, **settings))  # type: ignore[arg-type]


def failure(remote: Remote, path: str = "/api/v1/snapshot") -> RemoteError:
    with pytest.raises(RemoteError) as caught:
        remote.read_json(path, Snapshot)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    return caught.value


def test_the_snapshot_comes_back_as_it_was() -> None:
    with serving() as port:
        assert here(port).read_json("/api/v1/snapshot", Snapshot) == rich_snapshot()
        assert here(port).read("/metrics", {"name[]": ["a", "b"], "left_out": None}) == b"up 1\n"


def test_a_compressed_answer_is_bounded_after_decompression() -> None:
    with serving(scrape=b"x" * 10_000) as port:
        assert len(here(port).read("/metrics")) == 10_000
        bounded = Remote(Address("127.0.0.1", port), max_bytes=9_999)
        assert failure(bounded, "/metrics").kind == "too_large"


@pytest.mark.parametrize("path", ["/api/v1/none", "/api/v1/history/live"])
def test_what_it_does_not_have(path: str) -> None:
    with serving() as port:
        found = failure(here(port), path)
    assert (found.kind, path in str(found)) == ("not_found", True)
    assert "switched off" in str(found)


def test_nothing_listens() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    assert failure(here(port)).kind == "refused"


def test_no_such_host() -> None:
    # No label is that long, so no name server is asked.
    assert failure(Remote(Address("a" * 64, 9464))).kind == "unknown_host"


def test_no_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with serving() as port:
        assert here(port).read("/metrics") == b"up 1\n"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not_an_exporter"),
        (b"", "not_an_exporter"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "not_an_exporter"),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"status":1}', "not_an_exporter"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\nContent-Length: 0\r\n\r\n", "not_an_exporter"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "not_found"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nWhy\n", "forbidden"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", "failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", "failed"),
    ],
)
def test_what_is_no_exporter(answer: bytes, kind: str) -> None:
    with answering(answer) as port:
        assert failure(here(port)).kind == kind


def test_a_compressed_answer_that_is_cut_short() -> None:
    half = gzip.compress(b'{"a": 1}' * 1000)[:-20]
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(half)
    with answering(head + half) as port:
        assert failure(here(port)).kind == "failed"


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"])
def test_a_peer_that_stops_in_the_middle(answer: bytes) -> None:
    with answering(answer, stay=True) as port:
        found = failure(Remote(Address("127.0.0.1", port), timeout_s=0.3))
    assert (found.kind, "0.3 s" in str(found)) == ("timeout", True)


def test_a_peer_that_drips() -> None:
    with answering(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100, drips=True) as port:
        assert failure(Remote(Address("127.0.0.1", port), timeout_s=0.3)).kind == "timeout"


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Authority]]:
    folder = tmp_path_factory.mktemp("web")
    authority = Authority(folder)
    authority.issue("server")
    hashed = bcrypt.hashpw(SECRET.encode(), bcrypt.gensalt(4)).decode()
    (folder / "web.yml").write_text(
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
        "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"
        f"basic_auth_users:\n  alice: '{hashed}'\n"
    )
    with serving(folder / "web.yml") as port:
        yield port, authority


def test_tls_a_clients_certificate_and_a_password(protected: tuple[int, Authority]) -> None:
    port, authority = protected
    pair = authority.issue("client")
    address = Address("localhost", port, tls=True, user="alice")
    trusted = ClientTls(authority.file, pair.cert, pair.key)
    assert Remote(address, password=SECRET, tls=trusted).read("/metrics") == b"up 1\n"
    asked = failure(Remote(Address("localhost", port, tls=True), tls=trusted))
    assert (asked.kind, "--user" in str(asked)) == ("unauthorized", True)
    assert failure(Remote(address, password=f"{SECRET}!", tls=trusted)).kind == "unauthorized"


def test_what_goes_wrong_with_tls(protected: tuple[int, Authority], tmp_path: Path) -> None:
    port, authority = protected
    untrusted = failure(Remote(Address("localhost", port, tls=True)))
    assert (untrusted.kind, "--ca-file" in str(untrusted)) == ("tls", True)
    bare = failure(Remote(Address("localhost", port, tls=True), tls=ClientTls(authority.file)))
    assert (bare.kind, "--cert" in str(bare)) == ("tls", True)
    assert "https://" in str(failure(here(port)))
    with serving() as plain:
        spoken = failure(Remote(Address("127.0.0.1", plain, tls=True)))
    assert (spoken.kind, "http://" in str(spoken)) == ("tls", True)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("node7", Address("node7", 9464)),
        ("node7:80", Address("node7", 80)),
        ("[::1]:9", Address("::1", 9)),
        ("http://a@node7:9464/", Address("node7", 9464, user="a")),
        ("https://node7/tq/", Address("node7", 443, tls=True, path="/tq")),
        ("http://node7", Address("node7", 80)),
    ],
)
def test_urls(text: str, address: Address) -> None:
    assert parse_url(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "ftp://node7", f"http://a:{SECRET}@node7", "http://node7:0", "http://node7:x", "http://node7/?a=1", "a b"],
)
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(ValueError, match="it") as caught:
        parse_url(text)
    assert SECRET not in str(caught.value)


def parsed(*arguments: str) -> argparse.Namespace:
    parser = Parser()
    add_remote_arguments(parser)
    return parser.parse_args(arguments)


def test_the_arguments(tmp_path: Path) -> None:
    assert remote_of(parsed(), {}) is None
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    hashed = bcrypt.hashpw(SECRET.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(f"basic_auth_users:\n  alice: '{hashed}'\n")
    with serving(tmp_path / "web.yml") as port:
        by_file = remote_of(parsed("--url", f"alice@127.0.0.1:{port}", "--password-file", str(file)), {})
        by_variable = remote_of(parsed("--url", f"127.0.0.1:{port}", "--user=alice"), {"TQ_EXPORTER_PASSWORD": SECRET})
        for remote in (by_file, by_variable):
            assert remote is not None
            assert remote.read("/metrics") == b"up 1\n"
            assert str(remote) == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--user", "alice"), "--user"),
        (("--url", f"http://a:{SECRET}@node7"), "--url"),
        (("--url", "node7", "--password-file", "/none"), "--password-file"),
        (("--url", "node7", "--key", "/none"), "--key"),
        (("--url", "node7", "--ca-file", "/none"), "--ca-file"),
    ],
)
def test_arguments_that_cannot_be_used(arguments: tuple[str, ...], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        remote_of(parsed(*arguments), {})
    assert named in str(caught.value)
    assert SECRET not in str(caught.value)
