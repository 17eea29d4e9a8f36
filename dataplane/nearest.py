"""Did you mean …? For every name that a user can get wrong: keys, variables, flags, thresholds."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["choices", "did_you_mean"]


def did_you_mean(name: str, known: Iterable[str], where: str) -> str:
    """Return the remedy for the unknown *name*: the nearest of the *known* ones, and *where* to find them all."""
    nearest, close = _nearest(name, known)
    return f"did you mean {nearest}?" if close else f"the nearest is {nearest}, {where} has them all"


def choices(name: str, known: Iterable[str]) -> str:
    """Return the remedy for the unknown *name* of a few *known* ones: all of them, and the one that was meant."""
    all_of_them = list(known)
    nearest, close = _nearest(name, all_of_them)
    return f"it is one of {', '.join(all_of_them)}" + (f"; did you mean {nearest}?" if close else "")


def _nearest(name: str, known: Iterable[str]) -> tuple[str, bool]:
    """Return the name that resembles *name* most, and whether that is close enough to have been meant."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)[0]
    return nearest, difflib.SequenceMatcher(None, name, nearest).ratio() >= 0.6
