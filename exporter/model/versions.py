"""The trainer's weight version, from which lags are counted. One per controller, since it has one trainer."""

from __future__ import annotations

from typing import Final, NamedTuple

from exporter.model.snapshot import Reference

__all__ = ["VersionReference", "Versions"]

_POLLS_BEFORE_RESET: Final = 2


class VersionReference(NamedTuple):
    """The weight version that lags are counted from, and where it comes from."""

    version: int
    kind: Reference

    def lag(self, weight_version: int) -> int:
        """Return how many versions *weight_version* is behind; negative when it is ahead."""
        return self.version - weight_version


class _Newest:
    """The newest version seen. It falls when a run was resumed from an older checkpoint.

    Groups that arrive while all versions are lower are a sign of a resumed run; old groups that remain after newer ones
    were consumed are not. It falls after two such polls in a row, so that one late group does not move it.
    """

    def __init__(self) -> None:
        self.version: int | None = None
        self._polls_below = 0
        self._arrived_below = False

    def see(self, newest: int | None, arrived: bool) -> None:
        if newest is None:
            return
        if self.version is not None and newest < self.version:
            self._polls_below += 1
            self._arrived_below = self._arrived_below or arrived
            if not self._arrived_below or self._polls_below < _POLLS_BEFORE_RESET:
                return
        self.version = newest
        self._polls_below = 0
        self._arrived_below = False


class Versions:
    """Follows the trainer's version: published by it, else stated in rows, else the newest seen. Not thread-safe.

    Attributes:
        reference: The version in force, None while none is known.
        changed_at: When it last changed, seconds since the epoch, None while none is known.
        regressions: How often it has stepped back since the exporter started.
    """

    def __init__(self) -> None:
        self.regressions = 0
        self.restart()

    def restart(self) -> None:
        """Forget all versions, since another controller answers or a checkpoint was loaded."""
        self.reference: VersionReference | None = None
        self.changed_at: float | None = None
        self._stated, self._newest = _Newest(), _Newest()

    def update(
        self, *, published: int | None, stated: int | None, newest: int | None, arrived: bool, time: float
    ) -> None:
        """Note what one poll showed.

        Args:
            published: The version that the trainer publishes, None when it publishes none.
            stated: The newest version that rows say the trainer has finished, None if none say.
            newest: The newest version of a group in a partition that trains, None when no version is known.
            arrived: Whether a group has arrived since the last poll.
            time: Seconds since the epoch.
        """
        self._stated.see(stated, arrived)
        self._newest.see(newest, arrived)
        candidates: tuple[tuple[int | None, Reference], ...] = (
            (published, "published"),
            (self._stated.version, "rows"),
            (self._newest.version, "newest_seen"),
        )
        last = self.reference
        self.reference = next((VersionReference(value, kind) for value, kind in candidates if value is not None), None)
        if self.reference is None:
            self.changed_at = None
        elif last is None or last.version != self.reference.version:
            self.changed_at = time
            if last is not None and last.kind == self.reference.kind and self.reference.version < last.version:
                self.regressions += 1
