"""Parses the Dockerfile into stages and steps, so that the tests can run them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["ROOT", "Stage", "read_stages"]

ROOT = Path(__file__).parents[2]


@dataclass
class Stage:
    """One ``FROM … AS name``."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def of(self, instruction: str) -> list[str]:
        """Return the arguments of every instruction of this kind, in order."""
        return [text for word, text in self.steps if word == instruction]


def read_stages() -> dict[str, Stage]:
    """Return the stages by name, in order."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    for line in text.replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name] = stage = Stage(name, base)
        elif word and stages:
            stage.steps.append((word, " ".join(rest.split())))
    return stages
