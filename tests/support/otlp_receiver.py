"""Real OTLP receivers on loopback, one over HTTP and one over gRPC, that keep what they receive."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

__all__ = ["Received", "grpc_receiver", "http_receiver"]

WAIT_S = 30.0

ExportRequest = metrics_service_pb2.ExportMetricsServiceRequest | trace_service_pb2.ExportTraceServiceRequest


class Received:
    """The received protobuf requests. ``url`` is the receiver's base URL."""

    def __init__(self) -> None:
        self.url = ""
        self.metrics: list[metrics_service_pb2.ExportMetricsServiceRequest] = []
        self.traces: list[trace_service_pb2.ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self._changed = threading.Condition()

    def add(self, request: Any, headers: dict[str, str]) -> None:
        with self._changed:
            kept = self.metrics if isinstance(request, metrics_service_pb2.ExportMetricsServiceRequest) else self.traces
            kept.append(request)
            self.headers.append(headers)
            self._changed.notify_all()

    def last_metrics(self) -> metrics_service_pb2.ExportMetricsServiceRequest:
        """Wait for metrics and return the newest."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.metrics, WAIT_S), "no metrics arrived"
            return self.metrics[-1]

    def last_traces(self) -> trace_service_pb2.ExportTraceServiceRequest:
        """Wait for spans and return the newest."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.traces, WAIT_S), "no spans arrived"
            return self.traces[-1]

    def spans(self) -> list[Any]:
        """Return all spans so far."""
        return [
            span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@contextmanager
def http_receiver() -> Iterator[Received]:
    """An OTLP/HTTP receiver. Set ``status`` to make it refuse."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if received.status == 200:
                kinds: dict[str, type[ExportRequest]] = {
                    "/v1/metrics": metrics_service_pb2.ExportMetricsServiceRequest,
                    "/v1/traces": trace_service_pb2.ExportTraceServiceRequest,
                }
                received.add(kinds[self.path].FromString(body), {k.lower(): v for k, v in self.headers.items()})
            self.send_response(received.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    received.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def grpc_receiver() -> Iterator[Received]:
    """An OTLP/gRPC receiver."""
    received = Received()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            received.add(request, dict(context.invocation_metadata()))
            return metrics_service_pb2.ExportMetricsServiceResponse()

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: Any) -> Any:
            received.add(request, dict(context.invocation_metadata()))
            return trace_service_pb2.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    received.url = f"http://127.0.0.1:{port}"
    try:
        yield received
    finally:
        server.stop(grace=None)
