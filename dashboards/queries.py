"""Queries of panels: their placeholders, their legends, and the checks that each passes when its panel is made.

Placeholders in a query: ``@`` is the selected exporters or clients (``cluster``, ``namespace``, ``run``, ``job``,
``instance``); ``@p`` is the same and the selected partitions; ``@c`` the same with the label that the client's calls
use for a partition; ``@t`` is the selected targets of TransferQueue itself; ``@r`` is the selected runs, whatever the
target. ``$processes`` in a ``without`` is a choice of the dashboard of the clients: :data:`PROCESSES`.

Needs the development tools.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.foreign import TARGET_LABELS
from dashboards.promql import Checker, QueryError
from exporter.shipped import rules

__all__ = ["CHECKER", "IDENTITY", "PROCESSES", "Query", "coded", "expanded", "is_of_exporter", "target"]

CHECKER: Final = Checker(rules.recorded())

IDENTITY: Final = ("run", "instance", "namespace", "cluster")
"""The labels that tell two series apart that are otherwise the same, in the order in which a legend has them."""

PROCESSES: Final = {"each": "nothing", "together": "instance"}
"""How the client's processes are shown, and what ``$processes`` is then. No series has a label ``nothing``."""

_RUN: Final = 'cluster=~"$cluster", namespace=~"$namespace", run=~"$run"'
_TARGET: Final = f'{_RUN}, job=~"$job", instance=~"$instance"'
_PLACEHOLDERS: Final = {
    "@p": f'{_TARGET}, partition=~"$partition"',
    "@c": f'{_TARGET}, messaging_destination_name=~"$partition"',
    "@t": f'{_RUN}, job=~"$tq_job"',
    "@r": _RUN,
    "@": _TARGET,
}
_PLACEHOLDER: Final = re.compile(r"@[pctr]?(?=[,}])")  # not the modifier of `x @ end()`
_FIELD: Final = re.compile(r"{{(\w+)}}")
_NOT_OF_EXPORTER: Final = ("messaging_", "dataplane_client_", "tq:client_", "tq_controller_", "tq_storage_")
_WITH_EXEMPLARS: Final = {
    "messaging_client_operation_duration_seconds_bucket",
    "dataplane_ping_duration_seconds_bucket",
}
"""Histograms that are recorded inside a span. The SDK gives their exemplars to OTLP, not to a scrape."""


class Query(NamedTuple):
    """A query and the legend of its series. The legend is completed by the labels of :data:`IDENTITY`."""

    expression: str
    legend: str = ""


def expanded(expression: str) -> str:
    """Return *expression* on one line, without placeholders."""
    return _PLACEHOLDER.sub(lambda found: _PLACEHOLDERS[found[0]], " ".join(expression.split()))


def target(query: Query, reference: str, *, instant: bool = False, table: bool = False, constant: bool = False) -> Any:
    """Return the builder of a target.

    Args:
        query: The query, checked against the catalogue.
        reference: Its letter in the panel.
        instant: Whether only the latest value is asked for.
        table: Whether the result is for a table: each label is a column, so there is no legend.
        constant: Whether the result is one series that belongs to no target, such as a threshold.

    Raises:
        QueryError: It names a metric or label that does not exist, merges targets, or keeps a label that the legend
            does not show.
    """
    expression, legend = expanded(query.expression), query.legend
    labels = CHECKER.labels(expression)
    if not constant:
        if merged := TARGET_LABELS - labels:
            raise QueryError(f"the query merges targets: it drops {', '.join(sorted(merged))}: {expression}")
        legend = " ".join([legend, *(f"{{{{{name}}}}}" for name in IDENTITY)]).strip()
    unnamed = labels - {"job", *_FIELD.findall(legend)}
    if unnamed and not table:
        raise QueryError(f"the legend does not show {', '.join(sorted(unnamed))}: {expression}")
    made = prometheus.Dataquery().expr(expression).legend_format("" if table else legend).ref_id(reference)
    if CHECKER.metrics(expression) & _WITH_EXEMPLARS:
        made = made.exemplar(True)
    if table:
        return made.instant().format(PromQueryFormat.TABLE)
    return made.instant() if instant else made.range()


def is_of_exporter(query: Query) -> bool:
    """Return whether the ``instance`` of the result is an exporter's, and not a client's or TransferQueue's."""
    return not any(name.startswith(_NOT_OF_EXPORTER) for name in CHECKER.metrics(expanded(query.expression)))


def coded(metric: str, label: str, values: Iterable[str]) -> str:
    """Return a query for one series per subject of a metric that has a series for each state, 1 for the present one.

    The value is the number of the state in *values*, from 1: what a state timeline maps to words.
    """
    numbered = " or ".join(
        f'{number} * {metric[:-1]}, {label}="{state}"}}' for number, state in enumerate(values, start=1)
    )
    return f"max without ({label}) ({numbered}) > 0"
