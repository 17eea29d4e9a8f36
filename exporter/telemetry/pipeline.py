"""The exporter's OpenTelemetry pipeline: resource, instruments, pull, push and traces."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NoOpTracer, Tracer

from exporter.clock import Clock, SystemClock
from exporter.config import Config, ConfigError
from exporter.config.model import PollTraces
from exporter.model.snapshot import Snapshot
from exporter.telemetry.environment import check_variables
from exporter.telemetry.instruments import InstrumentRecorder, Outcome, Signal
from exporter.telemetry.merged import MergedMetrics
from exporter.telemetry.notable import NotableTraces
from exporter.telemetry.otlp import MetricPush, SpanPush, metric_exporter, span_exporter
from exporter.telemetry.outcomes import ExportLog, Outcomes
from exporter.telemetry.prometheus import ScrapeReader
from exporter.telemetry.render import render
from exporter.telemetry.resource import build_resource, build_scope
from exporter.telemetry.targets import PushTarget, push_interval_s, push_target
from exporter.version import Build, this_build

__all__ = ["Telemetry", "check_environment"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_SIGNALS: Final[tuple[Signal, ...]] = ("metrics", "traces")


class Telemetry:
    """The exporter's own OpenTelemetry pipeline. It sets no global provider.

    Attributes:
        recorder: Counts events under a fixed label set.
        tracer: Makes spans; costs nothing when traces are not pushed.

    Args:
        config: The run, the ping objective and where to push.
        snapshot: Returns the latest snapshot; called on every scrape and push, from their threads.
        clock: Spaces the log lines about failing pushes; by default the system's.
        build: Version of this exporter; by default that of the installed package.
        environ: The standard ``OTEL_*`` variables that this module reads; by default the process's.

    Raises:
        ConfigError: A standard variable cannot be used.
    """

    def __init__(
        self,
        config: Config,
        snapshot: Callable[[], Snapshot],
        *,
        clock: Clock | None = None,
        build: Build | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        build = build or this_build()
        targets = _targets(config, environ)
        metrics_target, traces_target = targets
        interval_s = push_interval_s(config.otlp, environ)
        check_variables(filter(None, targets), environ)
        resource, scope = build_resource(build, config.run, config.listen), build_scope(build)
        merged = MergedMetrics(resource, scope, lambda: render(snapshot(), build))
        self._clock = clock or SystemClock()
        self._export_log = ExportLog()
        self._export_log.install()
        self._scrape_reader = ScrapeReader(merged)
        readers: list[MetricReader] = [self._scrape_reader]
        if metrics_target is not None:
            push = MetricPush(_build(metric_exporter, metrics_target), merged, self._outcomes(metrics_target))
            readers.append(PeriodicExportingMetricReader(push, interval_s * 1000))
        self._meter_provider = MeterProvider(readers, resource, shutdown_on_exit=False)
        self.recorder = InstrumentRecorder(
            self._meter_provider.get_meter(scope.name, scope.version, scope.schema_url),
            ping_slo_s=config.ping.slo,
            pushed=[target.signal for target in targets if target is not None],
            trackers=config.tracking.chosen,
        )
        self._tracer_provider: TracerProvider | None = None
        self.tracer: Tracer = NoOpTracer()
        if traces_target is not None:
            self._tracer_provider = self._build_tracer_provider(traces_target, resource, config.traces.polls)
            self.tracer = self._tracer_provider.get_tracer(scope.name, scope.version, schema_url=scope.schema_url)
        for target in targets:
            if target is not None:
                logger.info("pushing %s to %s over %s", target.signal, target.receiver, target.protocol)

    def scrape(self, accept: str | None, names: Sequence[str] = ()) -> tuple[bytes, str]:
        """Return the metrics as text and their content type, from the latest snapshot. Does no I/O.

        Args:
            accept: The request's ``Accept`` header: OpenMetrics when it prefers that, else the classic format.
            names: Names of the only samples to return; all when there are none.
        """
        return self._scrape_reader.scrape(accept, names)

    def shutdown(self, timeout_s: float) -> None:
        """Push what is left and stop. Returns within *timeout_s* seconds even when the receiver does not answer."""
        stops = [lambda: self._meter_provider.shutdown(timeout_s * 1000)]
        if self._tracer_provider is not None:
            stops.append(self._tracer_provider.shutdown)
        threads = [threading.Thread(target=_stop, args=(stop,), daemon=True) for stop in stops]
        deadline = self._clock.monotonic() + timeout_s
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(deadline - self._clock.monotonic(), 0.0))
        if any(thread.is_alive() for thread in threads):
            logger.warning("the OTLP receiver did not accept the last push within %g s; the push is lost", timeout_s)
        self._export_log.remove()

    def _outcomes(self, target: PushTarget) -> Outcomes:
        return Outcomes(target, self._count, self._export_log, self._clock)

    def _count(self, signal: Signal, outcome: Outcome) -> None:
        self.recorder.export(signal, outcome)  # read late: the recorder is created after the readers that call this

    def _build_tracer_provider(self, target: PushTarget, resource: Resource, polls: PollTraces) -> TracerProvider:
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        batch = BatchSpanProcessor(SpanPush(_build(span_exporter, target), self._outcomes(target)))
        provider.add_span_processor(batch if polls == "all" else NotableTraces(batch))
        return provider


def _targets(config: Config, environ: Mapping[str, str]) -> list[PushTarget | None]:
    """Return the receivers of metrics and traces, None for what is not pushed. All traces are those of polls."""
    metrics, traces = (push_target(signal, config.otlp, environ) for signal in _SIGNALS)
    return [metrics, None if config.traces.polls == "none" else traces]


def check_environment(config: Config, environ: Mapping[str, str]) -> None:
    """Check *config* and the standard variables as :class:`Telemetry` does, without starting anything.

    Raises:
        ConfigError: A standard variable cannot be used.
    """
    push_interval_s(config.otlp, environ)
    check_variables(filter(None, _targets(config, environ)), environ)


def _build(exporter: Callable[[PushTarget], T], target: PushTarget) -> T:
    """Create an SDK exporter. It reads further variables; what it raises about a wrong one becomes a ConfigError."""
    try:
        return exporter(target)
    except Exception as error:
        variables = f"OTEL_EXPORTER_OTLP_* and OTEL_EXPORTER_OTLP_{target.signal.upper()}_*"
        raise ConfigError(variables, f"{type(error).__name__}: {error}", "correct the variable or unset it") from error


def _stop(stop: Callable[[], None]) -> None:
    """Shut down. Runs in a thread of its own, since the SDK may block beyond its deadline and then raise."""
    try:
        stop()
    except Exception as error:  # the SDK raises bare Exception; the process is ending either way
        logger.debug("shutting down telemetry failed: %s", error)
