"""Which traces are pushed: all of a notable poll's, none of another's; and what a real receiver gets."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NoOpTracer, Tracer, set_span_in_context

from exporter.catalogue.spans import NOTABLE, POLL
from exporter.config import Config, Otlp, Traces
from exporter.config.model import PollTraces
from exporter.telemetry.notable import NotableTraces
from tests.support.otlp_receiver import http_receiver
from tests.telemetry.support import telemetry


def poll(tracer: Tracer, name: str, *, notable: bool, calls: int = 2) -> None:
    with tracer.start_as_current_span(POLL, attributes={"name": name}) as root:
        for number in range(calls):
            tracer.start_span(f"{name} {number}").end()
        if notable:
            root.set_attribute(NOTABLE, "failed")


@pytest.mark.parametrize(
    ("polls", "expected"),
    [("all", {POLL, "a 0", "a 1", "b 0", "b 1"}), ("notable", {POLL, "b 0", "b 1"}), ("none", None)],
)
def test_a_receiver_gets_the_chosen_polls(polls: PollTraces, expected: set[str] | None) -> None:
    with http_receiver() as receiver:
        otlp = Otlp(endpoint=receiver.url, interval=3600.0)
        with telemetry(Config(otlp=otlp, traces=Traces(polls))) as built:
            poll(built.tracer, "a", notable=False)
            poll(built.tracer, "b", notable=True)
            assert isinstance(built.tracer, NoOpTracer) == (expected is None)
            assert ('signal="traces"' in built.scrape(None)[0].decode()) == (expected is not None)
        receiver.last_metrics()
        names = {
            span.name
            for request in receiver.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        }
    assert names == (expected or set())


def test_what_waits_for_the_end_of_its_poll_is_bounded() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    kept = NotableTraces(SimpleSpanProcessor(exporter))
    provider.add_span_processor(kept)
    tracer = provider.get_tracer("test")
    poll(tracer, "long", notable=True, calls=3000)
    assert len(exporter.get_finished_spans()) == 2048 + 1
    roots = [tracer.start_span(POLL) for _ in range(100)]  # their polls never end
    for root in roots:
        tracer.start_span("call", set_span_in_context(root)).end()
    assert len(kept._waiting) == 64
    poll(tracer, "dull", notable=False)
    assert len(kept._waiting) <= 64
