"""What a bundle is made of, collected from this process or from a running exporter. Nothing of it is tensor data."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import msgspec

from exporter.config import Config
from exporter.diagnosis.about import describe
from exporter.diagnosis.verdict import Verdict, give_verdict
from exporter.model.history import WINDOWS, History
from exporter.model.snapshot import Snapshot, encode_snapshot
from exporter.model.window import Window, decode_window
from exporter.remote import Remote, RemoteError

__all__ = ["Evidence", "collect_here", "collect_remote"]

_OLDEST: Final = "oldest"
_GROUPS: Final = 20
"""How many groups are asked for per condition."""
_CONDITIONS: Final = 5
"""For how many conditions groups are asked for."""


@dataclass(frozen=True)
class Evidence:
    """What is known of a data plane and its exporter.

    Attributes:
        origin: Where it comes from.
        at: When it was collected, seconds since the epoch.
        snapshot: The latest snapshot.
        windows: The history's windows by name.
        groups: The groups in question by condition, as JSON values.
        metrics: The exposition, None when it cannot be had.
        about: The exporter's versions, process and configuration, None when they cannot be had.
        ray: The actors and nodes as Ray has them, None when Ray was not asked.
        alive: Whether the exporter's loop of polls runs.
        missing: What cannot be had, and why.
    """

    origin: str
    at: float
    snapshot: Snapshot
    windows: Mapping[str, Window] = field(default_factory=dict)
    groups: Mapping[str, list[Any]] = field(default_factory=dict)
    metrics: bytes | None = None
    about: Mapping[str, Any] | None = None
    ray: Mapping[str, Any] | None = None
    alive: bool = True
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> Verdict:
        """The verdict on it."""
        return give_verdict(self.snapshot, self.windows.get("recent"))

    @property
    def private(self) -> bool:
        """Whether the exporter is configured not to show groups."""
        return bool((self.about or {}).get("groups_are_private"))

    @property
    def tree(self) -> Any:
        """The snapshot as JSON values."""
        return msgspec.json.decode(encode_snapshot(self.snapshot))


Groups = Callable[[str | None, int], list[Any] | None]
"""Returns groups that a condition is about, or with None the oldest; at most so many, as JSON values. None where a
condition is about no groups."""


def collect_here(
    snapshot: Snapshot,
    history: History,
    metrics: bytes,
    config: Config,
    environ: Mapping[str, str],
    *,
    alive: bool = True,
    groups: Groups | None = None,
) -> Evidence:
    """Return what this process knows.

    Args:
        snapshot: The latest snapshot.
        history: The history up to it.
        metrics: The exposition.
        config: The effective configuration.
        environ: The environment.
        alive: Whether the loop of polls runs.
        groups: Returns groups; None for the few that the snapshot names.
    """
    return Evidence(
        "this process",
        time.time(),
        snapshot,
        {name: decode_window(history.encode(name)) for name in WINDOWS},
        _groups(snapshot, groups) if groups else named_groups(snapshot),
        metrics,
        describe(config, environ),
        alive=alive,
    )


def collect_remote(remote: Remote) -> Evidence:
    """Return what a running exporter knows. What it does not give is in ``missing``.

    Raises:
        RemoteError: It does not give its snapshot.
    """
    snapshot = remote.read_json("/api/v1/snapshot", Snapshot)
    missing: dict[str, str] = {}

    def read(what: str, reading: Callable[[], Any]) -> Any:
        try:
            return reading()
        except (RemoteError, msgspec.DecodeError) as error:
            missing[what] = str(error)
            return None

    windows: dict[str, Window] = {}
    for name in WINDOWS:
        body = read(f"history, {name}", partial(remote.read, f"/api/v1/history/{name}"))
        window = None if body is None else read(f"history, {name}", partial(decode_window, body))
        if window is not None:
            windows[name] = window
    groups = read("groups", partial(_groups, snapshot, partial(_ask, remote)))
    return Evidence(
        str(remote),
        time.time(),
        snapshot,
        windows,
        named_groups(snapshot) if groups is None else groups,
        read("metrics", partial(remote.read, "/metrics")),
        read("configuration", partial(remote.read_json, "/api/v1/about", dict[str, Any])),
        alive=_is_alive(remote),
        missing=missing,
    )


def named_groups(snapshot: Snapshot) -> dict[str, list[Any]]:
    """Return the groups that a snapshot names: the oldest of each state, and those that are unfinished."""
    found = [
        {
            "partition": part.partition,
            "group_id": one.group_id,
            "state": one.state,
            "age_seconds": round(max(snapshot.taken_at - one.created_at, 0.0), 3),
        }
        for part in snapshot.partitions
        for one in dict.fromkeys((*part.unfinished, *part.oldest))
        if one.group_id
    ]
    return {_OLDEST: found} if found else {}


def _groups(snapshot: Snapshot, ask: Groups) -> dict[str, list[Any]]:
    found = {_OLDEST: ask(None, _GROUPS)}
    held = [one.name for one in snapshot.held if one.stage in ("generation", "queue", "training")]
    for name in held[:_CONDITIONS]:
        found[name] = ask(name, _GROUPS)
    return {name: groups for name, groups in found.items() if groups}


def _ask(remote: Remote, condition: str | None, limit: int) -> list[Any] | None:
    query = {"condition": condition, "limit": limit, "sort": "age"}
    try:
        groups = remote.read_json("/api/v1/groups", dict[str, Any], query).get("groups")
    except RemoteError as error:
        if error.status == HTTPStatus.BAD_REQUEST:  # that condition is about no groups
            return None
        raise
    return groups if isinstance(groups, list) else None


def _is_alive(remote: Remote) -> bool:
    """Return whether the exporter says that its loop runs. One behind a proxy may not say anything."""
    try:
        remote.read("/healthz")
    except RemoteError as error:
        return error.status != HTTPStatus.SERVICE_UNAVAILABLE
    return True
