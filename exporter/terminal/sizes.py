"""Numbers of bytes as text."""

from __future__ import annotations

__all__ = ["size_text"]


def size_text(count: int | None) -> str:
    """Return a number of bytes in its largest unit, ``?`` when it is unknown."""
    if count is None:
        return "?"
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
