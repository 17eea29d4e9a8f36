"""Groups as a poller would have them, without one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataplane.groups import DataPlaneGroupMeta
from dataplane.partitions import ByName
from exporter.conditions import Limits
from exporter.config import Listen
from exporter.groups import Groups
from exporter.model.condition import Condition
from exporter.model.flow import FlowTracker
from exporter.model.groups import GroupsView
from exporter.model.occupancy import nothing
from exporter.model.snapshot import PartitionStatus, Snapshot
from exporter.model.versions import VersionReference
from exporter.web import Guard, WebServer

NOW = 1_900_000_000.0


def group(group_id: str, state: str = "ready", *, partition: str = "train", **fields: Any) -> DataPlaneGroupMeta:
    """Return a group in *state*, by default with one key."""
    given: dict[str, Any] = {"keys": [f"{group_id}-0"], "committed": state not in ("uncommitted", "failed"), **fields}
    if state == "incomplete":
        given.setdefault("expected_num_keys", len(given["keys"]) + 1)
    return DataPlaneGroupMeta(partition, group_id, failed=state == "failed", taken=state == "taken", **given)


class Listings:
    """Listings of partitions, 10 seconds apart, and the questions that can be asked about them."""

    def __init__(self, window: float = 4.0) -> None:
        self.tracker = FlowTracker(ByName({}), 100, window)
        self.now = NOW
        self.reference: VersionReference | None = None
        self.up = True
        self.fresh: set[str] = set()
        self.conditions: tuple[Condition, ...] = ()
        self.limits = Limits()

    def list(
        self, partitions: Mapping[str, Sequence[DataPlaneGroupMeta]], *, sender: str = "c", convention: str = "recovery"
    ) -> None:
        """Poll once. Of partitions that are None nothing is listed, though they exist."""
        self.now += 10.0
        self.tracker.begin_poll(
            partitions, time=self.now, now=self.now - NOW, sender_id=sender, reference=self.reference
        )
        for name, groups in partitions.items():
            self.tracker.observe(
                name, groups, time=self.now, sender_id=sender, reference=self.reference, convention=convention
            )
            self.tracker.count_orphaned(name, self.reference)
        self.fresh = set(partitions)

    def view(self) -> GroupsView:
        return GroupsView(self.tracker.groups(self.fresh), self.tracker.departures.newest_first(), self.reference)

    def snapshot(self) -> Snapshot:
        names = [part.label for part in self.tracker.groups(())]
        return Snapshot(
            self.now,
            NOW,
            discovery="found",
            up=self.up,
            statuses=tuple(PartitionStatus(name, True, None, self.now) for name in dict.fromkeys(names)),
            total=nothing("all", self.now),
            conditions=self.conditions,
        )

    def groups(self, **fields: Any) -> Groups:
        return Groups(self.view, self.snapshot, self.limits, **fields)


@contextmanager
def serving(groups: Groups | None, web_config: Path | None = None, *, page: bool = True) -> Iterator[str]:
    """Serve *groups* in this process; yields the URL. None: nobody may see them."""
    web = WebServer(
        Listen("127.0.0.1", 0),
        scrape=lambda accept, names: (b"", "text/plain"),
        snapshot=lambda: Snapshot(NOW, NOW) if groups is None else groups.snapshot(),
        alive=lambda: True,
        guard=Guard(web_config),
        page=page,
        groups=None if groups is None else groups.encode,
    )
    _, port = web.listen()
    web.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        web.stop()
