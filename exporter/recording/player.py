"""A recording as the page shows it: the run as it was at a time."""

from __future__ import annotations

from typing import Any

import msgspec

from exporter.model.condition import SEVERITIES
from exporter.recording.archive import Archive

__all__ = ["Player"]


class Player:
    """Answers in place of a running exporter. Thread-safe.

    Args:
        archive: The recording. An exporter may still write it.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def snapshot(self, at: float | None) -> bytes:
        """Return the snapshot of a time as JSON, its end by default.

        ``recording`` says that it is one: ``file``, ``from``, ``to``, and ``at``, the time that was asked for.

        Raises:
            RecordingError: The file cannot be read.
        """
        return msgspec.json.encode(self._at(at))

    def conditions(self, at: float | None) -> bytes:
        """Return the conditions of a time as JSON, in the form of a running exporter's; raises a RecordingError."""
        snapshot = self._at(at)
        held = [one for one in snapshot.get("conditions", ()) if one.get("holds") and one.get("severity") != "ok"]
        worst = max((one["severity"] for one in held), key=SEVERITIES.index, default="ok")
        kept = {name: snapshot.get(name) for name in ("taken_at", "discovery", "up", "conditions", "recording")}
        degraded = bool(snapshot.get("up")) and any(one.get("degrades") for one in held)
        return msgspec.json.encode({**kept, "degraded": degraded, "severity": worst})

    def history(self, begin: float | None = None, end: float | None = None) -> bytes:
        """Return a time as JSON. See :meth:`~exporter.recording.archive.Archive.history`."""
        return self._archive.history(begin, end)

    def window(self, length_s: float, at: float | None) -> bytes:
        """Return the time of *length_s* seconds before a time as JSON; raises a RecordingError."""
        begin, end = self._archive.span()
        at = end if at is None else min(max(at, begin), end)
        return self._archive.history(at - length_s, at)

    def _at(self, at: float | None) -> dict[str, Any]:
        begin, end = self._archive.span()
        at = end if at is None else min(max(at, begin), end)
        recording = {"file": self._archive.path.name, "from": begin, "to": end, "at": at}
        return {**self._archive.snapshot(at), "recording": recording}
