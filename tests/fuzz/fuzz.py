"""Fuzz with atheris, coverage-guided: ``make fuzz``. Needs ``tq-exporter[fuzz]``.

One process per target. It starts from the target's corpus and writes inputs that reach new code to ``--found``, or with
``--keep`` to the corpus. A failing input is kept beside them as ``crash-…``, with the command to repeat it; add it to
the corpus with the fix. Exits with 1 when any target fails.

    python -m tests.fuzz.fuzz --seconds 60
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET_NAMES = ("listing", "incremental", "grouping", "partitions", "metrics")
MAX_BYTES = 1 << 14
RSS_LIMIT_MB = 1024
INPUT_TIMEOUT_S = 10


def main(argv: list[str] | None = None) -> int:
    """Fuzz every target in turn, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default %(default)s)")
    parser.add_argument("--target", choices=TARGET_NAMES, action="append", help="only this one; repeatable")
    parser.add_argument("--keep", action="store_true", help="add what was found to the corpus")
    parser.add_argument("--found", type=Path, default=Path(tempfile.gettempdir()) / "tq-exporter-fuzz")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        return _fuzz(options.child[0], options.child[1:])
    failed = [name for name in options.target or TARGET_NAMES if not _run(name, options)]
    print(f"failed: {', '.join(failed)}" if failed else "no target failed")
    return 1 if failed else 0


def _run(target: str, options: argparse.Namespace) -> bool:
    corpus = Path(__file__).with_name("corpus") / target
    found = options.found / target
    found.mkdir(parents=True, exist_ok=True)
    print(f"== {target}", flush=True)
    arguments = [
        f"-max_total_time={options.seconds}",
        f"-max_len={MAX_BYTES}",
        f"-rss_limit_mb={RSS_LIMIT_MB}",
        f"-timeout={INPUT_TIMEOUT_S}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
        "-verbosity=0",
        str(corpus if options.keep else found),
        *([] if options.keep else [str(corpus)]),
    ]
    done = subprocess.run([sys.executable, "-m", "tests.fuzz.fuzz", "--child", target, *arguments], check=False)
    return done.returncode == 0


def _fuzz(target: str, arguments: list[str]) -> int:
    import atheris

    with atheris.instrument_imports(include=["dataplane"]):
        from tests.fuzz.targets import TARGETS, poisoned_pickle

    def one(data: bytes) -> None:
        with poisoned_pickle():
            TARGETS[target](data)

    atheris.Setup([f"fuzz-{target}", *arguments], one)
    atheris.Fuzz()  # ends the process
    return 0


if __name__ == "__main__":
    sys.exit(main())
