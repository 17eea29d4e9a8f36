"""Draws the dashboards from a Prometheus: where Grafana cannot be had, a picture still shows a wrong shape.

``python -m dashboards.draw FOLDER --prometheus URL`` writes one picture per row of each dashboard. The queries are
those of the committed JSON, with variables, steps and legends as Grafana makes them. What is drawn is an approximation:
panel type, units, mappings, colours, stacking, the axis, legends. A development tool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dashboards.draw.answers import Answer, Board, ask, boards
from dashboards.draw.pictures import paint

__all__ = ["Answer", "Board", "ask", "boards", "draw", "paint"]


def draw(
    folder: Path, url: str, start: float, end: float, chosen: Mapping[str, Sequence[str]] | None = None
) -> list[Path]:
    """Draw every dashboard and return the paths of the pictures.

    Args:
        folder: Created if missing.
        url: A Prometheus.
        start: The beginning of the time shown, in seconds since the epoch.
        end: Its end.
        chosen: The values of variables; All for others.

    Raises:
        QueryFailedError: Prometheus refuses a query.
    """
    paths = []
    for board in boards():
        paths += paint(board, ask(board, url, start, end, chosen or {}), folder, start, end)
    return paths
