"""Tiers: ``pytest`` runs everything but tests/engines, ``pytest --fast`` what needs no more than the extra ``test``.

``pytest --engines tests/engines`` runs what needs root, as ``make engines`` does.

A new test lands in the right tier by what it uses. With ``--fast`` the modules in HEAVY cannot be imported, also where
they are installed. A file that needs one when it is collected is left out; so is a test that uses one of
HEAVY_FIXTURES. A test that needs one only when it runs fails in the fast tier: give it the marker ``full``. The marker
is also for what takes a program that may be missing, or more than some ten seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

import pytest

__all__ = ["HEAVY", "HEAVY_FIXTURES"]

HEAVY = (
    *("ray", "torch", "tensordict", "transfer_queue", "omegaconf"),
    *("playwright", "axe_playwright_python", "grafana_foundation_sdk", "matplotlib", "promql_parser"),
    # These start Ray, or install packages, in other processes.
    *("tests.support.cluster", "tests.support.demo_process", "tests.support.tq_versions", "tests.helm.helm"),
)
_ENGINES = Path(__file__).parents[1] / "engines"

HEAVY_FIXTURES = frozenset({"shared_cluster", "browser", "installation"})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="run what needs no Ray, torch, browser or installation")
    parser.addoption("--engines", action="store_true", help="run also what needs root, container engines and Slurm")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: not for the fast tier")
    if config.option.fast:
        for name in HEAVY:
            sys.modules[name] = None  # type: ignore[assignment]  # it cannot be imported then


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path == _ENGINES and not config.option.engines else None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if collector.config.option.fast and report.failed and _needs_heavy(report):
        return pytest.CollectReport(report.nodeid, "passed", None, [])
    return report


def _needs_heavy(report: pytest.CollectReport) -> bool:
    error: BaseException | None = report.call.excinfo.value
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and f"{error.name}.".startswith(tuple(f"{name}." for name in HEAVY)):
            return True
        error = error.__cause__
    return False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.fast:
        return
    slow = [
        item
        for item in items
        if item.get_closest_marker("full") or not HEAVY_FIXTURES.isdisjoint(getattr(item, "fixturenames", ()))
    ]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]
