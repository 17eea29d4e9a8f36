"""An actor's connection: it waits, attaches, and attaches again. Every error is counted by type."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from dataplane import recovery
from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.errors import DataPlaneBadRequest, DataPlaneTimeout, DataPlaneUnavailable
from dataplane.observability import MetricsDataPlaneClient
from exporter.demo.reattaching import ReattachingClient

LOGGER = logging.getLogger(__name__)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "FIRST_PAUSE_S", 0.001)


class Attach:
    """Returns the given values in order; raises those that are exceptions."""

    def __init__(self, *outcomes: MetricsDataPlaneClient | Exception) -> None:
        self.outcomes = list(outcomes)

    def __call__(self) -> MetricsDataPlaneClient:
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def wrapped() -> MetricsDataPlaneClient:
    return MetricsDataPlaneClient(NoOpDataPlaneClient())


def test_it_waits_until_there_is_something_to_attach_to() -> None:
    client = wrapped()
    connection = ReattachingClient(
        Attach(DataPlaneUnavailable("none"), DataPlaneTimeout("slow"), client), threading.Event(), LOGGER
    )
    assert connection.client() is client
    assert connection.client() is client
    assert connection.attachments == 1
    assert connection.attached.is_set()
    assert connection.errors == {"DataPlaneUnavailable": 1, "DataPlaneTimeout": 1}


@pytest.mark.parametrize("error", [DataPlaneUnavailable("gone"), DataPlaneTimeout("hung")])
def test_a_lost_connection_is_closed_and_made_anew(error: Any) -> None:
    first, second = wrapped(), wrapped()
    connection = ReattachingClient(Attach(first, second), threading.Event(), LOGGER)
    assert connection.client() is first
    assert connection.failed(error)
    with pytest.raises(DataPlaneUnavailable):
        first.ping()
    assert connection.client() is second
    assert connection.attachments == 2


def test_any_other_error_is_counted_and_leaves_the_connection() -> None:
    client = wrapped()
    connection = ReattachingClient(Attach(client), threading.Event(), LOGGER)
    connection.client()
    assert not connection.failed(DataPlaneBadRequest("wrong"))
    assert connection.client() is client
    assert connection.errors == {"DataPlaneBadRequest": 1}


def test_it_gives_up_when_told_to_stop() -> None:
    stop = threading.Event()
    stop.set()
    assert ReattachingClient(Attach(), stop, LOGGER).client() is None


def test_it_stops_while_it_waits() -> None:
    stop = threading.Event()

    def make() -> MetricsDataPlaneClient:
        stop.set()
        raise DataPlaneUnavailable("none")

    connection = ReattachingClient(make, stop, LOGGER)
    assert connection.client() is None
    assert connection.errors == {"DataPlaneUnavailable": 1}
    assert not connection.attached.is_set()


def test_a_wrong_configuration_is_not_waited_for() -> None:
    with pytest.raises(DataPlaneBadRequest):
        ReattachingClient(Attach(DataPlaneBadRequest("wrong")), threading.Event(), LOGGER).client()
