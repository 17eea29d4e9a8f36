"""Abusive clients of the real exporter, over HTTP and over TLS: none stops a scrape or makes the exporter grow."""

from __future__ import annotations

import base64
import http.client
import re
import resource
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import bcrypt
import pytest

from exporter import health
from exporter.web import MAX_CONNECTIONS
from exporter.web.protocol import MAX_HEAD_BYTES
from tests.support.certificates import Authority
from tests.support.exporter_process import ExporterProcess
from tests.support.waiting import wait_until

NOWHERE = ("--controller", "tcp://127.0.0.1:1")
OTHER_ADDRESS = "127.0.0.2"
SECRET = "value-of-the-environment"


class Target:
    """A running exporter and ways to connect to it."""

    def __init__(self, exporter: ExporterProcess, context: ssl.SSLContext | None, headers: dict[str, str]) -> None:
        self.exporter = exporter
        self.context = context
        self.headers = headers
        host, _, port = exporter.url.partition("//")[2].partition(":")
        self.address = (host, int(port))

    def get(self, path: str = "/metrics", method: str = "GET", source: str | None = None) -> tuple[int, bytes]:
        at = (source, 0) if source else None
        connection = (
            http.client.HTTPSConnection(*self.address, timeout=60, context=self.context, source_address=at)
            if self.context
            else http.client.HTTPConnection(*self.address, timeout=60, source_address=at)
        )
        try:
            connection.request(method, path, headers=self.headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def scrape_works(self, source: str | None = None) -> None:
        status, body = self.get(source=source)
        assert status == 200
        assert b"dataplane_up 0" in body

    def connect(self, stack: ExitStack) -> socket.socket:
        """Open a TCP connection, without a TLS handshake."""
        return stack.enter_context(socket.create_connection(self.address, timeout=30))

    def open(self, stack: ExitStack) -> socket.socket:
        connection = self.connect(stack)
        return stack.enter_context(self.context.wrap_socket(connection)) if self.context else connection

    def send(self, data: bytes) -> bytes:
        with ExitStack() as stack:
            connection = self.open(stack)
            answer = b""
            for start in range(0, len(data), 16384):
                # The server may have answered and closed before reading everything; sending more could break reading
                # the answer.
                if answer := _at_hand(connection):
                    break
                try:
                    connection.sendall(data[start : start + 16384])
                except (ConnectionError, ssl.SSLError):
                    break
            while not _is_whole(answer) and (chunk := connection.recv(65536)):
                answer += chunk
            return answer

    def threads(self) -> int:
        return self.exporter.process.num_threads()


def _is_whole(answer: bytes) -> bool:
    head, ends, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return bool(ends) and length is not None and len(body) >= int(length[1])


def _at_hand(connection: socket.socket) -> bytes:
    """Return what has arrived, without waiting."""
    connection.setblocking(False)
    try:
        return connection.recv(65536)
    except (BlockingIOError, ssl.SSLWantReadError):
        return b""
    finally:
        connection.settimeout(30)


@pytest.fixture(scope="module", params=["http", "https"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    env = {"A_VARIABLE_OF_OURS": SECRET}
    if request.param == "http":
        with ExporterProcess(*NOWHERE, env=env) as exporter:
            yield Target(exporter, None, {})
        return
    folder = tmp_path_factory.mktemp("web")
    pair = Authority(folder).issue("server")
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    file = folder / "web.yml"
    file.write_text(
        f"tls_server_config: {{cert_file: {pair.cert}, key_file: {pair.key}}}\n"
        f"basic_auth_users: {{alice: '{hashed}'}}\n"
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    headers = {"Authorization": "Basic " + base64.b64encode(b"alice:secret").decode()}
    with ExporterProcess(*NOWHERE, "--web.config.file", str(file), env=env) as exporter:
        yield Target(exporter, context, headers)


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else 8192, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_1500_idle_connections_stop_no_scrape(target: Target, many_files: None) -> None:
    before = target.exporter.process.memory_info().rss
    with ExitStack() as stack:
        for count in range(1500):
            target.connect(stack)
            if count % 250 == 249:
                target.scrape_works()
        target.scrape_works(OTHER_ADDRESS)
        assert target.threads() < 20
        assert target.exporter.process.num_fds() < 2 * MAX_CONNECTIONS
    assert target.exporter.process.memory_info().rss - before < 40e6


def test_slow_requests_stop_no_scrape_and_are_ended(target: Target) -> None:
    with ExitStack() as stack:
        slow = [target.open(stack) for _ in range(MAX_CONNECTIONS - 8)]
        for connection in slow:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        for _ in range(5):
            for connection in slow:
                connection.sendall(b"x")
            target.scrape_works()
        if target.context is None:
            return
        # A byte now and then must not keep a connection open for ever.
        wait_until(lambda: was_ended(slow[-1]), "a slow request is ended")
        target.scrape_works()


def was_ended(connection: socket.socket) -> bool:
    connection.settimeout(0.2)
    try:
        connection.sendall(b"x")
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_a_flood_from_one_address_leaves_another_alone(target: Target) -> None:
    with ExitStack() as stack:
        patient = stack.enter_context(
            socket.create_connection(target.address, timeout=30, source_address=(OTHER_ADDRESS, 0))
        )
        if target.context:
            patient = stack.enter_context(target.context.wrap_socket(patient))
        patient.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        for _ in range(MAX_CONNECTIONS + 40):
            target.connect(stack)
        credentials = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
        patient.sendall(f"{credentials}\r\n".encode())
        assert patient.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_clients_that_do_not_read_stop_no_scrape(target: Target) -> None:
    credentials = "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
    with ExitStack() as stack:
        for _ in range(MAX_CONNECTIONS + 4):
            connection = target.open(stack)
            connection.sendall(f"GET /metrics HTTP/1.1\r\nHost: localhost\r\n{credentials}\r\n".encode())
        target.scrape_works()


def test_many_scrapes_at_once_all_get_their_answer(target: Target) -> None:
    wait_until(lambda: target.threads() < 20, "the connections of the tests before are gone")
    count = 100
    assert count < MAX_CONNECTIONS  # more would evict each other
    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: target.get(), range(count)))
    assert [status for status, _ in answers] == [200] * count
    assert all(b"dataplane_up 0" in body for _, body in answers)


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"X-Much: " + b"y" * 2 * MAX_HEAD_BYTES + b"\r\n\r\n", b"431"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"X-Much: yyyyyyyyyyyyyyyyyyyyy\r\n" * 2000 + b"\r\n", b"431"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + b"x: y\r\n" * 300 + b"\r\n", b"431"),
        (b"GET /" + b"a" * 2 * MAX_HEAD_BYTES + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"a" * 1_000_000, b"414"),
        (b"GET /metrics HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /metrics HTTP/x\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\n\n", b"400"),
        (b"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n" + b"z" * 200_000, b"405|401"),
    ],
    ids=["one long", "long", "many", "line", "endless", "version", "no version", "binary", "body"],
)
def test_what_is_too_much_gets_a_short_answer_that_tells_nothing(
    target: Target, request_head: bytes, status: bytes
) -> None:
    answer = target.send(request_head)
    assert answer[:9] == b"HTTP/1.1 "
    assert answer[9:12] in status.split(b"|")
    assert len(answer) < 500
    for secret in (SECRET, "A_VARIABLE_OF_OURS", "Traceback", "File ", ".py", "Python"):
        assert secret.encode() not in answer
    target.scrape_works()


def test_no_request_grows_the_process(target: Target) -> None:
    for _ in range(3):
        target.send(b"a" * 1_000_000)
    before = target.exporter.process.memory_info().rss
    for _ in range(40):
        target.send(b"a" * 1_000_000)
    assert target.exporter.process.memory_info().rss - before < 20e6


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"])
def test_only_reading_is_possible(target: Target, method: str) -> None:
    assert target.get(method=method) == (405, b"Method Not Allowed\n")


def test_wrong_passwords_do_not_stop_those_with_the_right_one(target: Target) -> None:
    if target.context is None:  # no password is required, so a wrong one does not matter
        target.headers["Authorization"] = "Basic eHh4Onl5eQ=="
        target.scrape_works()
        return
    target.scrape_works()
    wrong = Target(target.exporter, target.context, {"Authorization": "Basic " + base64.b64encode(b"alice:x").decode()})
    with ThreadPoolExecutor(40) as pool:
        attack = [pool.submit(wrong.get) for _ in range(120)]
        for _ in range(5):
            target.scrape_works(OTHER_ADDRESS)
        statuses = {one.result()[0] for one in attack}
    assert statuses <= {401, 503}
    assert 401 in statuses


def test_a_lack_of_file_descriptors_costs_those_that_ask_nothing(target: Target) -> None:
    wait_until(lambda: target.threads() < 20, "the connections of the tests before are gone")
    process = target.exporter.process
    before = process.rlimit(resource.RLIMIT_NOFILE)
    process.rlimit(resource.RLIMIT_NOFILE, (process.num_fds() + 8, before[1]))
    try:
        with ExitStack() as stack:
            for _ in range(40):
                target.connect(stack)
            for _, check in health._connect_all():
                stack.enter_context(check)
            target.scrape_works()
            assert "cannot accept a connection: Too many open files" in target.exporter.log
    finally:
        process.rlimit(resource.RLIMIT_NOFILE, before)
    target.scrape_works()


def test_wrong_passwords_are_counted_and_said_once(target: Target) -> None:
    def refused() -> float:
        found = re.search(rb"\ntq_exporter_http_refused_logins_total (\S+)", target.get()[1])
        assert found
        return float(found[1])

    before = refused()
    wrong = Target(target.exporter, target.context, {"Authorization": "Basic " + base64.b64encode(b"eve:x").decode()})
    nobody = Target(target.exporter, target.context, {})
    statuses = [one.get()[0] for one in (wrong, wrong, wrong, nobody)]
    if target.context is None:  # nobody is asked
        assert (statuses, refused()) == ([200] * 4, 0)
        return
    assert statuses == [401] * 4
    assert refused() == before + 3  # whoever gives no password is asked for one, not refused
    said = [line for line in target.exporter.log.splitlines() if "refused a login" in line]
    assert len(said) == 1  # also after all the wrong passwords of the tests before
    assert said[0].endswith("exporter.web.access: refused a login of 127.0.0.1: wrong user name or password")


def test_afterwards_nothing_is_left(target: Target) -> None:
    wait_until(lambda: target.threads() < 20, "the threads of this file's connections are gone")
    assert "Traceback" not in target.exporter.log
    assert " ERROR " not in target.exporter.log
    assert "asyncio" not in target.exporter.log
    assert "uvicorn" not in target.exporter.log


def test_it_ends_soon_whoever_is_connected(target: Target) -> None:
    # The wait is shorter than the time after which a connection that asks nothing is closed anyhow.
    with ExitStack() as stack:
        for _ in range(20):
            target.connect(stack)
        for _ in range(20):
            target.open(stack).sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert target.exporter.stop(timeout_s=5.0) == 0
    assert "Traceback" not in target.exporter.log
    assert " ERROR " not in target.exporter.log
