"""Where some keys came from: the weight version and the producer's span."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from opentelemetry.trace import SpanContext

__all__ = ["BLANK", "MAX_LINKS", "Origin", "linkable", "origins_of"]

MAX_LINKS: Final = 32
"""How many distinct producers one span links to."""


class Origin:
    """Where some keys came from; one object per batch and version, compared by identity.

    Attributes:
        version: The weight version, None when unknown.
        context: The producer's span, None when unknown.
        seen: The trainer's version when the keys were last read, claimed or listed here, None before.
    """

    __slots__ = ("context", "seen", "version")

    def __init__(self, version: int | None, context: SpanContext | None, seen: int | None = None) -> None:
        self.version = version
        self.context = context
        self.seen = seen

    @property
    def blank(self) -> bool:
        """Whether neither is known: its keys count as unknown."""
        return self.version is None and self.context is None

    def over(self, before: Origin) -> Origin:
        """Return this newer origin, with what it does not tell taken from *before*.

        A put without a version adds fields to rows of another producer, so it tells nothing new of what is known.
        """
        if self.blank or (self.version is None and not before.blank and self.seen is None):
            return before
        version = before.version if self.version is None else self.version
        if version != before.version:  # another row under the same key
            return Origin(version, self.context, self.seen)
        if self.context is None and self.seen is None:
            return before
        return Origin(version, self.context or before.context, before.seen if self.seen is None else self.seen)


BLANK: Final = Origin(None, None)
"""That of keys which were seen and of which nothing is known."""


def origins_of(
    versions: Sequence[int | None], contexts: Sequence[SpanContext | None], seen: int | None
) -> list[Origin]:
    """Return the origins with these *versions* and *contexts*, equal ones as one object: one for all keys, or each."""
    if len(versions) == 1 and len(contexts) == 1:
        return [Origin(versions[0], contexts[0], seen)]
    size = max(len(versions), len(contexts))
    pairs = zip(
        versions if len(versions) == size else list(versions) * size,
        contexts if len(contexts) == size else list(contexts) * size,
        strict=True,
    )
    shared: dict[tuple[int | None, int], Origin] = {}  # a SpanContext cannot be hashed
    origins = []
    for version, context in pairs:
        origin = shared.get((version, id(context)))
        if origin is None:
            origin = shared[version, id(context)] = Origin(version, context, seen)
        origins.append(origin)
    return origins


def linkable(origins: Iterable[Origin]) -> list[SpanContext]:
    """Return the distinct producers' spans that were recorded: a link to any other leads nowhere."""
    spans: dict[tuple[int, int], SpanContext] = {}
    for origin in origins:
        context = origin.context
        if context is not None and context.trace_flags.sampled:
            spans[context.trace_id, context.span_id] = context
            if len(spans) == MAX_LINKS:
                break
    return list(spans.values())
