"""What all benchmarks share: options, tables that are printed row by row, bars, and results as JSON.

A benchmark is a module with an object ``BENCHMARK``. Its ``measure`` fills the tables of a :class:`Report`. The module
can be run by itself (``python -m benchmarks.poll``) or with the others (``python -m benchmarks``).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.machine import describe, load

if TYPE_CHECKING:
    from tests.support.cluster import TQCluster

__all__ = ["NAMES", "RESULTS", "Bar", "Benchmark", "Column", "Report", "Table", "exponent", "no_options", "save"]

Value = float | int | str | None
"""A figure of a table; None where there is none."""

NAMES = (
    *("scrape", "otlp", "fold", "groups", "incremental", "startup", "recorder", "trackers"),
    *("detect", "footprint", "poll", "harm", "instrument", "million", "fleet"),
)
"""All benchmarks in the order of a run: the first measure memory of this process, and the last load torch."""

RESULTS = Path(__file__).with_name("results")

NOTHING = "\u2013"

_INNERMOST = re.compile(r"\{[^{}\[\]]*\}")
_LINES = re.compile(r"\n\s*")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: Its name in a row.
        title: What stands above it, with the unit.
        format: How its figures are written, as Python's ``format`` has it; empty for texts.
        width: Characters of its longest text.
    """

    key: str
    title: str
    format: str = ""
    width: int = 9

    def text(self, value: Value) -> str:
        """Return *value* as it stands in the table."""
        return NOTHING if value is None else value if isinstance(value, str) else format(value, self.format)


@dataclass
class Table:
    """A table, printed while it is measured. Rows may have figures that no column shows: they are in the JSON only."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: list[dict[str, Value]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def begin(self) -> Table:
        """Print the title and the names of the columns."""
        print(f"\n{self.title}\n" + " ".join(c.title.rjust(_width(c)) for c in self.columns), flush=True)
        return self

    def row(self, **values: Value) -> None:
        """Add a row and print it."""
        self.rows.append({key: float(f"{v:.5g}") if isinstance(v, float) else v for key, v in values.items()})
        print(" ".join(c.text(values.get(c.key)).rjust(_width(c)) for c in self.columns), flush=True)

    def note(self, sentence: str) -> None:
        """Add a sentence that stands below the table, and print it."""
        self.notes.append(sentence)
        print(sentence, flush=True)


def _width(column: Column) -> int:
    return max(len(column.title), 9 if column.format else column.width)


@dataclass(frozen=True)
class Bar:
    """What a figure must not exceed."""

    what: str
    value: float
    at_most: float

    @property
    def met(self) -> bool:
        """Whether it does not."""
        return self.value <= self.at_most


class Report:
    """The tables and bars of one run, and the TransferQueue that its benchmarks share.

    Attributes:
        quick: Whether a run this short only shows that the benchmarks work: no bar is judged.
    """

    def __init__(self, *, quick: bool = False) -> None:
        self.quick = quick
        self.tables: list[Table] = []
        self.bars: list[Bar] = []
        self._stack = ExitStack()
        self._cluster: TQCluster | None = None
        self._client: Any = None
        self._failed: RuntimeError | None = None

    def table(self, name: str, title: str, columns: Sequence[Column]) -> Table:
        """Return a new table whose head is printed."""
        self.tables.append(Table(name, title, columns))
        return self.tables[-1].begin()

    def bar(self, what: str, value: float, at_most: float) -> None:
        """Judge a figure; a quick run only has it in its table."""
        if self.quick:
            return
        self.bars.append(Bar(what, value, at_most))
        verdict = "met" if self.bars[-1].met else "MISSED"
        print(f"bar: {what} {value:.3g}, at most {at_most:.3g}: {verdict}", flush=True)

    @property
    def cluster(self) -> TQCluster:
        """A local Ray with a TransferQueue, started when it is first asked for. Its user empties it first."""
        if self._failed is not None:  # another attempt would take minutes
            raise RuntimeError("TransferQueue did not start before") from self._failed
        if self._cluster is None:
            os.environ["TQ_LOGGING_LEVEL"] = "ERROR"
            from tests.support.cluster import RAY_ENV, TQCluster

            os.environ.update(RAY_ENV)  # Ray reads them when it is imported
            try:
                self._cluster = self._stack.enter_context(TQCluster(metrics=True))
            except RuntimeError as error:
                self._failed = error
                raise
        return self._cluster

    @property
    def client(self) -> Any:
        """A client of :attr:`cluster`, connected when it is first asked for: Ray can be connected to only once."""
        if self._client is None:
            address = self.cluster.ray_address
            import ray

            from dataplane.factory import build_data_plane_client

            ray.init(address=address, log_to_driver=False, configure_logging=False)
            self._stack.callback(ray.shutdown)
            settings = {"enabled": True, "claim_meta_poll_interval_s": 0.005}
            self._client = build_data_plane_client(settings, bootstrap=False)
            self._stack.callback(self._client.close)
        return self._client

    def close(self) -> None:
        """Stop what was started."""
        self._stack.close()


def no_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing: for a benchmark without options."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: Its module.
        about: The module's docstring.
        measure: Fills the report.
        quick: The arguments of a run that takes a few seconds.
        options: Adds its options to a parser.
    """

    name: str
    about: str | None
    measure: Callable[[Report, argparse.Namespace], None]
    quick: str
    options: Callable[[argparse.ArgumentParser], None] = no_options

    def run(self, report: Report, arguments: Sequence[str]) -> dict[str, object]:
        """Measure with *arguments*, and return the result as JSON has it."""
        options = self._parser().parse_args(arguments)
        machine, started = describe(), time.monotonic()
        tables, bars = len(report.tables), len(report.bars)
        self.measure(report, options)
        return {
            "benchmark": self.name,
            "command": shlex.join(["python", "-m", f"benchmarks.{self.name}", *arguments]),
            "machine": {**machine, "load_after": load()},
            "seconds": round(time.monotonic() - started),
            "tables": [asdict(table) for table in report.tables[tables:]],
            "bars": [{**asdict(bar), "met": bar.met} for bar in report.bars[bars:]],
        }

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run as a program; return 1 when a bar is missed."""
        parser = self._parser()
        parser.add_argument("--json", type=Path, metavar="FILE", help="write the result with the machine to FILE")
        options, rest = _split(parser, argv)
        report = Report()
        try:
            result = self.run(report, rest)
        finally:
            report.close()
        if options.json:
            save(options.json, result)
        return 0 if all(bar.met for bar in report.bars) else 1

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"python -m benchmarks.{self.name}",
            description=self.about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.options(parser)
        return parser


def _split(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the options, and the arguments without ``--json FILE``."""
    outer = argparse.ArgumentParser(add_help=False)
    outer.add_argument("--json", type=Path)
    _, rest = outer.parse_known_args(argv)
    return parser.parse_args(argv), rest


def save(file: Path, result: Mapping[str, object]) -> None:
    """Write a result, a row of a table per line, so that a diff shows which figures changed."""
    text = json.dumps(result, indent=1, ensure_ascii=False)
    text = _INNERMOST.sub(lambda match: _LINES.sub(" ", match[0]), text)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n")


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Return the exponent with which *costs* grow over *sizes*: the slope of their logarithms, by least squares."""
    return statistics.linear_regression([math.log(s) for s in sizes], [math.log(c) for c in costs]).slope
