"""The plots of docs/performance.md and docs/scale.md, drawn from the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.axes import Axes

__all__ = ["draw"]

Row = Mapping[str, Any]
Result = Mapping[str, Any]

_STYLE = {
    "svg.hashsalt": "benchmarks",  # the same results give the same file
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
}


def draw(found: Mapping[str, Result], folder: Path) -> None:
    """Draw every plot whose result is there."""
    tables = {table["name"]: table["rows"] for result in found.values() for table in result["tables"]}
    plots = {"poll": _poll, "scrape": _scrape, "memory": _memory, "harm": _harm, "fleet": _fleet}
    for name, plot in plots.items():
        if name in tables:
            plot(tables[name], folder / f"performance-{name}.svg")


@contextmanager
def _axes(file: Path, columns: int = 1) -> Iterator[list[Axes]]:
    with mpl.rc_context(_STYLE):
        figure, axes = pyplot.subplots(1, columns, figsize=(4.2 * columns, 3.0), squeeze=False, layout="constrained")
        yield list(axes[0])
        figure.savefig(file, metadata={"Date": None})
        pyplot.close(figure)


def _poll(rows: list[Row], file: Path) -> None:
    with _axes(file, 2) as (time, ratio):
        usual = [r for r in rows if (r["group"], r["partitions"]) == (16, 1)]
        for tags in sorted({r["tags"] for r in usual}):
            line = sorted((r for r in usual if r["tags"] == tags and r["changed"] == 3), key=lambda r: r["keys"])
            [drawn] = time.plot(
                [r["keys"] for r in line], [r["poll_ms"] for r in line], "o-", ms=3, label=f"poll, {tags}"
            )
            peers = [r for r in line if r["kv_list_ms"] is not None]
            time.plot(
                [r["keys"] for r in peers],
                [r["kv_list_ms"] for r in peers],
                ":",
                c=drawn.get_color(),
                label=f"kv_list, {tags}",
            )
            changes = sorted(
                (r for r in usual if r["tags"] == tags and r["keys"] == 100_000), key=lambda r: r["changed"]
            )
            ratio.plot([f"{r['changed']:g} %" for r in changes], [r["ratio"] for r in changes], "o-", ms=3, label=tags)
        time.set(xscale="log", yscale="log", xlabel="keys", ylabel="ms", title="A poll and kv_list, 3 % changed")
        ratio.set(xlabel="groups that changed", ylabel="poll / kv_list", title="100,000 keys", ylim=(0, None))
        time.legend(fontsize=7)
        ratio.legend(fontsize=7)


def _scrape(rows: list[Row], file: Path) -> None:
    with _axes(file) as (axes,):
        for name in ("p50", "p99"):
            axes.plot([r["keys"] for r in rows], [r[f"{name}_ms"] for r in rows], "o-", ms=3, label=name)
        axes.set(xscale="log", xlabel="keys", ylabel="ms", title="A scrape", ylim=(0, None))
        axes.legend(fontsize=7)


def _memory(rows: list[Row], file: Path) -> None:
    with _axes(file) as (axes,):
        filled = [r for r in rows if r.get("group") == 16]
        for key, label in (("rss_mb", "RSS"), ("peak_mb", "peak")):
            axes.plot([r["keys"] for r in filled], [r[key] for r in filled], "o-", ms=3, label=label)
        axes.plot([r["keys"] for r in filled], [r["reply_mb"] for r in filled], ":", label="reply")
        axes.axhline(rows[0]["rss_mb"], ls="--", lw=1, color="gray", label="without a controller")
        axes.set(xscale="log", yscale="log", xlabel="keys", ylabel="MB", title="Memory of the exporter")
        axes.legend(fontsize=7)


def _harm(rows: list[Row], file: Path) -> None:
    sizes = sorted({r["keys"] for r in rows})
    with _axes(file, len(sizes)) as all_axes:
        for axes, keys in zip(all_axes, sizes, strict=True):
            kinds = [r for r in rows if r["keys"] == keys]
            for name, offset in (("p50", -0.25), ("p99", 0.0), ("p99.9", 0.25)):
                axes.bar([i + offset for i in range(len(kinds))], [r[name] for r in kinds], 0.22, label=name)
            axes.set_xticks(range(len(kinds)), [r["what"] for r in kinds], fontsize=7)
            axes.set(title=f"A training cycle, {keys:,} keys", ylabel="ms")
            axes.legend(fontsize=7)


def _fleet(rows: list[Row], file: Path) -> None:
    with _axes(file) as (axes,):
        scraped = [r for r in rows if r["receiver"].startswith("Prometheus") and r["compression"] == "gzip"]
        axes.plot(
            [r["series"] for r in scraped], [r["rss_mb"] for r in scraped], "o-", ms=3, label="Prometheus, scraping"
        )
        pushed = [r for r in rows if r["receiver"].startswith("Victoria")]
        axes.plot(
            [r["series"] for r in pushed], [r["rss_mb"] for r in pushed], "s", ms=4, label="VictoriaMetrics, OTLP"
        )
        axes.set(xlabel="series", ylabel="RSS, MB", title="Memory by series", xlim=(0, None), ylim=(0, None))
        axes.legend(fontsize=7)
