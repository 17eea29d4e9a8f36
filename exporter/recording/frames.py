"""A frame: one row of the recording, and how several are merged into a coarser one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from exporter.model.samples import COLUMNS, PLANE_COLUMNS, PLANE_STATES, Row, Slots, sample
from exporter.model.snapshot import Snapshot

__all__ = ["Frame", "decode_frame", "encode_frame", "merge", "reduce"]

Figures = list[float | int | None]
"""A value per column, None where unknown."""


class Frame(msgspec.Struct, array_like=True):
    """A snapshot, reduced to what is drawn.

    Attributes:
        at: Its time, seconds since the epoch.
        step: Seconds that it stands for.
        state: Index of the data plane's state in :data:`~exporter.model.samples.PLANE_STATES`.
        degraded: Whether a part of the data plane did not work.
        plane: A value for each of :data:`~exporter.model.samples.PLANE_COLUMNS`.
        took: Seconds that the last poll of each source took, of the slowest in a merged frame.
        total: All partitions together, None when nothing is known of them.
        trained: Those that train, likewise.
        partitions: Those that have a series and are listed.
    """

    at: float
    step: float
    state: int
    degraded: bool
    plane: Figures
    took: dict[str, float]
    total: Figures | None
    trained: Figures | None
    partitions: dict[str, Figures]


_decoder: Final = msgspec.msgpack.Decoder(Frame)
_LARGEST: Final = (COLUMNS.index("staleness_max"),)
_LARGEST_OF_PLANE: Final = tuple(PLANE_COLUMNS.index(name) for name in ("ping", "fill", "down"))


def reduce(snapshot: Snapshot, slots: Slots, step: float) -> Frame:
    """Reduce *snapshot* to a frame. *slots* decides which partitions have a series."""
    slots.assign(snapshot.partitions)
    seen = sample(snapshot, slots)
    return Frame(
        at=snapshot.taken_at,
        step=step,
        state=PLANE_STATES.index(seen.state),
        degraded=snapshot.degraded,
        plane=[None if value is None else _short(value) for value in seen.plane],
        took={one.source: _short(one.duration) for one in snapshot.sources if one.duration is not None},
        total=_figures(seen.total),
        trained=_figures(seen.trained),
        partitions={name: row for name, figures in seen.partitions.items() if (row := _figures(figures)) is not None},
    )


def encode_frame(frame: Frame) -> bytes:
    """Return *frame* as it is stored."""
    return msgspec.msgpack.encode(frame)


def decode_frame(body: bytes) -> Frame:
    """Return a stored frame; raises msgspec.DecodeError, a ValueError, when it is none."""
    return _decoder.decode(body)


def merge(frames: Sequence[Frame], step: float) -> Frame:
    """Merge consecutive *frames* into one that stands for *step* seconds.

    It is the last one, since counters and gauges are read at the end of the time, with the largest of what is asked
    for its worst: lag, duration of pings and polls, fill and number of the storage units that did not answer. It is
    degraded if one of them was.
    """
    last = frames[-1]
    names = {source for frame in frames for source in frame.took}
    return Frame(
        at=last.at,
        step=step,
        state=last.state,
        degraded=any(frame.degraded for frame in frames),
        plane=_with_largest([frame.plane for frame in frames], _LARGEST_OF_PLANE),
        took={name: max(frame.took.get(name, 0.0) for frame in frames) for name in names},
        total=_merged(frames, lambda frame: frame.total),
        trained=_merged(frames, lambda frame: frame.trained),
        partitions={
            name: _with_largest([row for frame in frames if (row := frame.partitions.get(name))], _LARGEST)
            for name in last.partitions
        },
    )


def _merged(frames: Iterable[Frame], pick: Callable[[Frame], Figures | None]) -> Figures | None:
    rows = [pick(frame) for frame in frames]
    return None if rows[-1] is None else _with_largest([row for row in rows if row is not None], _LARGEST)


def _with_largest(rows: Sequence[Figures], columns: Iterable[int]) -> Figures:
    """Return the last row, with the largest known value of each of *columns*."""
    merged = list(rows[-1])
    for column in columns:
        merged[column] = max((value for row in rows if (value := row[column]) is not None), default=None)
    return merged


def _figures(row: Row) -> Figures | None:
    figures = [None if math.isnan(value) else _short(value) for value in row]
    return figures if any(value is not None for value in figures) else None


def _short(value: float) -> float | int:
    """Return a value in fewer bytes: whole numbers as integers, others with six decimals."""
    return int(value) if float(value).is_integer() else round(value, 6)
