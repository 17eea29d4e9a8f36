"""Figures that the tests measure, printed at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for sockets in it."""
    with tempfile.TemporaryDirectory(prefix="tqe-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    reports = [report for status in ("passed", "failed") for report in terminalreporter.getreports(status)]
    for report in reports:
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
