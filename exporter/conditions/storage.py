"""Conditions of the storage units: whether they answer, and how full they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from exporter.conditions.base import CLEAR, Finding, Scene, Verdict, any_of, rule
from exporter.conditions.words import clock, count, percent, span
from exporter.model.storage import StorageState

__all__ = [
    "full",
    "full_repeatedly",
    "allocations_failing",
    "evicting",
    "full_soon",
    "leaking",
    "near_capacity",
    "unit_flapping",
    "unit_lost",
    "unit_silent",
]

_TREND_S: Final = 1800.0
_RECENT_S: Final = 600.0
_LEAK_S: Final = 1200.0
"""The times over which the alerts of the same names look: half an hour, and three times a third of an hour."""


@rule(
    "DataPlaneStorageUnitLost",
    "queue",
    "critical",
    remedy="Restart the job from its checkpoint: the unit's rows are lost, and it is not replaced.",
)
def unit_lost(scene: Scene) -> Verdict:
    """A storage unit is gone, though the controller answers."""
    return _down(scene, lambda unit: unit.error_type == "DataPlaneUnavailable", "gone")


@rule(
    "DataPlaneStorageUnitSilent",
    "queue",
    "warning",
    degrades=True,
    remedy="If it writes a checkpoint, wait. Otherwise check whether it is stopped or out of memory.",
)
def unit_silent(scene: Scene) -> Verdict:
    """A storage unit does not answer and is not gone."""
    return _down(scene, lambda unit: unit.error_type not in (None, "DataPlaneUnavailable"), "busy or stopped")


@rule(
    "DataPlaneStorageFull",
    "queue",
    "critical",
    remedy="Clear keys that are consumed, or slow down generation: puts fail until there is room.",
)
def full(scene: Scene) -> Verdict:
    """A storage unit has no room left."""
    return _filled(scene, lambda fill: fill >= 1, "puts fail")


@rule(
    "DataPlaneNearCapacity",
    "queue",
    "warning",
    remedy="Compare arrivals and departures: if departures are slower, slow down generation.",
)
def near_capacity(scene: Scene) -> Verdict:
    """A storage unit is nearly full."""
    above = scene.limit("storage_used_ratio")
    return _filled(scene, lambda fill: above < fill < 1, "when it is full, puts fail")


@rule(
    "DataPlaneFullSoon",
    "queue",
    "warning",
    remedy="Find out when arrivals began to exceed departures. If the trainer only pauses, wait.",
)
def full_soon(scene: Scene) -> Verdict:
    """The fullest storage unit will soon be full if it grows as in the last 30 minutes."""
    fill = max(_fills(scene), default=None)
    if fill is None:
        return None if _units(scene) is None else CLEAR
    slope = scene.past.slope("fill", _TREND_S)
    if slope is None:
        return None
    if fill >= 1 or fill <= scene.limit("storage_full_above_ratio") or slope <= 0:
        return CLEAR
    left = (1 - fill) / slope
    if left >= scene.limit("storage_full_in_seconds"):
        return CLEAR
    return Finding(
        f"storage is {percent(fill)} full, and will be full in {span(left)} if it grows as in the last 30 min",
        {"used_ratio": fill, "full_in_seconds": left},
    )


@rule(
    "DataPlaneStorageUnitFlapping",
    "queue",
    "warning",
    remedy="Check whether the unit's node swaps, or whether the network to it loses packets.",
)
def unit_flapping(scene: Scene) -> Verdict:
    """A storage unit did not answer several times within 30 minutes."""
    return _again(scene, "down", 0, "storage_down_ratio", "a storage unit did not answer")


@rule(
    "DataPlaneFullRepeatedly",
    "queue",
    "warning",
    remedy="Slow down generation, or give the storage more room: puts fail whenever it is full.",
)
def full_repeatedly(scene: Scene) -> Verdict:
    """A storage unit was nearly full several times within 30 minutes."""
    above = scene.limit("storage_used_ratio")
    return _again(scene, "fill", above, "storage_full_time_ratio", "a storage unit was nearly full")


@rule(
    "DataPlaneStorageEvicting",
    "queue",
    "critical",
    remedy="Restart the job from its checkpoint, with more memory or with hard_pin: evicted rows cannot be read.",
)
def evicting(scene: Scene) -> Verdict:
    """The store has evicted objects of rows that are still listed."""
    return _grown(
        scene, "evicted", "{} objects were evicted in the last 10 min: their rows are listed and cannot be read"
    )


@rule(
    "DataPlaneStorageAllocationsFailing",
    "queue",
    "warning",
    degrades=True,
    remedy="Clear rows that are consumed, slow down generation, or let processes contribute larger segments.",
)
def allocations_failing(scene: Scene) -> Verdict:
    """The store finds no room for objects."""
    return _grown(
        scene, "unplaced", "puts found no room for objects {} times in the last 10 min (retries included): they fail"
    )


@rule(
    "DataPlaneStorageLeaking",
    "queue",
    "warning",
    remedy="Find the client whose puts or clears fail half-way. No process can read or clear what it leaves behind.",
)
def leaking(scene: Scene) -> Verdict:
    """The number of keys that no partition lists has grown for an hour."""
    units, unlisted = _units(scene), scene.snapshot.unlisted_keys
    lowest = scene.past.lowest("unlisted", _LEAK_S, 3)
    if units is None or unlisted is None or lowest is None:
        return None
    held = sum(unit.keys or 0 for unit in units)
    without_keys = any(status.reason == "not_listable" for status in scene.snapshot.statuses)
    few = unlisted <= scene.limit("unlisted_ratio") * held
    if without_keys or few or not lowest[0] < lowest[1] < lowest[2]:
        return CLEAR
    said = f"{count(unlisted)} of {count(held)} keys in storage are in no partition, and their number grows"
    return Finding(said, {"unlisted": unlisted, "keys": held})


def _grown(scene: Scene, column: str, text: str) -> Verdict:
    """Judge a counter of the store: whether it has grown in the last minutes."""
    if not scene.snapshot.up or scene.snapshot.store is None:
        return None
    grown = scene.past.change(column, scene.now - _RECENT_S)
    if grown <= 0:
        return CLEAR
    return Finding(text.format(count(int(grown))), {"objects": grown})


def _again(scene: Scene, column: str, limit: float, often: str, text: str) -> Verdict:
    seen = scene.past.above(column, limit, _TREND_S) if scene.snapshot.up else None
    if seen is None:
        return None
    share, changes = seen
    if share <= scene.limit(often) or changes < scene.limit("storage_changes"):
        return CLEAR
    return Finding(
        f"{text} several times in the last 30 min, together {percent(share)} of that time",
        {"ratio": share, "changes": changes},
    )


def _units(scene: Scene) -> tuple[StorageState, ...] | None:
    """Return the units as of the last poll, None while they are not known."""
    return scene.snapshot.storage or None if scene.snapshot.up else None


def _fills(scene: Scene) -> list[float]:
    return [unit.fill for unit in _units(scene) or () if unit.fill is not None]


def _down(scene: Scene, concerned: Callable[[StorageState], bool], why: str) -> Verdict:
    units = _units(scene)
    if units is None:
        return None
    down = [unit for unit in units if concerned(unit)]
    if not down:
        return CLEAR
    named = ", ".join(str(unit.index) for unit in down[:3]) + (", …" if len(down) > 3 else "")
    answered = [unit.last_answer.at for unit in down if unit.last_answer is not None]
    since = min(answered, default=None)
    said = f"{len(down)} of {len(units)} storage units {'does' if len(down) == 1 else 'do'} not answer"
    dated = "" if since is None else f" since {clock(since)}"
    evidence = {"units_down": len(down), "units": len(units), "first_unit_down": down[0].index}
    return Finding(f"{said}{dated}: {why} (unit {named})", evidence, since=since)


def _filled(scene: Scene, judge: Callable[[float], bool], effect: str) -> Verdict:
    units = _units(scene)
    return None if units is None else any_of(_fill(unit, judge, effect) for unit in units)


def _fill(unit: StorageState, judge: Callable[[float], bool], effect: str) -> Verdict:
    fill = unit.fill
    if not unit.up or (fill is None and unit.capacity):
        return None
    if fill is None or not judge(fill):
        return CLEAR
    evidence: dict[str, float] = {"used_ratio": fill, "unit": unit.index}
    if unit.keys is not None and unit.capacity:
        held = f"{count(unit.keys)} of {count(unit.capacity)} keys"
        evidence |= {"keys": unit.keys, "capacity": unit.capacity}
    else:
        held = f"of {(unit.memory_limit_bytes or 0) / 2**20:,.0f} MiB"
        evidence |= {"bytes": unit.memory_bytes or 0}
    return Finding(f"storage unit {unit.index} is {percent(fill)} full ({held}): {effect}", evidence)
