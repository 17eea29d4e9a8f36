"""Runs the benchmarks one after the other in one process, with one TransferQueue for those that need a real one.

    python -m benchmarks             # all, and their results as JSON into benchmarks/results
    python -m benchmarks --quick     # a few seconds of each: shows that they work. No figure is judged
    python -m benchmarks poll fold   # only these

Exits with 1 if a bar is missed or a benchmark fails; a quick run only if one fails.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
import time
import traceback
from pathlib import Path

from benchmarks.machine import describe
from benchmarks.runner import NAMES, RESULTS, Benchmark, Report, save


def load(name: str) -> Benchmark:
    """Return the benchmark of a module."""
    benchmark = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    assert isinstance(benchmark, Benchmark)
    return benchmark


def main(argv: list[str] | None = None) -> int:
    """Run, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a few seconds of each")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="default: %(default)s")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    machine, started, failed = describe(), time.monotonic(), []
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']}, Python {machine['python']}")
    report = Report(quick=options.quick)
    try:
        for name in options.names or NAMES:
            try:
                _run(report, name, None if options.quick else options.results)
            except Exception:
                traceback.print_exc()
                failed.append(name)
    finally:
        report.close()
    missed = [bar for bar in report.bars if not bar.met]
    print(f"\n{len(options.names or NAMES)} benchmarks in {time.monotonic() - started:.0f} s")
    for bar in missed:
        print(f"missed: {bar.what} is {bar.value:.3g}, at most {bar.at_most:.3g}")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if missed or failed else 0


def _run(report: Report, name: str, results: Path | None) -> None:
    benchmark = load(name)
    print(f"\n== {name}", flush=True)
    result = benchmark.run(report, shlex.split(benchmark.quick) if results is None else [])
    print(f"{result['seconds']} s", flush=True)
    if results is not None:
        save(results / f"{name}.json", result)


if __name__ == "__main__":
    sys.exit(main())
