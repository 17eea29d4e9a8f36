"""Checks of the standard ``OTEL_*`` variables that the SDK reads.

A wrong value gives a traceback, a log line or nothing in the SDK, depending on the variable. Here each gives one error
that names variable, value and remedy. Only variables that have an effect are checked: those of a signal that is not
pushed may be meant for another program.
"""

from __future__ import annotations

import math
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from dataplane.files import read_regular
from exporter.config import ConfigError
from exporter.config.addresses import mask_url
from exporter.telemetry.targets import PushTarget

__all__ = ["check_variables"]


class _Rule(NamedTuple):
    """What a variable may say. ``problem`` returns what is wrong with a value, None if nothing is."""

    problem: Callable[[str], str | None]
    remedy: str


def check_variables(targets: Iterable[PushTarget], environ: Mapping[str, str]) -> None:
    """Check every variable that has an effect.

    Args:
        targets: The receivers of the signals that are pushed.
        environ: The environment.

    Raises:
        ConfigError: A value cannot be used.
    """
    rules = dict(_ALWAYS)
    for target in targets:
        own = f"OTEL_EXPORTER_OTLP_{target.signal.upper()}_"
        for name, rule in _receiver(target).items():
            rules[f"OTEL_EXPORTER_OTLP_{name}"] = rules[own + name] = rule
        rules |= _METRICS if target.signal == "metrics" else _TRACES
    for variable, rule in rules.items():
        value = environ.get(variable)
        if value is not None and (problem := rule.problem(value)) is not None:
            raise ConfigError(variable, problem, f"{rule.remedy}, or unset it")
    if "OTEL_BSP_MAX_QUEUE_SIZE" in rules:
        _check_sampler(environ)
        _check_queue(environ)


def _check_sampler(environ: Mapping[str, str]) -> None:
    variable = "OTEL_TRACES_SAMPLER_ARG"
    ratio = environ.get(variable)
    if ratio is None or not environ.get("OTEL_TRACES_SAMPLER", "").lower().endswith("traceidratio"):
        return
    if not 0 <= _to_float(ratio) <= 1:
        raise ConfigError(variable, f"{ratio!r} is not a share of the traces", "write a number from 0 to 1")


def _check_queue(environ: Mapping[str, str]) -> None:
    queue = int(environ.get("OTEL_BSP_MAX_QUEUE_SIZE", 2048))
    batch = int(environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512))
    if batch > queue:
        raise ConfigError(
            "OTEL_BSP_MAX_QUEUE_SIZE",
            f"a queue of {queue} spans holds no batch of {batch}",
            f"raise it, or set OTEL_BSP_MAX_EXPORT_BATCH_SIZE to at most {queue}",
        )


# Forms of values. Where the specification says that an empty value counts as unset and the SDK does so, it is accepted.


def _one_of(*names: str, any_case: bool = True, empty: bool = False) -> _Rule:
    accepted = {*names, ""} if empty else set(names)

    def problem(value: str) -> str | None:
        text = value.strip().lower() if any_case else value
        return None if text in accepted else f"{value!r} is not supported"

    return _Rule(problem, f"write {' or '.join(filter(None, (', '.join(names[:-1]), names[-1])))}")


def _number(what: str, *, whole: bool = False, least: float = 0, empty: bool = False) -> _Rule:
    def problem(value: str) -> str | None:
        if empty and not value.strip():
            return None
        number = _to_int(value) if whole else _to_float(value)
        return None if least <= number < math.inf else f"{value!r} is not {what}"

    return _Rule(problem, f"write a {'whole ' if whole else ''}number of at least {least:g}")


def _to_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _to_int(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return math.nan


def _attributes(value: str) -> str | None:
    wrong = [item for item in value.split(",") if item.strip() and not re.fullmatch(r"\s*[^\s=][^=]*=.*", item)]
    return f"{wrong[0].strip()!r} is not key=value" if wrong else None


_HEADER: Final = re.compile(r"\s*[\w!#$%&'*+.^`|~-]+\s*=[^\x00-\x08\x0a-\x1f\",;\\\x7f-\U0010ffff]*", re.ASCII)


def _headers(value: str) -> str | None:
    """Values of headers are secrets, so a wrong one is named by its position."""
    for number, item in enumerate(value.split(","), 1):
        if item.strip() and not _HEADER.fullmatch(item):
            return f"header {number} is not name=value with the value URL-encoded"
    return None


def _file(value: str) -> str | None:
    if not value:
        return None
    try:
        read_regular(Path(value))
    except OSError as error:
        return f"{value!r} cannot be read ({error.strerror})"
    return None


def _authorities(value: str) -> str | None:
    if not value or Path(value).is_dir():
        return None
    problem = _file(value)
    if problem is None:
        try:
            ssl.create_default_context(cafile=value)
        except (ssl.SSLError, ValueError):
            return f"{value!r} has no certificate in it"
    return problem


def _url(*, scheme: bool) -> Callable[[str], str | None]:
    def problem(value: str) -> str | None:
        if not value:
            return None
        try:
            parts = urlsplit(value if "://" in value or scheme else f"http://{value}")
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        return None if usable else f"{mask_url(value)!r} is not the URL of an OTLP receiver"

    return problem


def _detectors(value: str) -> str | None:
    names = {name.strip() for name in value.split(",")} - {"", "*"}
    known = {entry.name for entry in entry_points(group="opentelemetry_resource_detector")} if names else set()
    unknown = sorted(names - known)
    return f"{unknown[0]!r} is not installed" if unknown else None


_BOOLEAN: Final = _one_of("true", "false", empty=True)
_READABLE: Final = _Rule(_file, "name a file that the exporter may read")
_LIMIT: Final = _number("a limit", whole=True, empty=True)

_ALWAYS: Final[Mapping[str, _Rule]] = {
    "OTEL_SDK_DISABLED": _BOOLEAN,
    "OTEL_METRICS_EXEMPLAR_FILTER": _one_of("always_on", "always_off", "trace_based", any_case=False),
    "OTEL_RESOURCE_ATTRIBUTES": _Rule(_attributes, "write key=value,key=value"),
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": _Rule(_detectors, "write names of installed resource detectors"),
}
_METRICS: Final[Mapping[str, _Rule]] = {
    "OTEL_METRIC_EXPORT_TIMEOUT": _number("a number of milliseconds", least=1),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": _one_of("cumulative", "delta", "lowmemory"),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": _one_of(
        "explicit_bucket_histogram", "base2_exponential_bucket_histogram", any_case=False
    ),
}
_TRACES: Final[Mapping[str, _Rule]] = {
    "OTEL_TRACES_SAMPLER": _one_of(
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ),
    "OTEL_BSP_SCHEDULE_DELAY": _number("a number of milliseconds", whole=True, least=1),
    "OTEL_BSP_EXPORT_TIMEOUT": _number("a number of milliseconds", whole=True),
    "OTEL_BSP_MAX_QUEUE_SIZE": _number("a number of spans", whole=True, least=1),
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": _number("a number of spans", whole=True, least=1),
    **{
        f"OTEL_{name}_LIMIT": _LIMIT
        for name in (
            *("ATTRIBUTE_COUNT", "ATTRIBUTE_VALUE_LENGTH", "SPAN_ATTRIBUTE_COUNT", "SPAN_ATTRIBUTE_VALUE_LENGTH"),
            *("EVENT_ATTRIBUTE_COUNT", "LINK_ATTRIBUTE_COUNT", "SPAN_EVENT_COUNT", "SPAN_LINK_COUNT"),
        )
    },
}


def _receiver(target: PushTarget) -> Mapping[str, _Rule]:
    """Return the rules for what follows ``OTEL_EXPORTER_OTLP_`` and ``OTEL_EXPORTER_OTLP_<SIGNAL>_``."""
    http = target.protocol == "http/protobuf"
    return {
        "ENDPOINT": _Rule(_url(scheme=http), "write http://HOST:4318, or http://HOST:4317 for gRPC"),
        "TIMEOUT": _number("a number of seconds", empty=http),
        "COMPRESSION": _one_of("gzip", "deflate", "none", empty=True) if http else _one_of("gzip"),
        "HEADERS": _Rule(_headers, "write name=value,name=value"),
        "CERTIFICATE": _Rule(_authorities, "name a PEM file that the exporter may read"),
        "CLIENT_CERTIFICATE": _READABLE,
        "CLIENT_KEY": _READABLE,
        "INSECURE": _BOOLEAN,
    }
