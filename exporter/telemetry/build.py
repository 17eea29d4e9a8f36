"""Who is speaking: the exporter's build, and the OpenTelemetry resource and scope that all of its telemetry carries."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Final

import msgspec
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, OTELResourceDetector, Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

__all__ = ["SCOPE_NAME", "Build", "build_resource", "build_scope", "this_build"]

SCOPE_NAME: Final = "tq_exporter"

_DISTRIBUTION = "tq-exporter"


@dataclass(frozen=True, slots=True)
class Build:
    """Which exporter this is. ``commit`` is None unless it was installed from a repository."""

    version: str
    commit: str | None = None
    python_version: str = platform.python_version()


def this_build() -> Build:
    """Return what the installed package says of itself."""
    try:
        distribution = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return Build("unknown")
    return Build(distribution.version, _commit(distribution))


def build_resource(build: Build, run: str | None) -> Resource:
    """Return the resource: ours by default, overridden by ``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES``.

    Args:
        build: Gives ``service.version``.
        run: Identity of the training run, the attribute ``run``; None leaves it to the environment.
    """
    given = OTELResourceDetector().detect().attributes
    defaults = {SERVICE_NAME: _DISTRIBUTION, SERVICE_VERSION: build.version}
    attributes = {name: value for name, value in defaults.items() if name not in given}
    if run is not None:
        attributes["run"] = run
    return Resource.create(attributes)


def build_scope(build: Build) -> InstrumentationScope:
    """Return the instrumentation scope of every metric and span."""
    return InstrumentationScope(SCOPE_NAME, build.version)


def _commit(distribution: metadata.Distribution) -> str | None:
    """Return the commit that pip wrote down when it installed from a repository (PEP 610)."""
    origin = distribution.read_text("direct_url.json")
    if origin is None:
        return None
    try:
        return msgspec.json.decode(origin, type=_Origin).vcs_info.commit_id
    except msgspec.DecodeError:
        return None


class _VcsInfo(msgspec.Struct):
    commit_id: str | None = None


class _Origin(msgspec.Struct):
    vcs_info: _VcsInfo = msgspec.field(default_factory=_VcsInfo)
