"""``tq-exporter diagnose``: the verdict in the terminal, and a bundle for a bug report."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from dataplane.visible import visible_json
from exporter.arguments import add_remote_arguments, duration, fail, print_out, printing, remote_of
from exporter.config import Config, ConfigError
from exporter.config.values import Duration

if TYPE_CHECKING:
    from exporter.diagnosis.evidence import Evidence

__all__ = ["add_arguments", "run"]

_RAY_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's own flags to *parser*."""
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="write a bundle for a bug report: FILE or FOLDER/"
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument("--strict", action="store_true", help="exit code 3 also while a warning holds")
    parser.add_argument("--no-keys", action="store_true", help="leave out the ids of groups and keys")
    parser.add_argument("--ray", action="store_true", help="ask Ray for the states, nodes and processes of its actors")
    parser.add_argument(
        "--for",
        dest="seconds",
        type=duration(Annotated[Duration, Meta(ge=1, le=3600)]),
        metavar="DURATION",
        help="without --url: poll for this long before the verdict (default: 10s)",
    )
    add_remote_arguments(parser)


def run(options: argparse.Namespace, load: Callable[[], Config]) -> int:
    """Run the command; *load* reads the configuration. For the exit code see :func:`exporter.cli.main`."""
    remote = remote_of(options, os.environ)
    config = load()
    if remote is None:
        evidence = _collect_here(config, options.seconds or 10.0)
    else:
        from exporter.diagnosis.evidence import collect_remote
        from exporter.remote import RemoteError

        if options.seconds is not None:
            raise ConfigError(
                "--for", "cannot be used with --url: a running exporter has already polled", "leave out --for or --url"
            )
        try:
            evidence = collect_remote(remote)
        except RemoteError as error:
            return fail(str(error), 1)
    if options.ray:
        evidence = _with_ray(evidence, config.discovery.ray_address)
    return _tell(evidence, options)


def _collect_here(config: Config, seconds: float) -> Evidence:
    from exporter import app
    from exporter.diagnosis.evidence import collect_here

    with app.watched(config, seconds) as seen:
        if seen.listed(seconds):
            seen.wait(seconds)
        about = None if config.web.disable_groups else seen.groups.about
        return collect_here(
            seen.snapshot(), seen.history, seen.scrape(), config, os.environ, alive=seen.alive(), groups=about
        )


def _with_ray(evidence: Evidence, address: str) -> Evidence:
    from exporter.discovery.ray_actors import RayRecordsError, read_records

    try:
        return replace(evidence, ray=read_records(address, _RAY_S))
    except RayRecordsError as error:
        return replace(evidence, missing={**evidence.missing, "Ray's records": str(error)})


def _tell(evidence: Evidence, options: argparse.Namespace) -> int:
    from exporter.diagnosis.bundle import build_bundle, bundle_name, cleaned, write_file
    from exporter.diagnosis.report import verdict_lines
    from exporter.diagnosis.verdict import exit_code
    from exporter.terminal.findings import findings
    from exporter.terminal.outside import make_console, visible_snapshot

    code = exit_code(evidence.snapshot, strict=options.strict)
    keys = not (options.no_keys or evidence.private)
    evidence = cleaned(evidence, os.environ, keys=keys)
    path = None
    if options.output is not None:
        content = build_bundle(evidence)
        path = options.output / bundle_name(time.time()) if options.output.is_dir() else options.output
        try:
            write_file(path, content)
        except OSError as error:
            raise ConfigError("-o", f"{path} cannot be written ({error.strerror})", "give another file") from error
    if options.json:
        print_out(visible_json(_as_json(evidence, path, code)))
        return code
    with printing():
        console = make_console()
        for line in verdict_lines(evidence):
            console.print(line, soft_wrap=True)
        for finding in findings(visible_snapshot(evidence.snapshot)):
            console.print(finding, soft_wrap=True)
        for what, why in evidence.missing.items():
            console.print(f"left out: {what}: {why}", style="dim", soft_wrap=True)
        if path is None:
            console.print("-o FILE writes a bundle for a bug report.", style="dim")
        else:
            said = f"wrote {path} ({len(content) / 1024:.0f} KiB): read report.txt before you send it"
            console.print(said, soft_wrap=True)
    return code


def _as_json(evidence: Evidence, path: Path | None, code: int) -> str:
    verdict = evidence.verdict
    fields: dict[str, Any] = {
        "taken_at": evidence.snapshot.taken_at,
        "origin": evidence.origin,
        "exit_code": code,
        "culprit": verdict.culprit,
        "condition": verdict.condition,
        "severity": verdict.severity,
        "sentences": verdict.sentences,
        "healthy": verdict.healthy,
        "unknown": verdict.unknown,
        "alive": evidence.alive,
        "conditions": evidence.tree["conditions"],
        "missing": dict(evidence.missing),
        "bundle": None if path is None else str(path),
    }
    return msgspec.json.encode(fields).decode()
