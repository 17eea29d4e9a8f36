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


Groups = Callable[[str, int], list[Any]]
"""Returns groups that a condition is about, at most so many, as JSON values."""


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
        {name: groups(name, _GROUPS) for name in _asked(snapshot)} if groups else named_groups(snapshot),
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
    groups: dict[str, list[Any]] = {}
    for name in _asked(snapshot):
        query = {"condition": name, "limit": _GROUPS}
        found = read("groups", partial(remote.read_json, "/api/v1/groups", dict[str, Any], query))
        if found is None:  # for the next condition it would not give any either
            groups = named_groups(snapshot)
            break
        groups[name] = found.get("groups", [])
    return Evidence(
        str(remote),
        time.time(),
        snapshot,
        windows,
        groups,
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
            "age_s": round(max(snapshot.taken_at - one.created_at, 0.0), 3),
        }
        for part in snapshot.partitions
        for one in dict.fromkeys((*part.unfinished, *part.oldest))
        if one.group_id
    ]
    return {"oldest": found} if found else {}


def _asked(snapshot: Snapshot) -> list[str]:
    return [one.name for one in snapshot.held if one.stage in ("generation", "queue", "training")][:_CONDITIONS]


def _is_alive(remote: Remote) -> bool:
    """Return whether the exporter says that its loop runs. One behind a proxy may not say anything."""
    try:
        remote.read("/healthz")
    except RemoteError as error:
        return str(HTTPStatus.SERVICE_UNAVAILABLE.value) not in str(error)
    return True
