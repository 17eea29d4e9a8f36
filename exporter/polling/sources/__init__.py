"""The sources. Each polls one thing and applies the answer to the state.

A source never raises and does not depend on the others. Each has its own file. :func:`build_sources` makes those of a
controller, which are polled at an interval; the poller itself makes the source ``discovery``.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.trace import Tracer

from exporter.clock import Clock
from exporter.config import Config
from exporter.polling.readers import Readers
from exporter.polling.sources.base import Next, Source
from exporter.polling.sources.metadata import MetadataSource
from exporter.polling.sources.mooncake import MooncakeSource
from exporter.polling.sources.ping import PingSource
from exporter.polling.sources.storage import StorageSource
from exporter.polling.sources.tq_metrics import TqMetricsSource

__all__ = ["Next", "Source", "build_sources"]


def build_sources(readers: Readers, config: Config, *, tracer: Tracer, clock: Clock) -> tuple[Source[Any], ...]:
    """Return the sources of one controller, in the order of a first round."""
    # TransferQueue's own metrics tell more, and cost the controller less.
    tasks = {} if readers.tq_metrics else {name: rule.tasks for name, rule in config.partitions.items()}
    sources: list[Source[Any]] = [
        PingSource(readers.ping_reader, config, tracer=tracer, clock=clock),
        MetadataSource(readers.metadata_reader, config, tracer=tracer, clock=clock, tasks=tasks),
    ]
    if readers.storage:
        sources.append(
            StorageSource(readers.storage, config, tracer=tracer, clock=clock, left_out=readers.units_left_out)
        )
    if readers.mooncake:
        sources.append(MooncakeSource(readers.mooncake, config, tracer=tracer, clock=clock))
    if readers.tq_metrics:
        sources.append(TqMetricsSource(readers.tq_metrics, config, tracer=tracer, clock=clock))
    return tuple(sources)
