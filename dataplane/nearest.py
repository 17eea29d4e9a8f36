"""Did you mean …? For every name that a user can get wrong: keys, variables, flags, thresholds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean"]


def did_you_mean(name: str, known: Iterable[str], where: str) -> str:
    """Return the remedy for the unknown *name*: the nearest of the *known* ones, and *where* to find them all."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
    close = difflib.SequenceMatcher(None, name, nearest).ratio() >= 0.6
    return f"did you mean {nearest}?" if close else f"the nearest is {nearest}, {where} has them all"
