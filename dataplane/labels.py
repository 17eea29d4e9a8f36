"""How the values of labels and the buckets of lags are bounded, the same for the client and the exporter."""

from __future__ import annotations

from typing import Final

__all__ = ["LAG_BOUNDS", "MAX_PARTITIONS", "MIXED_CONVENTIONS", "OTHER_PARTITION", "label_bytes"]

LAG_BOUNDS: Final = (0.0, 1.0, 2.0, 3.0, 4.0, 8.0, 16.0, 32.0)
"""Upper bounds of a lag histogram, weight versions; up to 8 they are the edges of the attribute ``lag``."""

MAX_PARTITIONS: Final = 100
"""How many partition names become attribute values, unless the exporter is configured otherwise."""

OTHER_PARTITION: Final = "other"
"""The attribute value under which partitions past the limit are summed."""

MIXED_CONVENTIONS: Final = "mixed"
"""The convention of partitions that share a label and differ in it."""


def label_bytes(value: str) -> int:
    """Return how many bytes a label's value takes on a scrape."""
    escaped = sum(map(value.count, ("\\", '"', "\n")))
    return escaped + (len(value) if value.isascii() else len(value.encode("utf-8", "backslashreplace")))
