"""Look-ups without the time of their imports."""

from __future__ import annotations

import pytest

from tests.support import forks


@pytest.fixture(autouse=True)
def _forked_look_ups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let look-ups at the shared cluster be forks, each of which saves 4 s of CPU time."""
    if "shared_cluster" in request.fixturenames:
        for name, value in forks.look_up_env().items():
            monkeypatch.setenv(name, value)
