"""Assembles and runs the exporter. Discovery, poller, telemetry and web server are connected here only."""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from dataplane.discovery.record import Endpoint
from dataplane.net.addresses import join_host_port
from exporter.clock import Clock, SystemClock
from exporter.conditions import Judge, Limits
from exporter.config import Config, ConfigError
from exporter.diagnosis.keeper import Keeper
from exporter.discovery import build_discovery
from exporter.groups import Groups
from exporter.logs import set_level
from exporter.memory import keep_memory_small
from exporter.model.history import History
from exporter.model.snapshot import Snapshot
from exporter.polling.poller import Poller
from exporter.polling.readers import connect
from exporter.polling.sources import build_sources
from exporter.polling.sources.target import Target
from exporter.recording.departures import DepartureNotes
from exporter.recording.summary import SummaryOnly
from exporter.rl_insight import Registration, server_url
from exporter.telemetry import Telemetry
from exporter.terminal.state_line import state_line
from exporter.trackers.feeder import Trackers, orders
from exporter.version import this_build
from exporter.web import Guard, WebServer

if TYPE_CHECKING:  # the recording loads SQLite
    from exporter.diagnosis.evidence import Evidence
    from exporter.recording.archive import Archive
    from exporter.recording.recorder import FlightRecorder

__all__ = [
    "SHUTDOWN_S",
    "Watched",
    "groups_of",
    "limits_of",
    "poll_groups",
    "poll_once",
    "run",
    "watch",
    "watched",
]

logger = logging.getLogger(__name__)

SHUTDOWN_S = 3.0
"""The exporter exits within this many seconds of SIGTERM or SIGINT."""

_SIGNAL_S = 0.5


def run(config: Config, reread: Callable[[], Config] | None = None) -> int:
    """Poll and serve until SIGTERM or SIGINT.

    SIGHUP reads the web configuration and the log level again. SIGUSR1 logs the state in one line, and writes a
    diagnosis.

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
    recorder, archive = _recording(config, clock)
    requests: dict[int, Callable[[], None]] = {
        # On a thread of its own: files may be on a disk that hangs, and SIGTERM must still end this process.
        signal.SIGHUP: lambda: threading.Thread(target=_reload, args=(guard, reread), daemon=True).start(),
        signal.SIGUSR1: lambda: report(),  # noqa: PLW0108 - made below
    }

    def collect() -> Evidence:
        from exporter.diagnosis.evidence import collect_here  # loaded when somebody asks

        page, _ = telemetry.scrape(None)
        about = None if groups is None else groups.about
        return collect_here(poller.snapshot, history, page, config, os.environ, alive=poller.alive(), groups=about)

    def report() -> None:
        _log_always(f"state: {state_line(poller.snapshot, alive=poller.alive())}")
        keeper.start(collect)

    keeper = Keeper(config, _log_always)
    groups = None if config.web.disable_groups else groups_of(config, lambda: poller)
    register_at = server_url(config.tracking)
    with _signals_set(stop, requests) as requested:
        web = WebServer(
            config.listen,
            scrape=lambda accept, names: telemetry.scrape(accept, names),  # noqa: PLW0108 - made below
            snapshot=lambda: poller.snapshot,
            alive=lambda: poller.alive(),  # noqa: PLW0108
            history=history,
            about=lambda: _about(config),
            guard=guard,
            page=not config.web.disable_page,
            recorded=archive,
            groups=None if groups is None else groups.encode,
            allowed_hosts=config.web.allowed_hosts,
            refused_login=lambda: telemetry.recorder.refused_login(),  # noqa: PLW0108
        )
        host, port = web.listen()  # first: when the port is in use, nothing else has started
        try:
            judge = Judge(history, limits_of(config)).judge

            def judged(snapshot: Snapshot) -> Snapshot:
                notes.note(poller.departed)
                return recorder.observe(judge(snapshot))

            notes = DepartureNotes(recorder.record_departures)
            telemetry, poller = _assemble(config, clock, judged)
        except BaseException:
            web.stop()
            raise
        trackers = Trackers(
            orders(config.tracking),
            lambda: poller.snapshot,
            telemetry.recorder.tracker_point,
            interval_s=config.tracking.interval,
            clock=clock,
        )
        registration = Registration(
            register_at, host, port, scheme=web.scheme, protected=bool(guard.current().users), run=config.run
        )
        try:
            web.start()
            recorder.start()
            poller.start()
            trackers.start()
            registration.start()
            logger.info("serving metrics on %s://%s/metrics", web.scheme, join_host_port(host, port))
            # Python runs signal handlers on this thread, and a signal that another thread caught does not wake it.
            while not stop.wait(_SIGNAL_S):
                while requested:
                    requests[requested.pop()]()
            logger.info("stopping")
        finally:
            registration.stop()
            trackers.stop(timeout_s=SHUTDOWN_S * 0.8)
            web.stop()
            if not poller.stop(timeout_s=SHUTDOWN_S / 3):
                logger.info("exiting while a poll still waits for its reply")
            notes.note(poller.departed)
            recorder.stop(timeout_s=SHUTDOWN_S / 3)
            telemetry.shutdown(timeout_s=SHUTDOWN_S / 3)
            trackers.join()
    return 0


def poll_once(config: Config) -> Snapshot:
    """Poll every source once, without serving anything, and return the snapshot."""
    return _polled_once(config).snapshot


def poll_groups(config: Config) -> Groups:
    """Poll every source once, without serving anything, and return what answers questions about the groups."""
    poller = _polled_once(config)
    return groups_of(config, lambda: poller)


def _polled_once(config: Config) -> Poller:
    clock = SystemClock()
    # Nothing follows that could be compared with this listing.
    config = msgspec.structs.replace(config, metadata=msgspec.structs.replace(config.metadata, incremental=False))
    telemetry, poller = _assemble(config, clock, Judge(History(clock), limits_of(config)).judge)
    try:
        poller.poll_once()
    finally:
        telemetry.shutdown(timeout_s=SHUTDOWN_S / 3)
    return poller


class Watched(NamedTuple):
    """A data plane that is polled without serving anything.

    Attributes:
        snapshot: Returns the latest snapshot.
        history: The history up to it.
        scrape: Returns the exposition.
        alive: Whether the loop of polls runs.
        groups: Answers questions about groups.
        wait: Waits so many seconds, and returns whether SIGTERM or SIGINT ended the wait.
    """

    snapshot: Callable[[], Snapshot]
    history: History
    scrape: Callable[[], bytes]
    alive: Callable[[], bool]
    groups: Groups
    wait: Callable[[float], bool]

    def listed(self, timeout_s: float) -> bool:
        """Wait until the partitions were listed, at most *timeout_s*; return whether they were."""
        until = time.monotonic() + timeout_s
        while (listed := self.snapshot().trained is not None) is False and time.monotonic() < until:
            if self.wait(min(_SIGNAL_S, max(until - time.monotonic(), 0.0))):
                break
        return listed


@contextmanager
def watched(config: Config, seconds: float = math.inf) -> Iterator[Watched]:
    """Poll without serving anything, and yield what is seen.

    Args:
        config: The configuration.
        seconds: How long it will be watched. Who watches for less than 80 seconds does not wait a whole minute to call
            a counter quiet.
    """
    clock = SystemClock()
    history = History(clock)
    limits = replace(limits_of(config), quiet_s=min(Limits().quiet_s, 0.75 * seconds))
    telemetry, poller = _assemble(config, clock, Judge(history, limits).judge)
    stop = threading.Event()
    try:
        with _signals_set(stop):
            poller.start()
            yield Watched(
                lambda: poller.snapshot,
                history,
                lambda: telemetry.scrape(None)[0],
                poller.alive,
                groups_of(config, lambda: poller),
                _waiting(stop),
            )
    finally:
        poller.stop(timeout_s=SHUTDOWN_S / 3)
        telemetry.shutdown(timeout_s=SHUTDOWN_S / 3)


def _waiting(stop: threading.Event) -> Callable[[float], bool]:
    """Return :attr:`Watched.wait`. It looks often: a signal that another thread caught wakes nobody who waits."""

    def wait(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0 and not stop.is_set():
            stop.wait(min(_SIGNAL_S, left_s))
        return stop.is_set()

    return wait


def watch(config: Config, seconds: float) -> Snapshot:
    """Poll for *seconds* from the first full round on, without serving anything, and return the last snapshot.

    The snapshot's flow is what happened meanwhile. Without a first round, the snapshot after *seconds* is returned.
    """
    with watched(config, seconds) as seen:
        if seen.listed(seconds):
            seen.wait(seconds)
        return seen.snapshot()


def limits_of(config: Config) -> Limits:
    """Return what the conditions are judged by."""
    given = {name: getattr(config.thresholds, name) for name in config.thresholds.__struct_fields__}
    return Limits(ping_slo_s=config.ping.slo, thresholds={**Limits().thresholds, **given})


def _recording(config: Config, clock: Clock) -> tuple[FlightRecorder | SummaryOnly, Archive | None]:
    """Return who records the run, and who reads the recording."""
    file = config.history.file
    if file is None:
        return SummaryOnly(config.thresholds.staleness_versions), None
    from exporter.recording.archive import Archive
    from exporter.recording.recorder import FlightRecorder

    recorder = FlightRecorder(
        file,
        config.history.max_size,
        window=config.thresholds.staleness_versions,
        clock=clock,
        version=str(this_build()),
        run=config.run,
    )
    return recorder, Archive(file)


def groups_of(config: Config, poller: Callable[[], Poller]) -> Groups:
    """Return what answers questions about the groups that a poller has listed."""
    return Groups(lambda: poller().groups, lambda: poller().snapshot, limits_of(config), trace_url=config.web.trace_url)


def _assemble(config: Config, clock: Clock, judge: Callable[[Snapshot], Snapshot]) -> tuple[Telemetry, Poller]:
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
        judge=judge,
    )
    return telemetry, poller


def _about(config: Config) -> bytes:
    from exporter.diagnosis.about import encode_about  # loaded when somebody asks

    return encode_about(config, os.environ)


def _reload(guard: Guard, reread: Callable[[], Config] | None) -> None:
    guard.reload()
    if reread is None:
        return
    try:
        level = reread().log.level
    except ConfigError as error:
        logger.error("the configuration cannot be read; the log level stays as it is: %s", error)
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
