"""The incidents of the demo on the real TransferQueue: the metrics that name the culprit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from exporter.demo.rollout import QUEUED_PER_ROLLOUT
from tests.support.demo_process import DemoProcess
from tests.support.exporter_process import Exposition
from tests.support.waiting import wait_until

_MORE_POLLS_THAN_ANY_ROLLOUT_TAKES: Final = 15
_BY_S: Final = 180.0


class Watched:
    """A running demo's metrics of one partition, from scrapes that are some polls apart."""

    def __init__(self, demo: DemoProcess, partition: str) -> None:
        self._demo = demo
        self._partition = partition
        self.seen = demo.scrape()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Scrape until *condition* holds."""

        def holds() -> bool:
            self.seen = self._demo.scrape()
            return condition()

        wait_until(holds, what, _BY_S)

    def until_it_stands_still(self) -> None:
        """Scrape until no group has arrived, departed or changed, and no version, for longer than a rollout takes."""
        before: tuple[object, ...] = ()
        while before != self._figures():
            before = self._figures()
            self.polls(_MORE_POLLS_THAN_ANY_ROLLOUT_TAKES)

    def polls(self, count: int) -> None:
        """Scrape until the partitions were listed *count* more times."""
        due = self._listings() + count
        self.until(lambda: self._listings() >= due, f"{count} more listings")

    def of(self, name: str) -> float:
        """Return a metric of the partition, -1 while it has none."""
        value = self.seen.value(f"dataplane_partition_{name}", partition=self._partition)
        return -1 if value is None else value

    def groups(self) -> dict[str, float]:
        """Return the groups by state."""
        return self.seen.by("dataplane_partition_groups", "state", partition=self._partition)

    def flow(self, name: str) -> float:
        """Return a total of the partitions that train."""
        return _sum(self.seen, f"dataplane_groups_{name}_total", role="train")

    def departed(self, *states: str) -> float:
        """Return how many groups departed in *states*."""
        return sum(_sum(self.seen, "dataplane_groups_departed_total", role="train", state=state) for state in states)

    def reference(self) -> float:
        """Return the trainer's weight version, -1 while it is unknown."""
        value = self.seen.value("dataplane_weight_version_reference")
        return -1 if value is None else value

    def _figures(self) -> tuple[object, ...]:
        return self.flow("arrived"), self.flow("departed"), self.groups(), self.reference()

    def _listings(self) -> float:
        return _sum(self.seen, "tq_exporter_polls_total", source="metadata", outcome="ok")


def _sum(seen: Exposition, name: str, **labels: str) -> float:
    return sum(value for _, value in seen.samples(name, **labels))


def stalled_trainer(demo: Watched) -> None:
    demo.until(lambda: demo.departed("ready") > 0, "the trainer takes groups at first")
    demo.until_it_stands_still()
    assert demo.of("depth") >= 2 * QUEUED_PER_ROLLOUT
    assert demo.groups()["ready"] == sum(demo.groups().values())
    assert demo.seen.value("dataplane_up") == 1


def failing_rollouts(demo: Watched) -> None:
    demo.until(lambda: demo.departed("failed", "uncommitted") > 0, "the first groups that failed are gone")
    arrived, departed = demo.flow("arrived"), demo.departed("failed", "uncommitted")
    demo.until(lambda: demo.flow("arrived") > arrived + 10, "they are replaced")
    demo.until(lambda: demo.departed("failed", "uncommitted") > departed + 10, "these are gone as well")
    assert demo.flow("completed") == 0
    assert demo.departed("ready", "taken", "incomplete") == 0
    assert demo.of("depth") == 0


def dead_weight_sync(demo: Watched) -> None:
    demo.until(lambda: demo.of("staleness_max") > 5, "the lag exceeds the trainer's window")
    newest, lag, reference = demo.of("weight_version_newest"), demo.of("staleness_max"), demo.reference()
    demo.until(lambda: demo.reference() >= reference + 3, "the trainer goes on")
    demo.until(lambda: demo.of("staleness_max") >= lag + 3, "the lag grows")
    assert demo.of("weight_version_newest") == newest
    assert demo.flow("completed") > 0


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("scenario", "convention", "partition", "holds"),
    [
        ("stalled-trainer", "recovery", "train", stalled_trainer),
        ("failing-rollouts", "verl", "train", failing_rollouts),
        ("dead-weight-sync", "nemo-rl", "rollout_data", dead_weight_sync),
    ],
)
def test_the_metrics_name_the_culprit(
    scenario: str, convention: str, partition: str, holds: Callable[[Watched], None]
) -> None:
    with DemoProcess("--scenario", scenario, "--convention", convention) as demo:
        demo.wait_until_ready()
        assert f"scenario   {scenario}: " in demo.out
        try:
            holds(Watched(demo, partition))
        except OSError as error:  # its exporter does not answer any more
            pytest.fail(f"{error}\n{demo.out}")
