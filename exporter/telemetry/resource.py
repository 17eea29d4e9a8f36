"""Resource and scope of our telemetry."""

from __future__ import annotations

from typing import Final

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from dataplane.semconv import SCHEMA_URL
from exporter.version import DISTRIBUTION, Build

__all__ = ["build_resource", "build_scope"]

_SCOPE_NAME: Final = "tq_exporter"


def build_resource(build: Build, run: str | None) -> Resource:
    """Return the resource: ours by default, overridden by ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES``.

    Args:
        build: Gives ``service.version``.
        run: Identity of the training run, the attribute ``run``; None leaves it to the environment.
    """
    given = OTELResourceDetector().detect().attributes
    defaults = {SERVICE_NAME: DISTRIBUTION, SERVICE_VERSION: build.version}
    attributes = {name: value for name, value in defaults.items() if name not in given}
    if run is not None:
        attributes["run"] = run
    return Resource.create(attributes)


def build_scope(build: Build) -> InstrumentationScope:
    """Return the instrumentation scope of every metric and span."""
    return InstrumentationScope(_SCOPE_NAME, build.version, SCHEMA_URL)
