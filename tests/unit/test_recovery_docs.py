"""The code in docs/recovery.md runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.errors import DataPlaneTimeout

PAGE = Path(__file__).parents[2] / "docs" / "recovery.md"


def test_the_pattern_recovers_from_a_timeout() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    clients: list[NoOpDataPlaneClient] = []
    used: list[Any] = []

    def connect() -> NoOpDataPlaneClient:
        clients.append(NoOpDataPlaneClient())
        clients[-1].put_samples(["a"], "train", tags=[{"group_id": "a", "committed": True}])
        return clients[-1]

    def step(client: Any) -> None:
        used.append(client)
        if len(used) == 1:
            raise DataPlaneTimeout("mute")

    scope: dict[str, Any] = {
        "connect": connect,
        "running_rollouts": {"b"},
        "step": step,
        "done": lambda: len(used) == 2,
    }
    exec(compile(code, str(PAGE), "exec"), scope)
    assert used == clients
    assert len(clients) == 2
    assert scope["occupancy"].in_use == 2
