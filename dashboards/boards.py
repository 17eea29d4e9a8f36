"""A dashboard around its panels: variables, annotations, links. Needs the development tools."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import count
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from dashboards.panels import SOURCE, Builder
from dashboards.queries import CHECKER, PROCESSES, expanded

__all__ = ["OLDEST_GRAFANA", "SCHEMA_VERSION", "board", "to_text"]

OLDEST_GRAFANA: Final = "11.0"
"""The oldest Grafana that the dashboards are for."""

SCHEMA_VERSION: Final = 39
"""Its version of the dashboards' schema. A newer Grafana migrates them; an older one would not see that it has to.

``DASHBOARD_SCHEMA_VERSION`` in Grafana's ``DashboardMigrator.ts`` is 39 in 11.0, 40 in 11.5, 41 in 11.6 and 12.
"""

_TAG: Final = "transferqueue"
_ALL: Final = models.VariableOption(selected=True, text="All", value="$__all")
_FROM_WHERE: Final = ("cluster", "namespace", "run", "job", "instance")


def board(
    uid: str,
    title: str,
    description: str,
    *,
    of: str,
    rows: Sequence[tuple[str, Sequence[Builder]]],
    partitions: tuple[str, str] | None = ("dataplane_partition_info", "partition"),
    clients: bool = False,
    own_metrics: bool = False,
) -> Builder:
    """Return a dashboard.

    Args:
        uid: Fixed id, also the file name.
        title: Title of the dashboard.
        description: The questions that it answers.
        of: Metric whose targets can be selected.
        rows: Title and panels of each row.
        partitions: Metric and label of the partitions that can be selected; None if they cannot.
        clients: Whether its targets are the processes of the training job, and not exporters.
        own_metrics: Whether the targets of TransferQueue itself can be selected.
    """
    made = (
        dashboard.Dashboard(title).uid(uid).description(description).tags([_TAG]).refresh("30s").time("now-1h", "now")
    )
    made = made.timezone("browser").tooltip(models.DashboardCursorSync.CROSSHAIR).editable()
    made = made.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    made = made.with_variable(dashboard.DatasourceVariable("traces").label("Traces").type("tempo"))
    for index, name in enumerate(_FROM_WHERE):
        chosen = ", ".join(f'{before}=~"${before}"' for before in _FROM_WHERE[:index])
        made = made.with_variable(_choice(name, name.capitalize(), f"{of}{{{chosen}}}" if chosen else of, name))
    if partitions is not None:
        metric, label = partitions
        made = made.with_variable(_choice("partition", "Partition", f"{metric}{{@}}", label))
    if own_metrics:
        own = 'tq_controller_request_total{cluster=~"$cluster", namespace=~"$namespace", run=~"$run"}'
        made = made.with_variable(_choice("tq_job", "Job of TransferQueue", own, "job"))
    if clients:
        values = ", ".join(f"{text} : {name}" for text, name in PROCESSES.items())
        first, name = next(iter(PROCESSES.items()))
        chosen_first = models.VariableOption(selected=True, text=first, value=name)
        made = made.with_variable(
            dashboard.CustomVariable("processes").label("Processes").values(values).current(chosen_first)
        )
        exporter = _query("exporter", "Exporter", "dataplane_up{@r}", "instance")
        made = made.with_variable(exporter.multi(False).include_all(False))
        page = dashboard.DashboardLink("Page of the exporter").type(models.DashboardLinkType.LINK)
        made = made.link(page.url("http://${exporter}/").target_blank(True))
    link = dashboard.DashboardLink("TransferQueue").type(models.DashboardLinkType.DASHBOARDS).tags([_TAG])
    made = made.link(link.include_vars(True).keep_time(True))
    ids = count(1)
    for name, panels in rows:
        made = made.with_row(dashboard.Row(name).id(next(ids)))
        for panel in panels:
            made = made.with_panel(panel.id(next(ids)))
    return made


def to_text(builder: Builder) -> str:
    """Return the JSON of a dashboard, with the annotations, of which the SDK knows only the query."""
    made = builder.build()
    made.schema_version = SCHEMA_VERSION
    document = json.loads(json.dumps(made, cls=JSONEncoder))
    document["annotations"] = {
        "list": [
            # Of the exporter that saw it, whatever the job and instance of the dashboard's targets.
            _annotation(
                "Controller restart",
                "orange",
                "increase(dataplane_controller_restarts_total{@r}[2m]) > 0",
                text="{{instance}}",
                tags="run",
            ),
            _annotation(
                "Firing alert",
                "red",
                'ALERTS{@r, alertstate="firing", alertname=~"DataPlane.*|TQExporter.*"}',
                text="{{alertname}} {{instance}}",
                tags="severity,run,partition,storage_unit",
            ),
        ]
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def _annotation(name: str, colour: str, expression: str, *, text: str, tags: str) -> dict[str, Any]:
    """Return an annotation where *expression* is above 0. Neighbouring steps become one region."""
    expression = expanded(expression)
    CHECKER.labels(expression)
    return {
        "name": name,
        "datasource": SOURCE.to_json(),
        "enable": True,
        "hide": False,
        "iconColor": colour,
        "expr": expression,
        "step": "60s",
        "titleFormat": name,
        "textFormat": text,
        "tagKeys": tags,
    }


def _choice(name: str, label: str, selector: str, of: str) -> Builder:
    return _query(name, label, selector, of).multi(True).include_all(True).all_value(".*").current(_ALL)


def _query(name: str, label: str, selector: str, of: str) -> Builder:
    variable = dashboard.QueryVariable(name).label(label).datasource(SOURCE)
    selector = expanded(selector)
    CHECKER.labels(selector)
    variable = variable.query(f"label_values({selector}, {of})")
    return variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
