"""The source ``tq_metrics``: TransferQueue's page, what it means, and a server that misbehaves."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import NoOpTracer

from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneError,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
)
from exporter.config import Config
from exporter.model.histogram import Histogram
from exporter.model.results import Failed, Ok
from exporter.model.state import State
from exporter.model.tasks import REQUEST_BOUNDS, ControllerRequests, ControllerState, OwnMetrics, TaskState
from exporter.polling.http_page import MAX_BYTES
from exporter.polling.sources.tq_metrics import TqMetricsSource
from exporter.polling.tq_endpoint import TqMetricsReader, parse
from tests.support.clock import StoppedClock
from tests.support.recording import RecordingRecorder

BUCKETS = "".join(
    f'tq_controller_request_duration_seconds_bucket{{le="{bound}",op_type="GET_META"}} {min(index, 3)}.0\n'
    for index, bound in enumerate((*REQUEST_BOUNDS, "+Inf"))
)
PAGE = f"""\
# HELP tq_controller_request_duration_seconds Controller request processing duration
# TYPE tq_controller_request_duration_seconds histogram
{BUCKETS}tq_controller_request_duration_seconds_count{{op_type="GET_META"}} 3.0
tq_controller_request_duration_seconds_sum{{op_type="GET_META"}} 0.5
# TYPE tq_controller_request_total counter
tq_controller_request_total{{op_type="GET_META"}} 3.0
tq_controller_request_total{{op_type="NEW"}} 1.0
tq_controller_request_total{{op_type="NEWER"}} 1.0
# TYPE tq_controller_request_errors_total counter
tq_controller_request_errors_total{{op_type="GET_META"}} 1.0
tq_controller_uptime_seconds 12.5
tq_controller_memory_rss_bytes 3.5e+08
# TYPE tq_partition_samples_total gauge
tq_partition_samples_total{{partition_id="stream"}} 200.0
tq_partition_samples_total{{partition_id="empty"}} 0.0
tq_partition_samples_total{{partition_id="odd \\"name\\"\\n\u2028"}} 1.0
tq_partition_production_progress{{partition_id="stream",task_name="all"}} 1.0
tq_partition_production_progress{{partition_id="stream",task_name="train"}} 1.0
tq_partition_production_progress{{partition_id="empty",task_name="all"}} 0.0
tq_partition_consumption_progress{{partition_id="stream",task_name="train"}} 0.25
tq_partition_consumption_progress{{partition_id="stream",task_name="ref"}} NaN
tq_storage_active_keys_total{{storage_unit_id="u"}} 3.0
"""


def test_what_the_page_shows() -> None:
    steps = (0, 1, 1, 1, *([0] * 7))
    assert parse(PAGE.encode()) == OwnMetrics(
        {"stream": 200, "empty": 0, 'odd "name"\n\u2028': 1},
        [TaskState("stream", "all", None, 1.0), TaskState("stream", "train", 0.25, 1.0)],
        ControllerState(
            350_000_000,
            (
                ControllerRequests("GET_META", 3, 1, Histogram(REQUEST_BOUNDS, steps, 0.5)),
                ControllerRequests("other", 2),
            ),
        ),
        12.5,
    )


def test_a_histogram_with_other_buckets_is_unknown() -> None:
    page = PAGE.replace('le="5.0"', 'le="6.0"')
    assert [one.duration for one in parse(page.encode()).controller.requests] == [None, None]


@pytest.mark.parametrize(
    "page", ["", "<html></html>\n", "tq_storage_active_keys_total 3\n", "tq_controller_uptime_seconds"]
)
def test_a_page_of_something_else_is_refused(page: str) -> None:
    with pytest.raises(DataPlaneReadError):
        parse(page.encode())


@given(st.binary(max_size=60), st.integers(0, len(PAGE)))
def test_any_page_is_figures_or_a_read_error(noise: bytes, position: int) -> None:
    page = bytearray(PAGE.encode())
    page[position : position + len(noise)] = noise
    for candidate in (noise, bytes(page)):
        try:
            parse(candidate)
        except DataPlaneReadError:
            continue


class Server:
    """A TCP server that answers each connection with a function of its socket."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[bytes] = []
        self._answer = answer
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer:
                self.requests.append(peer.recv(65536))
                try:
                    self._answer(peer)
                except OSError:
                    continue

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed before
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def page(body: bytes, status: str = "200 OK", length: int | None = None) -> Callable[[socket.socket], None]:
    head = f"HTTP/1.0 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode()
    return lambda peer: peer.sendall(head + body)


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket], None]], Server]]:
    servers: list[Server] = []

    def start(answer: Callable[[socket.socket], None]) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


Serve = Callable[[Callable[[socket.socket], None]], Server]


def test_the_page_is_read_without_a_proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server = serve(page(PAGE.encode()))
    assert TqMetricsReader(server.endpoint, timeout_s=5.0).read() == parse(PAGE.encode())
    assert server.requests[0].startswith(b"GET /metrics HTTP/1.1\r\n")


def drip(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    while True:
        peer.sendall(b"#")
        time.sleep(0.05)


def drip_headers(peer: socket.socket) -> None:
    peer.sendall(b"HTTP/1.0 200 OK\r\nX: ")
    while True:
        peer.sendall(b"x")
        time.sleep(0.05)


@pytest.mark.parametrize(
    "answer", [drip, drip_headers, lambda peer: time.sleep(1.0)], ids=["body", "headers", "silent"]
)
def test_a_reading_ends_at_its_deadline(serve: Serve, answer: Callable[[socket.socket], None]) -> None:
    with pytest.raises(DataPlaneTimeout, match=r"did not answer within 0\.3 s") as caught:
        TqMetricsReader(serve(answer).endpoint, timeout_s=0.3).read()
    assert caught.value.operation == "tq_metrics"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (page(b"no", "404 Not Found"), "answered 404"),
        (page(b"", "302 Found"), "answered 302"),
        (page(b"#" * MAX_BYTES + b"\n"), f"more than {MAX_BYTES} bytes"),
        (page(PAGE.encode(), length=len(PAGE) + 100), "cut short"),
        (page(PAGE.encode()[:-5]), "cut short"),
        (lambda peer: peer.sendall(b"nonsense\r\n\r\n"), "cannot be read"),
    ],
    ids=["404", "redirect", "too large", "too short", "half a line", "not HTTP"],
)
def test_what_is_no_page_is_a_read_error(serve: Serve, answer: Callable[[socket.socket], None], said: str) -> None:
    with pytest.raises(DataPlaneReadError, match=said):
        TqMetricsReader(serve(answer).endpoint, timeout_s=5.0).read()


@pytest.mark.parametrize("endpoint", ["", "nowhere", "host:", "host:0", "host:99999", "host:1\n", "host:²"])
def test_an_endpoint_that_is_no_address_is_a_bad_request(endpoint: str) -> None:
    with pytest.raises(DataPlaneBadRequest):
        TqMetricsReader(endpoint, timeout_s=1.0).read()


def test_nothing_listens_there(serve: Serve) -> None:
    server = serve(lambda peer: None)
    reader = TqMetricsReader(server.endpoint, timeout_s=5.0)
    with pytest.raises(DataPlaneUnavailable):  # the connection ends without an answer
        reader.read()
    server.close()
    with pytest.raises(DataPlaneUnavailable, match="are gone"):
        reader.read()


def test_closing_ends_a_reading_in_flight(serve: Serve) -> None:
    asked = threading.Event()

    def wait(peer: socket.socket) -> None:
        asked.set()
        peer.recv(1)

    reader = TqMetricsReader(serve(wait).endpoint, timeout_s=60.0)

    def close() -> None:
        assert asked.wait(10)
        reader.close()

    threading.Thread(target=close, daemon=True).start()
    with pytest.raises(DataPlaneError):
        reader.read()
    with pytest.raises(DataPlaneUnavailable, match="closed"):
        reader.read()


class Scripted:
    """Answers from memory."""

    def __init__(self) -> None:
        self.own = OwnMetrics({"a": 3}, (TaskState("a", "train", 0.5),), ControllerState(5), 1.0)
        self.failure: Exception | None = None

    def read(self) -> OwnMetrics:
        if self.failure is not None:
            raise self.failure
        return self.own


class Fixture:
    def __init__(self) -> None:
        self.clock = StoppedClock()
        self.recorder = RecordingRecorder()
        self.reader = Scripted()
        self.state = State(self.recorder, self.clock, max_partitions=100, max_versions=16)
        self.state.lifecycle.discovery = "found"
        self.source = TqMetricsSource(self.reader, Config(), tracer=NoOpTracer(), clock=self.clock)
        self.state.health.schedule("tq_metrics", self.source.interval_s, awaited=self.source.awaited)

    def poll(self) -> Ok[OwnMetrics] | Failed:
        result = self.source.poll()
        self.source.fold(result, self.state)
        return result


@pytest.fixture
def on() -> Fixture:
    return Fixture()


def test_a_reading_is_in_the_snapshot(on: Fixture) -> None:
    on.poll()
    seen = on.state.snapshot()
    assert [(one.partition, one.samples, one.task) for one in seen.samples] == [("a", 3, "train")]
    assert seen.tasks == (TaskState("a", "train", 0.5),)
    assert seen.controller == ControllerState(5)


def test_figures_are_kept_for_three_intervals_of_failures_and_then_dropped(on: Fixture) -> None:
    on.poll()
    on.reader.failure = DataPlaneUnavailable("refused", operation="tq_metrics")
    for _ in range(3):
        on.clock.advance(15.0)
        on.poll()
    assert on.state.snapshot().samples
    on.clock.advance(1.0)
    seen = on.state.snapshot()
    assert (seen.samples, seen.tasks, seen.controller) == ((), (), None)
    assert on.recorder.errors == {("tq_metrics", "DataPlaneUnavailable"): 3}
    assert next(one for one in seen.sources if one.source == "tq_metrics").reason == "stale"


@pytest.mark.parametrize("end", ["switch", "begin_generation"])
def test_figures_of_another_controller_are_forgotten(on: Fixture, end: str) -> None:
    on.poll()
    getattr(on.state, end)()
    seen = on.state.snapshot()
    assert (seen.samples, seen.tasks, seen.controller) == ((), (), None)


def test_metrics_that_are_served_but_not_refreshed_are_a_timeout(on: Fixture) -> None:
    on.poll()
    on.clock.advance(119.0)
    assert isinstance(on.poll(), Ok)
    on.clock.advance(2.0)
    result = on.poll()
    assert isinstance(result, Failed)
    assert (result.error_type, result.detail) == (
        "DataPlaneTimeout",
        "TransferQueue has not refreshed its metrics for 121 s",
    )
    on.reader.own = OwnMetrics({}, (), ControllerState(), 2.0)
    assert isinstance(on.poll(), Ok)


def test_tasks_that_are_left_out_are_said(on: Fixture) -> None:
    on.reader.own = OwnMetrics({"a": 1}, [TaskState("a", f"t{n}", 0.5) for n in range(18)], ControllerState(), 1.0)
    on.poll()
    seen = on.state.snapshot()
    assert len(seen.tasks) == 16
    assert next(one for one in seen.sources if one.source == "tq_metrics").detail == "2 tasks are left out"


def test_it_is_disabled_without_an_endpoint_and_readiness_does_not_wait_for_it() -> None:
    state = State(RecordingRecorder(), StoppedClock(), max_partitions=1, max_versions=1)
    disabled = next(one for one in state.snapshot().sources if one.source == "tq_metrics")
    assert (disabled.reason, disabled.up) == ("disabled", None)
    assert not TqMetricsSource.awaited
