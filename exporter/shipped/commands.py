"""The commands ``tq-exporter rules`` and ``tq-exporter dashboards``: they write the files of this package."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from exporter.shipped import rules
from exporter.shipped.thresholds import ThresholdError, parse_settings, render_table

__all__ = ["CommandError", "add_dashboard_arguments", "add_rule_arguments", "write_dashboards", "write_rules"]

RL_INSIGHT_FOLDER: Final = "TransferQueue"
"""Grafana in RL-Insight shows each folder of files as a folder of its own."""


class CommandError(ValueError):
    """The command failed. The text says why and what to do."""


def add_rule_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``tq-exporter rules``."""
    _add_output(parser)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a threshold; repeat for more than one. Values of an earlier run are not kept",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="take the thresholds from this configuration file of the exporter, so that page and alerts agree",
    )
    _add_runbooks(parser, "the alerts' runbook_url")
    parser.add_argument(
        "--page-scheme",
        choices=("http", "https"),
        default="http",
        help="scheme of the alerts' links to the exporter's page: https where it serves TLS (default: %(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="print the thresholds and write nothing")


def add_dashboard_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``tq-exporter dashboards``."""
    _add_output(parser)
    parser.add_argument(
        "--rl-insight",
        type=Path,
        metavar="DIR",
        help=f"write them as RL-Insight's server takes them with --extra-dashboard-dir DIR: into {RL_INSIGHT_FOLDER}/",
    )
    _add_runbooks(parser, "the panels' links")


def write_rules(options: argparse.Namespace, configured: Mapping[str, float]) -> str:
    """Write the rules; return what was written, for the user.

    Args:
        options: The command's flags.
        configured: Thresholds of the exporter's configuration; ``--set`` wins.

    Raises:
        CommandError: A threshold is unknown, given twice or has an invalid value, the URL is invalid, no folder was
            given, or it cannot be written.
    """
    if options.list:
        return render_table()
    _check_runbooks(options.runbooks)
    try:
        values = {**configured, **parse_settings(options.set)}
    except ThresholdError as error:
        raise CommandError(f"--set {error}") from error
    return _written(
        options.output,
        lambda folder: rules.write(folder, values, options.runbooks, page_scheme=options.page_scheme),
    )


def write_dashboards(options: argparse.Namespace) -> str:
    """Write the dashboards; return what was written, for the user.

    Raises:
        CommandError: The URL is invalid, no folder was given, or it cannot be written.
    """
    _check_runbooks(options.runbooks)
    given = options.rl_insight
    if given is not None:
        if options.output is not None:
            raise CommandError("--rl-insight: and -o are two folders; give one of them")
        return _written(
            given, lambda folder: _write_dashboards(folder / RL_INSIGHT_FOLDER, options.runbooks), "--rl-insight"
        )
    return _written(options.output, lambda folder: _write_dashboards(folder, options.runbooks))


def _write_dashboards(folder: Path, runbooks: str | None) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for source in sorted((resources.files("exporter.shipped") / "grafana").iterdir(), key=lambda file: file.name):
        if source.name.endswith(".json"):
            paths.append(folder / source.name)
            text = rules.with_runbooks(source.read_text(encoding="utf-8"), runbooks)
            paths[-1].write_text(text, encoding="utf-8")
    return paths


def _written(folder: Path | None, write: Callable[[Path], list[Path]], flag: str = "-o") -> str:
    if folder is None:
        raise CommandError("-o: give the folder to write into, such as -o .")
    try:
        return "".join(f"{path}\n" for path in write(folder))
    except OSError as error:
        raise CommandError(f"{flag} {folder}: {error.strerror or error}; give a folder that can be written") from error


def _check_runbooks(url: str | None) -> None:
    if url is not None and not _is_url(url):
        example = "such as https://docs.example/runbooks"
        raise CommandError(f"--runbooks: {url!r} is not a URL; give the URL of the served folder, {example}")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and not re.search(r"\s", text)
    except ValueError:
        return False


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="the folder to write into")


def _add_runbooks(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--runbooks",
        metavar="URL",
        help=f"URL where you serve docs/runbooks/, for {what}; without it they lead to a placeholder",
    )
