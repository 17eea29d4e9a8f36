"""A telemetry pipeline around a fixed snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from exporter.config import Config, Otlp
from exporter.model.snapshot import Snapshot
from exporter.telemetry import Telemetry
from exporter.version import Build
from tests.support.snapshots import rich_snapshot

BUILD = Build("1.2.3", "0123abc", "3.11.7")


@contextmanager
def telemetry(config: Config | None = None, snapshot: Snapshot | None = None, **options) -> Iterator[Telemetry]:
    """Build and shut down a pipeline. Its OTLP interval never passes, so the push at shutdown is the only one."""
    snap = snapshot or rich_snapshot()
    built = Telemetry(config or Config(run="grpo-7b"), lambda: snap, build=BUILD, **{"environ": {}, **options})
    try:
        yield built
    finally:
        built.shutdown(timeout_s=5.0)


def pushing_to(url: str, **otlp) -> Config:
    return Config(run="grpo-7b", otlp=Otlp(endpoint=url, **{"interval": 3600.0, **otlp}))
