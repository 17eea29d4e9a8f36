"""The named controller is found and asked, and nothing else. Ray is a fake: a real controller answers too soon."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from dataplane.discovery import actor
from dataplane.discovery.actor import ask_controller, find_controller
from dataplane.errors import DataPlaneUnavailable


class FakeRay:
    """The part of Ray that is used; an answer comes when a test says so."""

    def __init__(self) -> None:
        self.connected = True
        self.calls: list[tuple[Any, ...]] = []
        self.answered: set[int] = set()

    def is_initialized(self) -> bool:
        return self.connected

    def get_actor(self, name: str, namespace: str) -> str:
        self.calls.append((name, namespace))
        return "handle"

    def wait(self, references: list[int], num_returns: int, timeout: float) -> tuple[list[int], list[int]]:
        assert (num_returns, timeout) == (len(references), 0)
        ready = [reference for reference in references if reference in self.answered]
        return ready, [reference for reference in references if reference not in ready]

    def get(self, references: list[int], timeout: float) -> list[int]:
        self.calls.append((*references, timeout))
        return references


class FakeController:
    """A handle whose methods give a new reference each time."""

    def __init__(self, actor_id: str) -> None:
        self._actor_id = actor_id
        self.asked = 0
        self.get_zmq_server_info = self.get_config = SimpleNamespace(remote=self._ask)

    def _ask(self) -> int:
        self.asked += 1
        return self.asked


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(actor, "_asked", {})
    return fake


def test_it_is_looked_up_by_its_name_alone(ray: FakeRay) -> None:
    assert find_controller() == "handle"
    assert ray.calls == [("TransferQueueController", "transfer_queue")]


def test_without_a_connection_ray_is_not_asked_which_would_start_one(ray: FakeRay) -> None:
    ray.connected = False
    with pytest.raises(DataPlaneUnavailable, match=r"call ray\.init"):
        find_controller()
    assert ray.calls == []


def test_a_controller_that_does_not_answer_is_not_asked_again(ray: FakeRay) -> None:
    controller = FakeController("a")
    for _ in range(3):
        assert ask_controller(controller, 2.5) == (1, 2)
    assert controller.asked == 2
    assert ray.calls == [(1, 2, 2.5)] * 3


def test_an_answer_that_came_is_not_given_to_the_next_caller(ray: FakeRay) -> None:
    controller = FakeController("a")
    ask_controller(controller, 1)
    ray.answered = {1}
    assert ask_controller(controller, 1) == (1, 2)  # one of the two is still awaited
    ray.answered = {1, 2}
    assert ask_controller(controller, 1) == (3, 4)


def test_another_actor_gets_a_question_of_its_own(ray: FakeRay) -> None:
    silent, successor = FakeController("a"), FakeController("b")
    ask_controller(silent, 1)
    ask_controller(successor, 1)
    assert successor.asked == 2
