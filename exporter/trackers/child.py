"""The process of one tracker: orders and points come in on standard input, an outcome per message goes out.

It ends when its input ends, so also when the exporter was killed, and then takes at most :data:`CLOSE_S` seconds.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Final

import msgspec

from exporter.trackers.base import Order, Outcome, Point, Tracker, TrackerError

__all__ = ["CLOSE_S", "build", "main", "serve"]

CLOSE_S: Final = 20.0
"""How long a tracker may take to write what is left, seconds. The exporter waits for less before it kills."""

_MAX_ERROR: Final = 500


def build(order: Order) -> Tracker:
    """Return the tracker that *order* names."""
    settings: dict[str, Any] = {name: value for name, value in order.settings.items() if value is not None}
    if order.tracker == "tensorboard":
        from exporter.trackers.tensorboard import TensorBoardTracker

        return TensorBoardTracker(**settings)
    if order.tracker == "wandb":
        from exporter.trackers.wandb import WandbTracker

        return WandbTracker(**settings)
    if order.tracker == "mlflow":
        from exporter.trackers.mlflow import MlflowTracker

        return MlflowTracker(**settings)
    raise TrackerError(f"there is no tracker {order.tracker!r}")


def serve(given: Iterable[bytes], answer: BinaryIO, make: Callable[[Order], Tracker] = build) -> None:
    """Make a tracker of the first message and give it the points of the others, until *given* ends."""
    tracker: Tracker | None = None

    def start(line: bytes) -> None:
        nonlocal tracker
        made = make(msgspec.json.decode(line, type=Order))
        made.start()
        tracker = made

    def log(line: bytes) -> None:
        if tracker is not None:
            tracker.log(msgspec.json.decode(line, type=Point))

    step = start
    for line in given:
        outcome = _outcome(step, line)
        answer.write(msgspec.json.encode(outcome) + b"\n")
        answer.flush()
        if tracker is None:
            return
        step = log
    if tracker is not None:
        tracker.close()


def main(make: Callable[[Order], Tracker] = build) -> None:
    """Run :func:`serve` on this process's own input and output."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not reach the exporter
    given = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    serve(_until_end(given), answer, make)
    os._exit(0)  # the library's threads must not keep this process alive


def _until_end(given: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of *given*. When it ends, this process has :data:`CLOSE_S` seconds left."""
    yield from given
    timer = threading.Timer(CLOSE_S, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _outcome(step: Callable[[bytes], None], line: bytes) -> Outcome:
    try:
        step(line)
    except TrackerError as error:
        return Outcome(_short(str(error)))
    except Exception as error:  # whatever a library raises is a point that was not written
        return Outcome(_short(f"{type(error).__name__}: {error}"))
    return Outcome()


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_ERROR else line[: _MAX_ERROR - 1] + "…"


if __name__ == "__main__":
    main()
