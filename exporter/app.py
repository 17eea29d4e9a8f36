"""Assembles and runs the exporter. Discovery, poller, telemetry and web server are connected here only."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType, MappingProxyType

import msgspec

from dataplane.discovery.record import Endpoint
from dataplane.net.addresses import join_host_port
from exporter.clock import Clock, SystemClock
from exporter.conditions import Judge, Limits
from exporter.config import Config, ConfigError
from exporter.discovery import build_discovery
from exporter.logs import set_level
from exporter.memory import keep_memory_small
from exporter.model.history import History
from exporter.model.snapshot import Snapshot
from exporter.polling.poller import Poller
from exporter.polling.readers import connect
from exporter.polling.sources import build_sources
from exporter.polling.sources.target import Target
from exporter.telemetry import Telemetry
from exporter.terminal.state_line import state_line
from exporter.web import Guard, WebServer

__all__ = ["SHUTDOWN_S", "limits_of", "poll_once", "run", "watch"]

logger = logging.getLogger(__name__)

SHUTDOWN_S = 3.0
"""The exporter exits within this many seconds of SIGTERM or SIGINT."""

_SIGNAL_S = 0.5


def run(config: Config, reread: Callable[[], Config] | None = None) -> int:
    """Poll and serve until SIGTERM or SIGINT.

    SIGHUP reads the web configuration and the log level again. SIGUSR1 logs the state in one line.

    Args:
        config: The configuration.
        reread: Reads the configuration again; raises a ConfigError. None keeps the log level.

    Returns:
        The process's exit code: 0.

    Raises:
        ListenError: The exporter cannot listen on the configured address.
        ConfigError: A standard ``OTEL_*`` variable or the web configuration cannot be used.
    """
    keep_memory_small()
    stop = threading.Event()
    clock = SystemClock()
    history = History(clock)
    guard = Guard(config.web.config_file)
    requests: dict[int, Callable[[], None]] = {
        # On a thread of its own: files may be on a disk that hangs, and SIGTERM must still end this process.
        signal.SIGHUP: lambda: threading.Thread(target=_reload, args=(guard, reread), daemon=True).start(),
        signal.SIGUSR1: lambda: _log_always(f"state: {state_line(poller.snapshot, alive=poller.alive())}"),
    }
    with _signals_set(stop, requests) as requested:
        web = WebServer(
            config.listen,
            scrape=lambda accept, names: telemetry.scrape(accept, names),  # noqa: PLW0108 - made below
            snapshot=lambda: poller.snapshot,
            alive=lambda: poller.alive(),  # noqa: PLW0108
            history=history,
            guard=guard,
            page=not config.web.disable_page,
            allowed_hosts=config.web.allowed_hosts,
            refused_login=lambda: telemetry.recorder.refused_login(),  # noqa: PLW0108
        )
        host, port = web.listen()  # first: when the port is in use, nothing else has started
        try:
            telemetry, poller = _assemble(config, clock, Judge(history, limits_of(config)))
        except BaseException:
            web.stop()
            raise
        try:
            web.start()
            poller.start()
            logger.info("serving metrics on %s://%s/metrics", web.scheme, join_host_port(host, port))
            # Python runs signal handlers on this thread, and a signal that another thread caught does not wake it.
            while not stop.wait(_SIGNAL_S):
                while requested:
                    requests[requested.pop()]()
            logger.info("stopping")
        finally:
            web.stop()
            if not poller.stop(timeout_s=SHUTDOWN_S / 3):
                logger.info("exiting while a poll still waits for its answer")
            telemetry.shutdown(timeout_s=SHUTDOWN_S / 3)
    return 0


def poll_once(config: Config) -> Snapshot:
    """Poll every source once, without serving anything, and return the snapshot."""
    clock = SystemClock()
    config = msgspec.structs.replace(config, metadata=msgspec.structs.replace(config.metadata, incremental=False))
    telemetry, poller = _assemble(config, clock, Judge(History(clock), limits_of(config)))
    try:
        return poller.poll_once()
    finally:
        telemetry.shutdown(timeout_s=SHUTDOWN_S / 3)


def watch(config: Config, seconds: float) -> Snapshot:
    """Poll for *seconds* from the first full round on, without serving anything, and return the last snapshot.

    The snapshot's flow is what happened meanwhile. Without a first round, the snapshot after *seconds* is returned.
    Who watches for less than 80 seconds does not wait a whole minute to call a counter quiet.
    """
    clock = SystemClock()
    limits = replace(limits_of(config), quiet_s=min(Limits().quiet_s, 0.75 * seconds))
    telemetry, poller = _assemble(config, clock, Judge(History(clock), limits))
    stop = threading.Event()
    try:
        with _signals_set(stop):
            poller.start()
            until = time.monotonic() + seconds
            listed = False
            while time.monotonic() < until and not stop.wait(_SIGNAL_S):
                if not listed and poller.snapshot.trained is not None:
                    listed, until = True, time.monotonic() + seconds
            return poller.snapshot
    finally:
        poller.stop(timeout_s=SHUTDOWN_S / 3)
        telemetry.shutdown(timeout_s=SHUTDOWN_S / 3)


def limits_of(config: Config) -> Limits:
    """Return what the conditions are judged by."""
    given = {name: getattr(config.thresholds, name) for name in config.thresholds.__struct_fields__}
    return Limits(ping_slo_s=config.ping.slo, thresholds={**Limits().thresholds, **given})


def _assemble(config: Config, clock: Clock, judge: Judge) -> tuple[Telemetry, Poller]:
    telemetry = Telemetry(config, lambda: poller.snapshot, clock=clock)

    def bind(endpoint: Endpoint) -> Target:
        readers = connect(config, endpoint)
        return Target(endpoint, readers, build_sources(readers, config, tracer=telemetry.tracer, clock=clock))

    poller = Poller(
        config,
        discovery=build_discovery(config),
        bind=bind,
        recorder=telemetry.recorder,
        tracer=telemetry.tracer,
        clock=clock,
        judge=judge.judge,
    )
    return telemetry, poller


def _reload(guard: Guard, reread: Callable[[], Config] | None) -> None:
    guard.reload()
    if reread is None:
        return
    try:
        level = reread().log.level
    except ConfigError as error:
        logger.error("the configuration cannot be read again, the log level stays: %s", error)
        return
    set_level(level)
    _log_always(f"the log level is {level}; other changes of the configuration need a restart")


def _log_always(message: str) -> None:
    """Log *message*, which somebody has asked for, whatever the level."""
    logger.handle(logger.makeRecord(logger.name, logging.INFO, __file__, 0, message, (), None))


@contextmanager
def _signals_set(stop: threading.Event, requests: Mapping[int, object] = MappingProxyType({})) -> Iterator[set[int]]:
    """Make SIGTERM and SIGINT set *stop*, and those of *requests* add themselves to the set that this yields.

    A second SIGTERM or SIGINT goes to the previous handler.
    """
    requested: set[int] = set()

    def note(number: int, frame: FrameType | None) -> None:
        requested.add(number)

    def handle(number: int, frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, *requests)}
    for number in before:
        signal.signal(number, note if number in requests else handle)
    try:
        yield requested
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
