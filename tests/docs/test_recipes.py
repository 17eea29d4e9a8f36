"""The worked examples are followed in a copy of the packages, to their end, and take as many files as they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_code import DOCS, blocks

_ROOT = DOCS.parent
_NUMBERS = ("one", "two", "three", "four", "five")
_CHANGE = re.compile(r'^```diff title="(?P<title>[^"]+)"\n(?P<lines>.*?)^```', re.MULTILINE | re.DOTALL)
_PATH = re.compile(r"# (\S+/\S+\.py)\n")


def _said(page: str) -> int:
    said = re.search(r"\*\*(\w+)\s+files?\*\*", (DOCS / "contribute" / page).read_text())
    assert said is not None
    return _NUMBERS.index(said[1]) + 1


def _follow(page: str, copy: Path) -> set[str]:
    """Do what the page says in a new *copy* of the packages, and return the files of them that it took."""
    for name in ("dataplane", "exporter", "tests/contract", "tests/situations", "tests/support"):
        shutil.copytree(_ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py"):
        shutil.copy(_ROOT / name, copy / name)
    touched = set()
    for title, code in blocks(f"contribute/{page}"):
        path = _PATH.match(code)
        if title is None and path is not None:
            (copy / path[1]).write_text(code.removeprefix(path[0]))
            touched.add(path[1])
    for change in _CHANGE.finditer((DOCS / "contribute" / page).read_text()):
        lines = change["lines"].splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if not line.startswith("+"))
        new = "".join(line[1:] for line in lines if not line.startswith("-"))
        text = (copy / change["title"]).read_text()
        assert text.count(old) == 1, f"{page}: {old!r} is {text.count(old)} times in {change['title']}"
        (copy / change["title"]).write_text(text.replace(old, new))
        touched.add(change["title"])
    return {path for path in touched if not path.startswith("tests/")}


def _contributing(start: str) -> str:
    """Return what a row of the table in CONTRIBUTING.md says must change."""
    row = re.search(rf"^\| {start} \| (.*) \|$", (_ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert row is not None
    return row[1]


def _run(copy: Path, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=copy,
        check=False,
        env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.full  # needs ruff
@pytest.mark.parametrize("page", ["condition.md", "convention.md", "source.md", "backend.md"])
def test_the_examples_pass_the_linter(page: str, tmp_path: Path) -> None:
    touched = _follow(page, tmp_path)
    files = [str(tmp_path / path) for path in touched]
    _run(tmp_path, "-m", "ruff", "check", "--no-cache", *files)
    _run(tmp_path, "-m", "ruff", "format", "--no-cache", "--check", *files)


def test_a_metric_of_a_known_figure() -> None:
    quoted = {
        title for title, _ in blocks("contribute/metric.md") if title is not None and title.startswith("exporter/")
    }
    constant = re.compile(r"\bPARTITION_GROUPS_PER_STEP\b")
    files = {
        path.relative_to(_ROOT).as_posix()
        for package in ("exporter", "dataplane")
        for path in (_ROOT / package).rglob("*.py")
        if constant.search(path.read_text())
    }
    assert files == quoted
    assert len(files) == _said("metric.md")


def test_a_convention(tmp_path: Path) -> None:
    assert len(_follow("convention.md", tmp_path)) == _said("convention.md")
    found = _run(tmp_path, "-c", "from dataplane import conventions as c; print(c.names(), c.get('episodes').by_tag)")
    assert found == "('auto', 'episodes', 'nemo-rl', 'recovery', 'verl') True\n"


_SOURCE = """
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.trace import NoOpTracer

from exporter.catalogue.metrics import EXPORTER_OPERATIONS
from exporter.clock import SystemClock
from exporter.config.loading import load_config
from exporter.model.state import State
from exporter.polling.readers import Readers
from exporter.polling.sources import build_sources
from exporter.telemetry.instruments import InstrumentRecorder

PAGE = 'vllm:num_requests_waiting{engine="0"} 3\\nvllm:num_requests_waiting{engine="1"} 4\\n'


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PAGE.encode())


server = HTTPServer(("127.0.0.1", 0), Handler)
Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"127.0.0.1:{server.server_port}"
config = load_config({}, {"TQ_EXPORTER_GENERATOR_ENDPOINT": endpoint})
reader = SimpleNamespace(ping=None)
*_, source = build_sources(Readers(reader, reader), config, tracer=NoOpTracer(), clock=SystemClock())
recorder = InstrumentRecorder(MeterProvider().get_meter("test"), ping_slo_s=0.1)
state = State(recorder, SystemClock(), max_partitions=9, max_versions=3)
answer = source.poll()
assert answer.value == 7.0, answer
assert dict(source.fold(answer, state).facts) == {"requests_waiting": 7.0}
PAGE = "up 1\\n"
failed = source.poll()
assert failed.error_type == "DataPlaneReadError", failed
assert failed.operation in EXPORTER_OPERATIONS
source.fold(failed, state)
assert [one.up for one in state.snapshot().sources if one.source == "generator"] == [False]
server.shutdown()
server.server_close()
assert source.poll().error_type == "DataPlaneUnavailable"
"""


def test_a_source(tmp_path: Path) -> None:
    assert len(_follow("source.md", tmp_path)) == _said("source.md")
    _run(tmp_path, "-c", _SOURCE)


_CONDITION = """
from exporter.conditions import CONDITIONS
from tests.conditions.test_conditions import hidden, part, scene

rule = next(rule for rule in CONDITIONS if rule.name == "DataPlaneRowsBare")
found = rule.check(scene(parts=[part(bare_rows=1)]))
assert (found.evidence, found.partitions) == ({"rows": 1}, ("train",)), found
assert rule.check(scene()) is False
assert rule.check(hidden()) is None
"""


def test_a_condition(tmp_path: Path) -> None:
    shutil.copytree(_ROOT / "tests/conditions", tmp_path / "tests/conditions")
    assert len(_follow("condition.md", tmp_path)) == _said("condition.md")
    _run(tmp_path, "-c", _CONDITION)


@pytest.mark.full  # needs torch
def test_an_adapter(tmp_path: Path) -> None:
    assert len(_follow("backend.md", tmp_path)) == _said("backend.md")
    pytest_of_it = ("-m", "pytest", "tests/contract", "-k", "bounded", "-q", "-rA", "-p", "no:cacheprovider")
    names = _run(tmp_path, *pytest_of_it)
    passed = [line for line in names.splitlines() if line.startswith("PASSED") and "[bounded" in line]
    assert len(passed) > 80, names
    _run(
        tmp_path,
        "-c",
        "from dataplane import build_data_plane_client as build, DataPlaneWriteError\n"
        "client = build({'enabled': True, 'impl': 'bounded', 'storage_capacity': 2})\n"
        "client.put_samples(['a', 'b'], 'p', tags=[{}, {}])\n"
        "client.put_samples(['b'], 'p', tags=[{'weight_version': 1}])\n"
        "try:\n"
        "    client.put_samples(['c'], 'p', tags=[{}])\n"
        "except DataPlaneWriteError as error:\n"
        "    assert client.list_sample_ids('p') == ['a', 'b'], error\n"
        "else:\n"
        "    raise SystemExit('there was room')\n",
    )
    # An adapter that breaks the contract is found out: the suite runs on it, and on no other.
    adapter = tmp_path / "dataplane/adapters/bounded.py"
    adapter.write_text(adapter.read_text().replace("> self._capacity", "> 0"))
    with pytest.raises(AssertionError, match=r"no room for 1 rows"):
        _run(
            tmp_path, "-m", "pytest", "tests/contract/test_samples.py", "-k", "bounded", "-q", "-p", "no:cacheprovider"
        )


_ERROR_EDITS = {
    "dataplane/errors/types.py": [
        ("__all__ = [\n", '__all__ = [\n    "DataPlaneQuotaExceeded",\n'),
        (
            "ERROR_TYPES: tuple",
            'class DataPlaneQuotaExceeded(DataPlaneError):\n    """No more."""\n\n\nERROR_TYPES: tuple',
        ),
        ("        DataPlaneError,\n", "        DataPlaneQuotaExceeded,\n        DataPlaneError,\n"),
    ],
    "dataplane/errors/translation.py": [
        ("    DataPlaneReadError,\n", "    DataPlaneQuotaExceeded,\n    DataPlaneReadError,\n"),
        (
            "ROWS: Final[tuple[Row, ...]] = (\n",
            "ROWS: Final[tuple[Row, ...]] = (\n"
            '    Row(("builtins.RuntimeError",), DataPlaneQuotaExceeded, "quota exceeded"),\n',
        ),
    ],
    "dataplane/__init__.py": [
        ("    DataPlaneReadError,\n", "    DataPlaneQuotaExceeded,\n    DataPlaneReadError,\n"),
        ('    "DataPlaneReadError",\n', '    "DataPlaneQuotaExceeded",\n    "DataPlaneReadError",\n'),
    ],
}


def test_an_error(tmp_path: Path) -> None:
    _follow("metric.md", tmp_path)  # a copy, in which nothing is changed
    said = _contributing("an error")
    assert said.startswith(f"{_NUMBERS[len(_ERROR_EDITS) - 1]} files")
    for path, edits in _ERROR_EDITS.items():
        assert path in said
        for old, new in edits:
            text = (tmp_path / path).read_text()
            assert old in text, f"{path}: {old}"
            (tmp_path / path).write_text(text.replace(old, new, 1))
    code = (
        "from dataplane import DataPlaneError, DataPlaneQuotaExceeded as Error\n"
        "from dataplane.errors import error_type\n"
        "from dataplane.errors.translation import error_class\n"
        "from exporter.catalogue.metrics import ERRORS\n"
        "assert error_class(RuntimeError('quota exceeded'), 'put_samples', DataPlaneError) is Error\n"
        "assert error_type(Error('x')) in ERRORS.attributes['error.type']\n"
    )
    _run(tmp_path, "-c", code)


def test_the_counts_of_contributing() -> None:
    assert _contributing("a metric of a figure that the snapshot has").startswith("two files")
    assert _contributing("a convention") == "one file"
    assert _contributing("a condition").startswith("two files")
    assert _contributing("an adapter").startswith("three files")
    source = _contributing("a source")
    assert source.startswith("four files")
    assert len(re.findall(r"`[a-z/_]+\.py`", source)) == _said("source.md") - 1  # its own file has another name
