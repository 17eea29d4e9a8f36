"""The README's example of a client prints what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: F401 - the example needs it

import dataplane
from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.adapters.transfer_queue.config import tq_conf

README = (Path(__file__).parents[2] / "README.md").read_text()


def test_the_first_client_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    configurations: list[Mapping[str, Any]] = []

    def build(cfg: Mapping[str, Any]) -> NoOpDataPlaneClient:
        configurations.append(tq_conf(cfg))
        return NoOpDataPlaneClient()

    monkeypatch.setattr(dataplane, "build_data_plane_client", build)
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    (said,) = re.findall(r"print\(.*\)  # (.*)", example)
    assert capsys.readouterr().out == f"{said}\n"
    (conf,) = configurations
    assert conf["backend"]["SimpleStorage"] == {"total_storage_size": 100_000, "num_data_storage_units": 2}
