"""The fault matrix's fixtures, and which of its rows run. See :mod:`tests.faults.matrix`."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.faults.load import LOADS, Load
from tests.faults.matrix import FAST, Begin, Record, Row
from tests.faults.report import provenance
from tests.support.cluster import TQCluster
from tests.support.exporter_process import ExporterProcess, Exposition


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "fault(name, in_ci): one fault; in_ci is the load that plain pytest takes")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a fault under every load with ``--all-loads``, else only under its own one, so that no test is skipped."""
    marker = metafunc.definition.get_closest_marker("fault")
    if marker is not None:
        in_ci = marker.kwargs["in_ci"]
        assert in_ci in LOADS, in_ci
        metafunc.parametrize("load", LOADS if metafunc.config.getoption("all_loads") else (in_ci,))


@pytest.fixture
def begin(request: pytest.FixtureRequest, load: str) -> Begin:
    """Start a row: ``with begin(cluster, *flags, env=…) as row``. The row is recorded when all its checks passed."""
    marker = request.node.get_closest_marker("fault")

    @contextlib.contextmanager
    def start(
        cluster: TQCluster,
        *flags: str,
        env: Mapping[str, str] | None = None,
        steady: Callable[[Exposition], bool] | None = None,
    ) -> Iterator[Row]:
        record = Record(marker.args[0], load)
        with (
            Load(load, cluster) as carried,
            ExporterProcess(*flags, env={**cluster.env, **FAST, **(env or {})}) as exporter,
        ):
            yield Row(record, exporter, carried, steady)
        folder: str | None = request.config.getoption("fault_records")
        if folder is not None:
            _write(Path(folder), record, request.node.nodeid)

    return start


def _write(folder: Path, record: Record, test: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"\W+", "-", f"{record.fault}-{record.load}")
    content = {**record.to_json(), "test": test.partition("[")[0], **provenance()}
    (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
