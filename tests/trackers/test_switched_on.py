"""Which trackers run, what that needs, and what an exporter without them loads."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exporter.cli import main
from exporter.config import load_config
from exporter.trackers.base import Order
from exporter.trackers.feeder import orders

ALL = {"--tensorboard": "/logs", "--wandb": "abc", "--mlflow": "file:/runs"}


def test_each_flag_switches_one_on() -> None:
    config = load_config(ALL, {"TQ_EXPORTER_TRACKING_WANDB_PROJECT": "rl"}).tracking
    assert orders(load_config({}, {}).tracking) == []
    assert orders(config) == [
        Order("tensorboard", {"folder": "/logs"}),
        Order("wandb", {"run_id": "abc", "project": "rl", "entity": None, "mode": "shared"}),
        Order("mlflow", {"uri": "file:/runs", "run_id": None, "experiment": "tq-exporter"}),
    ]
    assert set(config.chosen) == {order.tracker for order in orders(config)}


@pytest.mark.parametrize(
    ("flag", "name"), [("--tensorboard", "tensorboard"), ("--wandb", "wandb"), ("--mlflow", "mlflow")]
)
@pytest.mark.parametrize("folder", [False, True])
def test_a_missing_package_is_one_line_with_its_extra(
    flag: str, name: str, folder: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder of its name, as wandb makes one, is no package."""
    find = importlib.util.find_spec

    def find_spec(wanted: str, package: str | None = None) -> Any:
        if wanted == name:
            return importlib.machinery.ModuleSpec(name, None, is_package=True) if folder else None
        return find(wanted, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert main(["run", "--controller", "tcp://127.0.0.1:1", flag, "x"]) == 2
    expected = f"{flag}: needs the package {name}, not installed here; pip install 'tq-exporter[{name}]'"
    assert capsys.readouterr().err == f"tq-exporter: {expected}\n"


def test_the_exporter_loads_no_tracker() -> None:
    code = (
        "import sys, exporter.app, dataplane.tracking;"
        "print(sorted({'mlflow', 'tensorboard', 'wandb', 'numpy', 'rl_insight'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "[]\n"


def test_a_bad_url_to_register_with_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check-config", "--register", "monitor:18080"]) == 2
    expected = "--register: 'monitor:18080' is not the URL of a server; write http://HOST:PORT"
    assert capsys.readouterr().err == f"tq-exporter: {expected}\n"
