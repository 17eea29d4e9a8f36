"""When chaos kills, and which part."""

from __future__ import annotations

import random

from exporter.demo.chaos import Chaos, Part

PARTS = (Part("controller", 1, True), Part("storage unit 0", 2, False), Part("storage unit 1", 3, False))


def test_nobody_is_harmed_before_it_is_due_or_while_it_is_not_calm() -> None:
    chaos = Chaos(random.Random(0), 20.0)
    assert chaos.victim(PARTS, 1e9) is None
    chaos.calm(100.0)
    assert chaos.victim(PARTS, 114.9) is None
    assert chaos.victim(PARTS, 125.1) is not None
    assert chaos.victim(PARTS, 1e9) is None


def test_the_controller_and_a_storage_unit_take_turns() -> None:
    chaos = Chaos(random.Random(0), 20.0)
    victims = []
    for _ in range(40):
        chaos.calm(0.0)
        victim = chaos.victim(PARTS, 100.0)
        assert victim is not None
        victims.append(victim)
    assert [victim.is_controller for victim in victims] == [True, False] * 20
    assert {victim.name for victim in victims} == {part.name for part in PARTS}
