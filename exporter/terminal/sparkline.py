"""A column of the history as a row of small bars."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

__all__ = ["growth", "sparkline"]

_BARS: Final = "▁▂▃▄▅▆▇█"
_PLAIN_BARS: Final = "_.:-=+*#"


def sparkline(values: Sequence[float | None], width: int, *, ascii_only: bool = False) -> str:
    """Return the last values as *width* bars at most, from 0 to the largest; a space where nothing is known.

    Args:
        values: The values, oldest first. More of them than *width* share a bar, which shows the largest.
        width: Bars at most.
        ascii_only: Draw with characters that every terminal has.
    """
    bars = _PLAIN_BARS if ascii_only else _BARS
    if not values or width < 1:
        return ""
    per_bar = -(-len(values) // width)
    first = len(values) % per_bar or per_bar
    starts = [0, *range(first, len(values), per_bar)]
    shares = [values[start:end] for start, end in zip(starts, [*starts[1:], len(values)], strict=True)]
    heights = [max((one for one in share if one is not None), default=None) for share in shares]
    top = max((one for one in heights if one is not None), default=0) or 1
    return "".join(
        " " if one is None else bars[min(int(max(one, 0) / top * len(bars)), len(bars) - 1)] for one in heights
    )


def growth(values: Sequence[float | None]) -> list[float | None]:
    """Return by how much a counter grew from each sample to the next; None where one of them is unknown."""
    return [
        None if before is None or after is None else max(after - before, 0.0)
        for before, after in itertools.pairwise(values)
    ]
