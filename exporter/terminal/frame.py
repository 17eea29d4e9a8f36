"""What the terminal's page shows at one moment, and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from exporter.model.snapshot import Snapshot
from exporter.model.window import Window, decode_window
from exporter.remote import Remote, RemoteError

__all__ = ["Feed", "Frame", "RemoteFeed"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One moment.

    Attributes:
        origin: Where it comes from.
        snapshot: The last snapshot, None before the first.
        recent: The last minutes, None when they are not known.
        lost_since: Since when there is no answer, seconds since the epoch; the snapshot is from before. None when it
            is current.
        why: Why there is no answer.
    """

    origin: str
    snapshot: Snapshot | None = None
    recent: Window | None = None
    lost_since: float | None = None
    why: str = ""


class Feed(Protocol):
    """Gives frames."""

    def next(self) -> Frame:
        """Return the present frame. Blocks for its deadline at most, and raises nothing."""
        ...


class RemoteFeed:
    """Reads a running exporter. When it does not answer, the last frame stays, and the next one tries again.

    Args:
        remote: The exporter.
        now: Returns the time, seconds since the epoch.
    """

    def __init__(self, remote: Remote, now: Callable[[], float]) -> None:
        self._remote = remote
        self._now = now
        self._frame = Frame(str(remote))

    def next(self) -> Frame:
        """See :meth:`Feed.next`."""
        try:
            snapshot = self._remote.read_json("/api/v1/snapshot", Snapshot)
        except RemoteError as error:
            since = self._frame.lost_since
            self._frame = replace(self._frame, lost_since=self._now() if since is None else since, why=str(error))
            return self._frame
        self._frame = Frame(self._frame.origin, snapshot, self._recent())
        return self._frame

    def _recent(self) -> Window | None:
        try:
            return decode_window(self._remote.read("/api/v1/history/recent"))
        except (RemoteError, ValueError):  # it serves no page, or is of another version
            return None
