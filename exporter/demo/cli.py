"""The command ``tq-exporter demo``: its flags, and the checks before anything is started."""

from __future__ import annotations

import argparse
import importlib.util
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta

from dataplane.visible import visible_lines
from exporter.config import Listen
from exporter.config.addresses import ListenAddress, OtlpUrl
from exporter.config.values import BadValue, Duration, parse
from exporter.demo.scenarios import HEALTHY, SCENARIOS
from exporter.demo.writers import WRITERS

__all__ = ["DURATION", "add_arguments", "checked", "main"]

_NEEDED: Final = ("ray", "torch", "tensordict", "transfer_queue")
_CHAOS_S: Final = 20.0

DURATION: Final = Annotated[Duration, Meta(ge=1, le=7 * 86400)]
"""How long the demo may run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the demo's flags to *parser*."""
    parser.add_argument(
        "--duration",
        type=checked(DURATION),
        metavar="DURATION",
        help="stop after this time, such as 30s",
    )
    parser.add_argument(
        "--convention",
        choices=tuple(WRITERS),
        default="recovery",
        help="tag convention of the rollouts (default: %(default)s)",
    )
    parser.add_argument(
        "--scenario",
        choices=tuple(SCENARIOS),
        default=HEALTHY,
        metavar="NAME",
        help="incident to play (default: %(default)s). "
        + ". ".join(f"{name}: {each.about}" for name, each in SCENARIOS.items()),
    )
    parser.add_argument(
        "--chaos",
        nargs="?",
        const=_CHAOS_S,
        type=checked(Annotated[Duration, Meta(ge=5, le=3600)]),
        metavar="DURATION",
        help="kill the controller or a storage unit about every DURATION (default: 20s)",
    )
    parser.add_argument(
        "--rollouts",
        type=checked(Annotated[int, Meta(ge=1, le=16)]),
        default=2,
        metavar="N",
        help="rollout actors (default: 2)",
    )
    parser.add_argument(
        "--seed",
        type=checked(Annotated[int, Meta(ge=0)]),
        default=0,
        metavar="N",
        help="the same seed gives the same prompts (default: 0)",
    )
    parser.add_argument(
        "--listen",
        type=checked(ListenAddress),
        default=Listen("127.0.0.1"),
        metavar="ADDRESS:PORT",
        help="where the exporter serves HTTP; port 0 takes any free one (default: 127.0.0.1:9464)",
    )
    parser.add_argument(
        "--otlp",
        type=checked(OtlpUrl),
        metavar="URL",
        help="push metrics and spans of all processes to this receiver",
    )
    parser.add_argument(
        "--default-intervals",
        action="store_true",
        help="let the exporter poll as rarely as in production, not every second",
    )
    parser.add_argument(
        "--logs", type=Path, metavar="FOLDER", help="keep the log files in this folder, and the recording, run.tqr"
    )


def main(args: argparse.Namespace) -> int:
    """Run the demo with the arguments *args*.

    Returns:
        0 when it ran, 1 when it failed while running, 2 when the arguments cannot be used.
    """
    problem = _what_is_missing() or _what_is_taken(args.listen) or _what_is_unwritable(args.logs)
    if problem is not None:
        return _fail(problem, 2)
    from exporter.demo.screen import build_screen
    from exporter.demo.supervisor import DemoError, DemoRequest, supervise

    request = DemoRequest(
        listen=args.listen,
        duration=args.duration,
        logs=args.logs,
        convention=args.convention,
        scenario=args.scenario,
        rollouts=args.rollouts,
        seed=args.seed,
        otlp=args.otlp,
        chaos=args.chaos,
        default_intervals=args.default_intervals,
    )
    try:
        supervise(request, build_screen())
    except DemoError as error:
        return _fail(str(error), 1)
    return 0


def checked(kind: Any) -> Callable[[str], Any]:
    """Return the type of a flag whose values are of *kind*, as in the configuration."""

    def convert(value: str) -> Any:
        try:
            return parse(value, kind)
        except BadValue as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _what_is_missing() -> str | None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return f"the demo needs {', '.join(missing)}: pip install 'tq-exporter[tq]'"


def _what_is_taken(listen: Listen) -> str | None:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((listen.host, listen.port))
    except OSError as error:
        reason = error.strerror or error
        return f"--listen {listen}: {reason}; give another address, such as --listen 127.0.0.1:0 for any free port"
    return None


def _what_is_unwritable(logs: Path | None) -> str | None:
    if logs is None:
        return None
    try:
        logs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"--logs {logs}: {error.strerror or error}; give a folder that can be made"
    return None if os.access(logs, os.W_OK) else f"--logs {logs}: not writable; give another folder"


def _fail(problem: str, code: int) -> int:
    sys.stderr.write(f"tq-exporter demo: {visible_lines(problem)}\n")
    return code
