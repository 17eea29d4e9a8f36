"""What a tag says of its row: the weight version, and the producer's span in W3C Trace Context's text form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dataplane.tags import to_int

__all__ = ["TRACEPARENT", "contexts_of", "stamp", "traceparent", "versions_of"]

TRACEPARENT: Final = "traceparent"
"""The tag that carries a producer's span across the queue, in W3C Trace Context's text form."""

_propagator = TraceContextTextMapPropagator()


_get_version = itemgetter("weight_version")


def versions_of(tags: Sequence[Any]) -> list[int | None]:
    """Return the weight version of each tag, or a single one when all tags agree."""
    try:
        distinct = set(map(_get_version, tags))
    except (KeyError, TypeError):
        return [_tagged_version(tag) for tag in tags]
    if len(distinct) == 1:
        return [to_int(distinct.pop())]
    return [to_int(tag["weight_version"]) for tag in tags]


def _tagged_version(tag: Any) -> int | None:
    """Return the version as the tag conventions define it: NeMo RL's tag, else the oldest step of a verl trajectory."""
    if not isinstance(tag, Mapping):
        return None
    return to_int(tag.get("weight_version", tag.get("min_global_steps")))


def contexts_of(tags: Sequence[Any]) -> list[SpanContext | None]:
    """Return the producer's span of each tag, or a single one when all tags agree."""
    values = [tag.get(TRACEPARENT) if isinstance(tag, Mapping) else None for tag in tags]
    texts = [value if type(value) is str else None for value in values]
    parsed = {text: None if text is None else _parse(text) for text in set(texts)}
    return list(parsed.values()) if len(parsed) == 1 else [parsed[text] for text in texts]


def _parse(text: str) -> SpanContext | None:
    carried = _propagator.extract({TRACEPARENT: text}, Context())
    context = trace.get_current_span(carried).get_span_context()
    return context if context.is_valid else None


def traceparent(span: trace.Span) -> str:
    """Return *span*, whose context is valid, in W3C Trace Context's text form."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, trace.set_span_in_context(span, Context()))
    return carrier[TRACEPARENT]


def stamp(tags: object, n_keys: int, text: str) -> object:
    """Return copies of *tags* that carry *text* as their ``traceparent``; *n_keys* new tags where there are none.

    What is neither a dict nor a list of dicts comes back as it is: the client itself refuses it.
    """
    if tags is None and n_keys:
        return [{TRACEPARENT: text} for _ in range(n_keys)]
    if isinstance(tags, dict):
        return {**tags, TRACEPARENT: text}
    if type(tags) is not list:
        return tags
    return [{**tag, TRACEPARENT: text} if isinstance(tag, dict) else tag for tag in tags]
