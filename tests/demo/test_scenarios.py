"""The incidents of the demo on the real TransferQueue: the metrics that name the culprit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from tests.support.demo_process import DemoProcess
from tests.support.exporter_process import Exposition
from tests.support.waiting import wait_until

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

    def of(self, name: str) -> float:
        """Return a metric of the partition, -1 while it has none."""
        value = self.seen.value(f"dataplane_partition_{name}", partition=self._partition)
        return -1 if value is None else value

    def flow(self, name: str) -> float:
        """Return a total of the partitions that train."""
        return _sum(self.seen, f"dataplane_groups_{name}_total", role="train")

    def departed(self, *states: str) -> float:
        """Return how many groups departed in *states*."""
        return sum(_sum(self.seen, "dataplane_groups_departed_total", role="train", state=state) for state in states)


def _sum(seen: Exposition, name: str, **labels: str) -> float:
    return sum(value for _, value in seen.samples(name, **labels))


def failing_rollouts(demo: Watched) -> None:
    demo.until(lambda: demo.departed("failed", "uncommitted") > 0, "the first groups that failed are gone")
    arrived, departed = demo.flow("arrived"), demo.departed("failed", "uncommitted")
    demo.until(lambda: demo.flow("arrived") > arrived + 10, "they are replaced")
    demo.until(lambda: demo.departed("failed", "uncommitted") > departed + 10, "these are gone as well")
    assert demo.flow("completed") == 0
    assert demo.departed("ready", "taken", "incomplete") == 0
    assert demo.of("depth") == 0


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_metrics_name_the_culprit() -> None:
    """One incident of one convention, since each start takes a minute; ``test_loop.py`` plays all of them in memory."""
    with DemoProcess("--scenario", "failing-rollouts", "--convention", "verl") as demo:
        demo.wait_until_ready()
        assert "scenario   failing-rollouts: " in demo.out
        try:
            failing_rollouts(Watched(demo, "train"))
        except OSError as error:  # its exporter does not answer any more
            pytest.fail(f"{error}\n{demo.out}")
