"""Controllers that cannot be used yet, and the id that a controller answers under."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dataplane.discovery.record import Endpoint
from exporter.model.results import Failed, Found, Ok
from tests.unit.test_state import ENDED, GONE, TIMEOUT, UNAVAILABLE, Fixture, found

STARTING = Failed("discover", "DataPlaneNotReady", "it has no configuration yet", 2.0)
UNREADABLE = Failed("ping", "DataPlaneReadError", "it is no controller", 0.1)
NO_RAY = Failed("discover", "DataPlaneTimeout", "Ray gave no answer", 20.0)


@pytest.fixture
def on() -> Fixture:
    return Fixture()


def see(on: Fixture, *events: str) -> str:
    """Let *events* happen in order and return the discovery state after the last."""
    happen: dict[str, Callable[[], None]] = {
        "found": lambda: on.discover(found()),
        "found another": lambda: on.discover(found("actor-2", "tcp://127.0.0.1:2")),
        "starting": lambda: on.discover(STARTING),
        "gone": lambda: on.discover(GONE),
        "ended": lambda: on.discover(ENDED),
        "no Ray": lambda: on.discover(NO_RAY),
        "answer": on.ping,
        "refused": on.fail,
        "silent": lambda: on.fail(TIMEOUT),
        "unreadable": lambda: on.fail(UNREADABLE),
    }
    for event in events:
        happen[event]()
    return on.state.snapshot().discovery


RUNNING = ("found", "answer")


@pytest.mark.parametrize(
    ("events", "state"),
    [
        # Before the first controller has answered.
        (("starting",), "starting"),
        (("starting", "no Ray"), "starting"),
        (("starting", "gone"), "never_found"),
        (("starting", "ended"), "never_found"),
        (("starting", "found"), "starting"),
        (("starting", *RUNNING), "found"),
        (("found",), "never_found"),
        (("found", "refused"), "unreachable"),
        (("found", "silent"), "unreachable"),
        (("found", "unreadable"), "unreachable"),
        (("found", "refused", "found"), "unreachable"),
        (("found", "refused", "no Ray"), "unreachable"),
        (("found", "refused", "answer"), "found"),
        (("found", "refused", "gone"), "never_found"),
        (("found", "refused", "ended"), "never_found"),
        (("found", "refused", "starting"), "starting"),
        (("starting", "found", "refused"), "unreachable"),
        # A controller that answered and is gone: the job stands still until a controller answers.
        ((*RUNNING, "refused", "starting"), "lost"),
        ((*RUNNING, "silent", "starting"), "lost"),
        ((*RUNNING, "starting"), "found"),
        ((*RUNNING, "refused", "found another", "refused"), "lost"),
        ((*RUNNING, "silent", "silent"), "found"),
        # A new job after one that has ended.
        ((*RUNNING, "ended", "starting"), "starting"),
        ((*RUNNING, "ended", "starting", "gone"), "ended"),
        ((*RUNNING, "ended", "starting", "found another", "answer"), "found"),
        ((*RUNNING, "ended", "found another"), "ended"),
        ((*RUNNING, "ended", "found another", "refused"), "unreachable"),
        ((*RUNNING, "ended", "found another", "refused", "gone"), "ended"),
    ],
    ids=lambda value: value if isinstance(value, str) else ", ".join(value),
)
def test_what_a_controller_is_after_what_was_seen(on: Fixture, events: tuple[str, ...], state: str) -> None:
    assert see(on, *events) == state


@pytest.mark.parametrize("before", [(), (*RUNNING, "ended")])
def test_each_look_up_at_a_starting_controller_is_an_error(on: Fixture, before: tuple[str, ...]) -> None:
    see(on, *before)
    on.state.switch()  # the poller's, when there is nothing to poll any more
    see(on, "starting", "starting", "starting")
    assert on.recorder.errors == {("discover", "DataPlaneNotReady"): 3}
    snapshot = on.state.snapshot()
    assert (snapshot.up, snapshot.ready, snapshot.endpoint) == (False, True, None)
    assert on.source("discovery").detail == STARTING.detail


@pytest.mark.parametrize("failed", [UNAVAILABLE, TIMEOUT])
def test_each_ping_of_an_unreachable_controller_is_an_error_of_its_own_type(on: Fixture, failed: Failed) -> None:
    see(on, "found")
    on.fail(failed)
    on.fail(failed)
    assert on.recorder.errors == {("ping", failed.error_type): 2}
    assert on.recorder.pings == [(failed.took, failed.error_type)] * 2
    snapshot = on.state.snapshot()
    assert snapshot.endpoint is not None
    assert not snapshot.up
    assert on.source("ping").detail == failed.detail


@pytest.mark.parametrize("last", ["gone", "starting"])
def test_an_address_that_is_not_the_controllers_any_more_is_forgotten(on: Fixture, last: str) -> None:
    see(on, "found", "refused", last)
    assert on.state.snapshot().endpoint is None


def test_each_state_is_logged_once_with_its_reason(on: Fixture, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    see(on, "starting", "starting", "found", "refused", "refused", "silent", "silent")
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert lines == [
        ("INFO", f"the discovery poll failed: DataPlaneNotReady: {STARTING.detail}"),
        ("INFO", "the discovery poll works again"),
        ("WARNING", f"the ping poll failed: DataPlaneUnavailable: {UNAVAILABLE.detail}"),
        ("WARNING", f"the ping poll failed: DataPlaneTimeout: {TIMEOUT.detail}"),
    ]


def test_the_id_shown_is_the_one_that_the_controller_answers_under(on: Fixture) -> None:
    def look(actor_id: str, controller_id: str) -> None:
        on.discover(Ok(Found(Endpoint("tcp://127.0.0.1:1", controller_id, actor_id)), 0.1))

    def shown() -> str | None:
        endpoint = on.state.snapshot().endpoint
        return None if endpoint is None else endpoint.controller_id

    look("actor-1", "own")
    on.ping()
    assert shown() == "own"
    on.metadata({"train": {"a": 1}}, sender="the checkpoint's")
    assert shown() == "the checkpoint's"
    look("actor-1", "own")
    assert shown() == "the checkpoint's"
    look("actor-2", "second")
    on.state.switch()  # the poller's, with another controller
    assert shown() == "second"
