"""What a tag says of its row: the weight version, and the producer's span in W3C Trace Context's text form."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dataplane.tags import TRACEPARENT, to_int

__all__ = ["TRACEPARENT", "contexts_of", "stamp", "tells_version", "traceparent", "versions_of"]

_propagator = TraceContextTextMapPropagator()


_get_version = itemgetter("weight_version")
_get_traceparent = itemgetter(TRACEPARENT)


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
    if type(tag) is not dict and not isinstance(tag, Mapping):
        return None
    return to_int(tag.get("weight_version", tag.get("min_global_steps")))


def contexts_of(tags: Sequence[Any]) -> list[SpanContext | None]:
    """Return the producer's span of each tag, or a single one when all tags agree."""
    try:
        distinct = set(map(_get_traceparent, tags))
    except (KeyError, TypeError):  # the first row without one ends it, as it does in a run that propagates nothing
        with contextlib.suppress(TypeError):
            if not any(TRACEPARENT in tag for tag in tags):
                return [None]
    else:
        if len(distinct) == 1:
            text = distinct.pop()
            return [_parse(text) if type(text) is str else None]
    values = [tag.get(TRACEPARENT) if isinstance(tag, Mapping) else None for tag in tags]
    texts = [value if type(value) is str else None for value in values]
    parsed = {text: None if text is None else _parse(text) for text in set(texts)}
    return list(parsed.values()) if len(parsed) == 1 else [parsed[text] for text in texts]


def _parse(text: str) -> SpanContext | None:
    carried = _propagator.extract({TRACEPARENT: text}, Context())
    context = trace.get_current_span(carried).get_span_context()
    return context if context.is_valid else None


def traceparent(span: trace.Span) -> str:
    """Return *span*, whose context is valid, in W3C Trace Context's text form, as the propagator writes it."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def stamp(tags: object, text: str) -> object:
    """Return copies of *tags* that carry *text* as their ``traceparent``.

    What is neither a dict nor a list of dicts comes back as it is: the client itself refuses it.
    """
    if isinstance(tags, dict):
        return {**tags, TRACEPARENT: text}
    if type(tags) is not list:
        return tags
    carried = {TRACEPARENT: text}
    try:
        return [tag | carried for tag in tags]
    except TypeError:
        return [tag | carried if isinstance(tag, dict) else tag for tag in tags]


def tells_version(tags: object) -> bool:
    """Return whether any of *tags* has a weight version, as its producer's own put has."""
    return any(_tagged_version(tag) is not None for tag in (tags if type(tags) is list else (tags,)))
