"""Panels, variables and dashboards in this project's style, built with Grafana's own builder types.

Placeholders in a query: ``@`` is the selected target (``job``, ``instance``); ``@p`` is the target and the selected
partitions; ``@c`` is the same with the label that the client's calls use for a partition. Every query is checked
against the catalogue when its panel is made. Needs the development tools.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count
from typing import Any, Final, Literal, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.promql import Checker
from exporter.shipped import rules
from exporter.shipped.thresholds import PREFIX

__all__ = ["Query", "board", "gauge_heatmap", "histogram_heatmap", "labels", "series", "states", "value"]

Builder = Any
"""Any builder of the SDK. The SDK's own types do not tell them apart."""

_CHECKER: Final = Checker(rules.recorded())
_SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
_TARGET: Final = 'job=~"$job", instance=~"$instance"'
_TAG: Final = "transferqueue"
_ALL: Final = models.VariableOption(selected=True, text="All", value="$__all")
_GREEN, _RED = "green", "red"


class Query(NamedTuple):
    """A query and the legend of its series."""

    expression: str
    legend: str


def series(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    threshold: str | None = None,
    stacked: bool = False,
    width: int = 8,
    link: tuple[str, str] | None = None,
) -> Builder:
    """Return a time series panel.

    Args:
        title: Title of the panel, a noun.
        description: What the panel shows, and what to do when it looks bad.
        queries: The queries of its series.
        unit: Grafana's id of the unit.
        threshold: Name of the threshold that the alerts use for this; drawn as a red dashed line.
        stacked: Whether to stack the series: only if their sum has a meaning.
        width: Width in columns; a row has 24.
        link: Title and URL of a link on each series.
    """
    panel = timeseries.Panel().title(title).description(description).datasource(_SOURCE).unit(unit)
    panel = panel.span(width).height(8).min(0).fill_opacity(30 if stacked else 8).line_width(1)
    panel = panel.show_points(common_models.VisibilityMode.NEVER)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if link is not None:
        panel = panel.data_links([dashboard.DashboardLink(link[0]).url(link[1]).target_blank(True)])
    if threshold is not None:
        queries = [*queries, Query(f"{PREFIX}{threshold}", "threshold")]
        panel = panel.override_by_name(
            "threshold",
            [
                models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": _RED}),
                models.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [10, 10]}),
                models.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
                models.DynamicConfigValue(id_val="custom.stacking", value={"mode": "none"}),
            ],
        )
    tooltip = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
    return _with_targets(panel.tooltip(tooltip), queries)


def value(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    width: int = 3,
    named: bool = False,
) -> Builder:
    """Return a panel of the latest value; with *named*, of the names of the series."""
    panel = stat.Panel().title(title).description(description).datasource(_SOURCE).unit(unit).span(width).height(4)
    panel = panel.no_value("none").graph_mode(common_models.BigValueGraphMode.NONE)
    panel = panel.color_mode(common_models.BigValueColorMode.VALUE)
    if named:
        panel = panel.text_mode(common_models.BigValueTextMode.NAME)
    return _with_targets(panel, queries, instant=True)


def states(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    good: Literal[0, 1],
    texts: tuple[str, str],
    width: int = 4,
) -> Builder:
    """Return a panel that shows 0 and 1 as the words *texts*: the value *good* in green, the other in red."""
    return value(title, description, queries, width=width).mappings([_words(good=good, texts=texts)])


def labels(title: str, description: str, expression: str, *, columns: Sequence[str], width: int = 8) -> Builder:
    """Return a table of the latest series of *expression*: the labels *columns*, and the value as no or yes."""
    panel = table.Panel().title(title).description(description).datasource(_SOURCE).unit("short").span(width).height(8)
    shown = {name: index for index, name in enumerate((*columns, "Value"))}
    options = {"indexByName": shown, "excludeByName": dict.fromkeys(("Time", "__name__", "job", "run"), True)}
    panel = panel.with_transformation(models.DataTransformerConfig(id_val="organize", options=options))
    panel = panel.mappings([_words(good=1, texts=("no", "yes"))])
    return panel.with_target(_target(Query(expression, ""), "A").instant().format(PromQueryFormat.TABLE))


def histogram_heatmap(title: str, description: str, expression: str, *, unit: str, width: int = 8) -> Builder:
    """Return a heatmap of a histogram. *expression* is the rate of its buckets, summed by ``le`` only."""
    return _heatmap(title, description, expression, "{{le}}", unit, width)


def gauge_heatmap(title: str, description: str, expression: str, *, label: str, unit: str, width: int = 8) -> Builder:
    """Return a heatmap of a gauge, with one row per value of *label*."""
    return _heatmap(title, description, expression, f"{{{{{label}}}}}", unit, width)


def board(
    uid: str,
    title: str,
    description: str,
    *,
    of: str,
    rows: Sequence[tuple[str, Sequence[Builder]]],
    partitions: str | None = "partition",
    partition_metric: str = "dataplane_partition_groups",
    traces: bool = False,
) -> Builder:
    """Return a dashboard.

    Args:
        uid: Fixed id, also the file name.
        title: Title of the dashboard.
        description: The questions that it answers.
        of: Metric whose jobs and instances can be selected.
        rows: Title and panels of each row.
        partitions: Label that holds the partition; None if partitions cannot be selected.
        partition_metric: Metric whose partitions can be selected.
        traces: Whether it has a variable for a Tempo data source.
    """
    made = (
        dashboard.Dashboard(title).uid(uid).description(description).tags([_TAG]).refresh("30s").time("now-1h", "now")
    )
    made = made.timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR).editable()
    made = made.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    if traces:
        made = made.with_variable(dashboard.DatasourceVariable("traces").label("Traces").type("tempo"))
    made = made.with_variable(_choice("job", "Job", f"label_values({of}, job)"))
    made = made.with_variable(_choice("instance", "Instance", f'label_values({of}{{job=~"$job"}}, instance)'))
    if partitions is not None:
        chosen = f"label_values({partition_metric}{{{_TARGET}}}, {partitions})"
        made = made.with_variable(_choice("partition", "Partition", chosen))
    # The exporter that saw the restart has another job and instance than the client.
    seen_by = "" if of.startswith("messaging_") else f"{{{_TARGET}}}"
    restarts = f"changes(dataplane_controller_restarts_total{seen_by}[1m]) > 0"
    _CHECKER.labels(restarts)
    made = made.annotation(
        dashboard.AnnotationQuery()
        .name("Controller restart")
        .datasource(_SOURCE)
        .enable(True)
        .icon_color("orange")
        .expr(restarts)
    )
    link = dashboard.DashboardLink("TransferQueue").type(models.DashboardLinkType.DASHBOARDS).tags([_TAG])
    made = made.link(link.include_vars(True).keep_time(True))
    ids = count(1)
    for name, panels in rows:
        made = made.with_row(dashboard.Row(name).id(next(ids)))
        for panel in panels:
            made = made.with_panel(panel.id(next(ids)))
    return made


def _words(*, good: Literal[0, 1], texts: tuple[str, str]) -> models.ValueMap:
    colours = {good: _GREEN, 1 - good: _RED}
    return models.ValueMap(
        options={
            str(number): models.ValueMappingResult(text=texts[number], color=colours[number], index=number)
            for number in (0, 1)
        }
    )


def _choice(name: str, label: str, query: str) -> Builder:
    variable = dashboard.QueryVariable(name).label(label).datasource(_SOURCE).query(query)
    variable = variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    return variable.multi(True).include_all(True).all_value(".*").current(_ALL)


def _heatmap(title: str, description: str, expression: str, legend: str, unit: str, width: int) -> Builder:
    panel = heatmap.Panel().title(title).description(description).datasource(_SOURCE).span(width).height(8)
    panel = panel.calculate(False).y_axis(heatmap.YAxisConfig().unit(unit))
    return panel.with_target(_target(Query(expression, legend), "A").format(PromQueryFormat.HEATMAP))


def _with_targets(panel: Builder, queries: Sequence[Query], *, instant: bool = False) -> Builder:
    for index, query in enumerate(queries):
        target = _target(query, chr(ord("A") + index))
        panel = panel.with_target(target.instant() if instant else target.range())
    return panel


def _target(query: Query, reference: str) -> Builder:
    expression = re.sub(r"@p\b", f'{_TARGET}, partition=~"$partition"', query.expression)
    expression = re.sub(r"@c\b", f'{_TARGET}, messaging_destination_name=~"$partition"', expression)
    expression = " ".join(expression.replace("@", _TARGET).split())
    _CHECKER.labels(expression)
    return prometheus.Dataquery().expr(expression).legend_format(query.legend).ref_id(reference)
