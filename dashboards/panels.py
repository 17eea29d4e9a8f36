"""Panels in this project's style, built with Grafana's own builder types. Needs the development tools."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders import common, dashboard, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from dashboards.queries import CHECKER, Query, expanded, is_of_exporter, target
from exporter.shipped import rules
from exporter.shipped.thresholds import PREFIX

__all__ = [
    "SOURCE",
    "Builder",
    "Column",
    "Word",
    "columns",
    "labels",
    "series",
    "states",
    "timeline",
    "traces",
    "value",
]

Builder = Any
"""Any builder of the SDK. The SDK's own types do not tell them apart."""

SOURCE: Final = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
"""The data source that the dashboard's variable selects."""

_RUNBOOK: Final = re.compile(r"\b(?:DataPlane|TQExporter)[A-Z]\w+")


class Word(NamedTuple):
    """What a number means, and its colour. ``""`` is the colour of the panel."""

    number: int
    text: str
    colour: str = ""


class Column(NamedTuple):
    """A column of a table: the latest value of each series of a query."""

    title: str
    expression: str
    unit: str = "short"
    words: Sequence[Word] = ()


def series(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    threshold: str | Sequence[str] = (),
    stacked: bool = False,
    bars: Mapping[str, str] | None = None,
    from_zero: bool = True,
    width: int = 8,
    height: int = 8,
    link: Builder | None = None,
) -> Builder:
    """Return a time series panel.

    Args:
        title: Title of the panel, a noun.
        description: What the panel shows, and what to do when it looks bad.
        queries: The queries of its series.
        unit: Grafana's id of the unit.
        threshold: Name of the threshold that the alerts use for this, or several names. Each is a red dashed line.
        stacked: Whether to stack the series: only if their sum has a meaning.
        bars: Draws stacked bars; the colours of series by the beginning of their legend.
        from_zero: Whether the axis begins at 0. Not for numbers whose differences matter, such as versions.
        width: Width in columns; a row has 24.
        height: Height in rows of the grid, of 38 pixels.
        link: A further link on each series: :func:`traces`.
    """
    panel = _styled(timeseries.Panel(), title, description, width, height).unit(unit)
    panel = (
        panel.fill_opacity(30 if stacked else 8 if from_zero else 0)
        .line_width(1)
        .show_points(common_models.VisibilityMode.NEVER)
    )
    if from_zero:
        panel = panel.min(0)
    if stacked or bars is not None:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL))
    if bars is not None:
        panel = panel.draw_style(common_models.GraphDrawStyle.BARS).fill_opacity(80)
        for beginning, colour in bars.items():
            panel = panel.override_by_regexp(f"/^{re.escape(beginning)}(\\s|$)/", [_fixed(colour)])
    links = _page(queries) + ([] if link is None else [link])
    panel = panel.data_links(links) if links else panel
    legend = common.VizLegendOptions().show_legend(True).display_mode(common_models.LegendDisplayMode.TABLE)
    panel = panel.legend(legend.placement(common_models.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"]))
    tooltip = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
    panel = _with_targets(panel.tooltip(tooltip.sort(common_models.SortOrder.DESCENDING)), queries)
    names = (threshold,) if isinstance(threshold, str) else threshold
    for index, name in enumerate(names, len(queries)):
        legend = "threshold" if len(names) == 1 else f"threshold {name}"
        line = Query(f"max({PREFIX}{name})", legend)
        panel = panel.with_target(target(line, _letter(index), constant=True).range()).override_by_name(
            legend,
            [
                _fixed("red"),
                models.DynamicConfigValue(id_val="custom.lineStyle", value={"fill": "dash", "dash": [10, 10]}),
                models.DynamicConfigValue(id_val="custom.fillOpacity", value=0),
                models.DynamicConfigValue(id_val="custom.stacking", value={"mode": "none"}),
                models.DynamicConfigValue(id_val="links", value=[]),
            ],
        )
    return panel


def timeline(
    title: str,
    description: str,
    queries: Sequence[Query],
    words: Sequence[Word],
    *,
    colours: Sequence[str] = (),
    width: int = 8,
    height: int = 8,
    link: Builder | None = None,
) -> Builder:
    """Return a state timeline: a row per series, whose numbers are shown as *words*.

    Args:
        title: Title of the panel, a noun.
        description: What the panel shows, and what to do when it looks bad.
        queries: The queries of its series.
        words: What the numbers mean.
        colours: The colour of each query, for words without one.
        width: Width in columns; a row has 24.
        height: Height in rows of the grid.
        link: A further link on each series: :func:`traces`.
    """
    panel = _styled(statetimeline.Panel(), title, description, width, height).unit("short").mappings([_mapping(words)])
    panel = panel.merge_values(True).show_value(common_models.VisibilityMode.AUTO).row_height(0.85).fill_opacity(85)
    panel = panel.line_width(0).legend(common.VizLegendOptions().show_legend(False))
    panel = panel.tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.SINGLE))
    links = _page(queries) + ([] if link is None else [link])
    panel = panel.data_links(links) if links else panel
    for index, colour in enumerate(colours):
        panel = panel.override_by_query(_letter(index), [_fixed(colour)])
    return _with_targets(panel, queries)


def value(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str = "short",
    width: int = 4,
    height: int = 3,
    words: Sequence[Word] = (),
    limits: Sequence[tuple[float | None, str]] = ((None, "text"),),
) -> Builder:
    """Return a panel of the latest value of each series.

    Args:
        title: Title of the panel, a noun.
        description: What the panel shows, and what to do when it looks bad.
        queries: The queries of its series.
        unit: Grafana's id of the unit.
        width: Width in columns; a row has 24.
        height: Height in rows of the grid.
        words: What the numbers mean, and the colour of the background.
        limits: The colour of the background from a value on; None is any value.
    """
    panel = _styled(stat.Panel(), title, description, width, height).unit(unit).no_value("none")
    panel = panel.graph_mode(common_models.BigValueGraphMode.NONE)
    panel = panel.color_mode(common_models.BigValueColorMode.BACKGROUND)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    # A single value is named, too: it may be of another run than the one that somebody looks for.
    panel = panel.text_mode(common_models.BigValueTextMode.VALUE_AND_NAME)
    panel = panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    steps = [models.Threshold(value=start, color=shade) for start, shade in limits]
    panel = panel.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    if words:
        panel = panel.mappings([_mapping(words)])
    if links := _page(queries):
        panel = panel.data_links(links)
    return _with_targets(panel, queries, instant=True)


def states(
    title: str, description: str, queries: Sequence[Query], *, good: int, texts: tuple[str, str], width: int = 4
) -> Builder:
    """Return a panel that shows 0 and 1 as the words *texts*: the value *good* in green, the other in red."""
    words = [Word(number, text, "green" if number == good else "red") for number, text in enumerate(texts)]
    return value(title, description, queries, width=width, words=words)


def labels(
    title: str,
    description: str,
    expression: str,
    *,
    shown: Sequence[str],
    links: Mapping[str, tuple[str, str]] = MappingProxyType({}),
    width: int = 8,
    height: int = 8,
) -> Builder:
    """Return a table of the latest series of *expression*: the labels *shown*.

    Args:
        title: Title of the panel, a noun.
        description: What the panel shows, and what to do when it looks bad.
        expression: The query.
        shown: The labels, in the order of the columns.
        links: Title and URL of the link on a column.
        width: Width in columns; a row has 24.
        height: Height in rows of the grid.
    """
    panel = _styled(table.Panel(), title, description, width, height).unit("short").no_value("none")
    hidden = ("Time", "Value", "__name__", *sorted(CHECKER.labels(expanded(expression)) - {*shown}))
    panel = panel.with_transformation(_organized(shown, hidden))
    for name, (text, url) in links.items():
        panel = panel.override_by_name(name, [_links(dashboard.DashboardLink(text).url(url).target_blank(True))])
    return panel.with_target(target(Query(expression), "A", table=True))


def columns(
    title: str,
    description: str,
    shown: Sequence[str],
    values: Sequence[Column],
    *,
    link: tuple[str, str] | None = None,
    width: int = 24,
    height: int = 8,
) -> Builder:
    """Return a table with a row for each set of the labels *shown* and a column for each of *values*.

    Args:
        title: Title of the panel, a noun.
        description: What the panel shows, and what to do when it looks bad.
        shown: The labels, in the order of the columns.
        values: The columns after them. Every query keeps the labels by which a row is known, and no two of them others.
        link: The column that has a link to the exporter's page, and its URL.
        width: Width in columns; a row has 24.
        height: Height in rows of the grid.
    """
    panel = _styled(table.Panel(), title, description, width, height).unit("short").no_value("-")
    several = len(values) > 1
    renamed = {f"Value #{_letter(i)}" if several else "Value": column.title for i, column in enumerate(values)}
    panel = panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel = panel.with_transformation(_organized((*shown, *renamed), ("Time", "__name__", "job"), renamed))
    if link is not None:
        page = dashboard.DashboardLink("Page of the exporter").url(link[1]).target_blank(True)
        panel = panel.override_by_name(link[0], [_links(page)])
    for index, column in enumerate(values):
        properties = [models.DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.words:
            properties.append(models.DynamicConfigValue(id_val="mappings", value=[_mapping(column.words)]))
            properties.append(
                models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-background"})
            )
        panel = panel.override_by_name(column.title, properties)
        panel = panel.with_target(target(Query(column.expression), _letter(index), table=True))
    return panel


def traces(title: str, attribute: str, label: str) -> Builder:
    """Return a link to the traces of a series, in Tempo: spans whose *attribute* has the value of its label *label*."""
    query = f'{{ {attribute} = "${{__field.labels.{label}}}" }}'
    panes = {
        "t": {
            "datasource": "${traces}",
            "queries": [
                {
                    "refId": "A",
                    "datasource": {"type": "tempo", "uid": "${traces}"},
                    "queryType": "traceql",
                    "query": query,
                }
            ],
            "range": {"from": "${__from}", "to": "${__to}"},
        }
    }
    url = f"/explore?schemaVersion=1&panes={json.dumps(panes, separators=(',', ':'))}"
    return dashboard.DashboardLink(title).url(url).target_blank(True)


def _styled(panel: Builder, title: str, description: str, width: int, height: int) -> Builder:
    panel = panel.title(title).description(description).datasource(SOURCE).span(width).height(height)
    alerts = rules.alerts()
    named = dict.fromkeys(name for name in _RUNBOOK.findall(description) if name in alerts)
    links = [
        dashboard.DashboardLink(f"Runbook {name}")
        .type(models.DashboardLinkType.LINK)
        .url(alerts[name]["annotations"]["runbook_url"])
        .target_blank(True)
        for name in named
    ]
    return panel.links(links) if links else panel


def _page(queries: Sequence[Query]) -> list[Builder]:
    """Return the link to the page of the exporter that a series is from, with its partition if each series has one."""
    if not all(map(is_of_exporter, queries)):
        return []
    url = "http://${__field.labels.instance}/"
    if all("partition" in CHECKER.labels(expanded(query.expression)) for query in queries):
        url += "?partition=${__field.labels.partition:percentencode}"
    return [dashboard.DashboardLink("Page of the exporter").url(url).target_blank(True)]


def _mapping(words: Sequence[Word]) -> models.ValueMap:
    return models.ValueMap(
        options={
            str(word.number): models.ValueMappingResult(text=word.text, color=word.colour or None, index=index)
            for index, word in enumerate(words)
        }
    )


def _organized(
    order: Sequence[str], hidden: Sequence[str], renamed: Mapping[str, str] | None = None
) -> models.DataTransformerConfig:
    options = {
        "indexByName": {name: index for index, name in enumerate(order)},
        "excludeByName": dict.fromkeys(hidden, True),
        "renameByName": dict(renamed or {}),
    }
    return models.DataTransformerConfig(id_val="organize", options=options)


def _links(*links: Builder) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val="links", value=[link.build() for link in links])


def _fixed(colour: str) -> models.DynamicConfigValue:
    return models.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})


def _with_targets(panel: Builder, queries: Sequence[Query], *, instant: bool = False) -> Builder:
    for index, query in enumerate(queries):
        panel = panel.with_target(target(query, _letter(index), instant=instant))
    return panel


def _letter(index: int) -> str:
    return chr(ord("A") + index)
