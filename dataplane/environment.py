"""The environment variables of the instrumentation and of clients of the exporter, which are other programs.

All have variables that begin with ``TQ_EXPORTER_``, and one environment is often given to all programs of a job. So
the exporter, which refuses variables that it does not know, knows this list.
"""

from __future__ import annotations

import os
from typing import Final

__all__ = [
    "CLIENT_VARIABLES",
    "PASSWORD_VARIABLE",
    "PROPAGATE_VARIABLE",
    "PUBLISH_COUNTS_VARIABLE",
    "SPANS_VARIABLE",
    "switch",
]

PROPAGATE_VARIABLE: Final = "TQ_EXPORTER_PROPAGATE"
"""Turns ``propagate`` of the instrumentor on."""

PUBLISH_COUNTS_VARIABLE: Final = "TQ_EXPORTER_PUBLISH_COUNTS"
"""Turns ``publish_counts`` of wrappers on."""

SPANS_VARIABLE: Final = "TQ_EXPORTER_SPANS"
"""Turns spans off, for the instrumentor and for wrappers, where something else makes one for each call already."""

PASSWORD_VARIABLE: Final = "TQ_EXPORTER_PASSWORD"  # noqa: S105 - its name
"""The password of a running exporter, for what reads it over HTTP."""

CLIENT_VARIABLES: Final = frozenset({PASSWORD_VARIABLE, PROPAGATE_VARIABLE, PUBLISH_COUNTS_VARIABLE, SPANS_VARIABLE})
"""All of them."""

_ON: Final = ("1", "true", "yes", "on")
_OFF: Final = ("0", "false", "no", "off")


def switch(variable: str, *, default: bool) -> bool:
    """Return whether *variable* is on. Any other text than a switch, and none, is the *default*: nothing may fail."""
    text = os.environ.get(variable, "").strip().lower()
    return text in _ON if text in (*_ON, *_OFF) else default
