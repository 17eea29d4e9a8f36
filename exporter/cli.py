"""The command line: ``tq-exporter run | once | check-config | healthcheck | metrics | … | ray-submit | demo``.

Importing this module loads only the configuration; a command loads what it needs.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from dataplane.nearest import did_you_mean
from exporter.config import CONFIG_ENV, SETTINGS, Config, ConfigError, dump_config, load_config
from exporter.logs import setup_logging
from exporter.version import this_build

__all__ = ["main"]

_PROGRAM: Final = "tq-exporter"
_FLAG: Final = re.compile(r"--[\w.-]+")
_PRECEDENCE: Final = (
    f"Every flag has an environment variable: --ping-interval is TQ_EXPORTER_PING_INTERVAL, --config {CONFIG_ENV}. "
    "Flags win over variables, variables over the file. The file has further keys: docs/configuration.md."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments, by default those of the process.

    Returns:
        The exit code: 0 done, 1 failed on the way (``once``: TransferQueue did not answer), 2 wrong arguments or
        configuration, 3 (``once``) TransferQueue answered, and a critical condition holds.
    """
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = _build_parser(arguments)
    try:
        options, rest = parser.parse_known_args(arguments)
        if rest:
            _reject(parser, rest, arguments)
        if options.command is None:
            parser.print_help(sys.stderr)
            return 2
        command: Callable[[argparse.Namespace], int] = options.handler
        code = command(options)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output has exited, as with `| head`: nobody is left to print an error to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1


def _watch(text: str) -> float:
    """Read the argument of ``--watch``, seconds."""
    from exporter.config.values import BadValue, Duration, parse

    try:
        seconds: float = parse(text, Duration)
    except BadValue as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range; give a duration from 1s to 1h")
    return seconds


# The commands.


def _run(options: argparse.Namespace) -> int:
    config = _load(options)
    _check_packages(config)
    setup_logging(config.log.format, config.log.level, urls=_urls(config))
    from exporter import app
    from exporter.web import ListenError

    try:
        return app.run(config, reread=lambda: _load(options))
    except ListenError as error:
        remedy = "free it or give another with --listen ADDRESS:PORT (port 0 takes any free one)"
        raise ConfigError("listen", error.strerror or str(error), remedy) from error


def _once(options: argparse.Namespace) -> int:
    config = _load(options)
    _check_packages(config)
    # The output names the failure; a log line would repeat it.
    setup_logging(config.log.format, "debug" if config.log.level == "debug" else "error", urls=_urls(config))
    from exporter import app
    from exporter.model.snapshot import encode_snapshot

    watched_s = options.watch
    snapshot = app.poll_once(config) if watched_s is None else app.watch(config, watched_s)
    if options.json:
        _print(encode_snapshot(snapshot).decode())
    else:
        from exporter.terminal.table import print_snapshot

        print_snapshot(snapshot, watched_s=watched_s)
    if snapshot.up:
        serious = ("critical", "warning") if options.strict else ("critical",)
        return 3 if any(one.severity in serious for one in snapshot.held) else 0
    reasons = [f"{source.source}: {source.detail}" for source in snapshot.sources if source.detail]
    why = "; ".join(reasons) or f"discovery: {snapshot.discovery.replace('_', ' ')}"
    return _fail(f"TransferQueue did not answer: {why}", 1)


def _check_config(options: argparse.Namespace) -> int:
    config = load_config(_flags(options), os.environ, options.file or options.config)
    from exporter.telemetry import check_environment

    check_environment(config, os.environ)
    from exporter.web import Guard

    Guard(config.web.config_file)
    if options.sample is None:
        _print(dump_config(config))
    else:
        from exporter.terminal.sample import read_sample, render_sample

        _print(render_sample(config, read_sample(options.sample)))
    return 0


def _healthcheck(options: argparse.Namespace) -> int:
    from exporter.health import SeveralExportersError, UnhealthyError, check_health

    try:
        check_health(options.pid, ready=options.ready)
    except UnhealthyError as error:
        return _fail(f"unhealthy: {error}", 1)
    except SeveralExportersError as error:
        raise ConfigError("--pid", f"is needed: the processes {error} are exporters", "name one of them") from None
    return 0


def _metrics(options: argparse.Namespace) -> int:
    from exporter.catalogue import docs as catalogue_docs

    render = {
        "table": catalogue_docs.render_table,
        "markdown": catalogue_docs.render_markdown,
        "json": catalogue_docs.render_json,
    }[options.format]
    _print(render())
    return 0


def _dashboards(options: argparse.Namespace) -> int:
    from exporter.shipped import commands

    return _write_files(commands.write_dashboards, options)


def _rules(options: argparse.Namespace) -> int:
    from exporter.shipped import commands

    return _write_files(commands.write_rules, options)


def _write_files(write: Callable[[argparse.Namespace], str], options: argparse.Namespace) -> int:
    from exporter.shipped.commands import CommandError

    try:
        _print(write(options))
    except CommandError as error:
        return _fail(str(error), 2)
    return 0


def _ray_submit(options: argparse.Namespace) -> int:
    config = load_config(_flags(options), {}, options.config)
    if config.discovery.controller is not None or config.discovery.file is not None:
        raise ConfigError("ray-submit", "finds the controller through Ray", "give --ray-address or leave it out")
    if config.listen.port == 0:
        raise ConfigError("listen", "port 0 cannot be found from outside", "give a port: --listen 0.0.0.0:9464")
    _check_packages(config)
    from exporter import ray_submit

    address = config.discovery.ray_address
    try:
        if options.stop:
            ray_submit.stop(address)
            _print("stopped")
            return 0
        if options.status:
            seen = ray_submit.status(address)
        else:
            given = {flag: value for flag, value in _flags(options).items() if value is not None}
            given.pop("--ray-address", None)
            arguments = [flag if value is True else f"{flag}={value}" for flag, value in given.items()]
            text = None if options.config is None else options.config.read_text()
            seen = ray_submit.submit(address, arguments, text, any_node=options.any_node)
    except ray_submit.SubmitError as error:
        return _fail(str(error), 1)
    where = f"http://{seen.node}:{config.listen.port}/metrics" if not options.status else f"node {seen.node}"
    _print(f"{seen.state} (process {seen.pid}, restarted {seen.restarts} times), {where}")
    return 1 if seen.state == "failed" else 0


def _demo(options: argparse.Namespace) -> int:
    from exporter.demo import cli as demo

    return demo.main(options)


# The arguments.


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line. ``commands`` are the parsers of its commands, by name."""

    commands: Mapping[str, _Parser]

    def error(self, message: str) -> NoReturn:
        sys.exit(_fail(f"{message}; see {self.prog} --help", 2))


def _build_parser(arguments: Sequence[str]) -> _Parser:
    parser = _Parser(
        prog=_PROGRAM,
        description="Export metrics of a running TransferQueue: occupancy, staleness, flow and errors.",
        epilog="Start here: tq-exporter run --ray-address auto",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{_PROGRAM} {this_build()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    parser.commands = commands.choices

    def add(name: str, handler: Callable[[argparse.Namespace], int], summary: str, example: str) -> _Parser:
        command: _Parser = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"Example: {_PROGRAM} {example}",
            allow_abbrev=False,
        )
        command.set_defaults(handler=handler)
        return command

    run = add("run", _run, "poll TransferQueue and serve its metrics until SIGTERM", "run --listen 0.0.0.0:9464")
    _add_settings(run)
    once = add(
        "once",
        _once,
        "poll once and print the snapshot; exit code 1 without an answer, 3 while a critical condition holds",
        "once --json",
    )
    once.add_argument("--json", action="store_true", help="print the snapshot as JSON instead of a table")
    once.add_argument(
        "--watch",
        type=_watch,
        metavar="DURATION",
        help="poll at the configured intervals for this long, such as 60s, then print also what happened meanwhile",
    )
    once.add_argument("--strict", action="store_true", help="exit code 3 also while a warning holds")
    _add_settings(once)
    check = add(
        "check-config",
        _check_config,
        "print the effective configuration, or one line that says what is wrong with it",
        "check-config exporter.yaml",
    )
    check.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="the YAML file; without it, flags and variables alone"
    )
    check.add_argument(
        "--sample",
        type=Path,
        metavar="ROWS",
        help="print how the rows in this JSON file would be grouped instead: {KEY: TAG} or {PARTITION: {KEY: TAG}}",
    )
    _add_settings(check)
    health = add(
        "healthcheck",
        _healthcheck,
        "check that the exporter of this container or machine is alive; exit code 1 when it is not",
        "healthcheck --ready",
    )
    health.add_argument("--ready", action="store_true", help="check also that the first round of polls is done")
    health.add_argument("--pid", type=int, help="the exporter's process, where several run")
    listing = add("metrics", _metrics, "list every metric", "metrics --format markdown")
    listing.add_argument(
        "--format", choices=("table", "markdown", "json"), default="table", help="how to print (default: %(default)s)"
    )
    shown = add("dashboards", _dashboards, "write the Grafana dashboards as JSON files", "dashboards -o grafana/")
    rules = add(
        "rules",
        _rules,
        "write the Prometheus rules, with your thresholds, and an example route for Alertmanager",
        "rules --set staleness_versions=2 -o prometheus/",
    )
    if arguments[:1] in (["dashboards"], ["rules"]):
        from exporter.shipped import commands as files

        files.add_dashboard_arguments(shown)
        files.add_rule_arguments(rules)
    submit = add(
        "ray-submit",
        _ray_submit,
        "run the exporter inside a Ray cluster, in a detached actor that takes no CPU",
        "ray-submit --ray-address 10.0.0.1:6379 --listen 0.0.0.0:9464",
    )
    wish = submit.add_mutually_exclusive_group()
    wish.add_argument("--status", action="store_true", help="print the state of the submitted exporter")
    wish.add_argument("--stop", action="store_true", help="stop the submitted exporter")
    wish.add_argument("--any-node", action="store_true", help="let Ray choose the node, rather than the head node")
    _add_settings(submit)
    demo = add("demo", _demo, "run a small training loop with a real TransferQueue and the exporter beside it", "demo")
    if "demo" in arguments[:1]:
        from exporter.demo import cli as demo_cli

        demo_cli.add_arguments(demo)
    return parser


def _add_settings(parser: _Parser) -> None:
    group = parser.add_argument_group("configuration", _PRECEDENCE)
    group.add_argument("--config", type=Path, metavar="FILE", help="a YAML file, see docs/reference-config.yaml")
    for setting in SETTINGS:
        if setting.flag and setting.metavar is None:
            group.add_argument(setting.flag, dest=setting.flag, action="store_const", const=True, help=setting.help)
        elif setting.flag:
            default = setting.get(Config())
            said = setting.help if default is None else f"{setting.help} (default: {setting.show(default)})"
            group.add_argument(setting.flag, dest=setting.flag, metavar=setting.metavar, help=said)


def _flags(options: argparse.Namespace) -> dict[str, object]:
    return {setting.flag: getattr(options, setting.flag) for setting in SETTINGS if setting.flag}


def _load(options: argparse.Namespace) -> Config:
    return load_config(_flags(options), os.environ, options.config)


def _urls(config: Config) -> tuple[str, ...]:
    return () if config.otlp.endpoint is None else (config.otlp.endpoint,)


def _reject(parser: _Parser, rest: Sequence[str], arguments: Sequence[str]) -> NoReturn:
    unknown = rest[0].partition("=")[0]
    known = {flag for command in parser.commands.values() for flag in _FLAG.findall(command.format_usage())} | {
        "--help"
    }
    command = next((word for word in arguments if not word.startswith("-")), "")
    page = f"{_PROGRAM} {command} --help".replace("  ", " ")
    remedy = did_you_mean(unknown, known, page) if unknown.startswith("--") else f"see {page}"
    raise ConfigError(unknown, "is not a known argument", remedy)


def _check_packages(config: Config) -> None:
    """Raise ConfigError when the configuration needs packages that are not installed."""
    by_ray = config.discovery.controller is None and config.discovery.file is None
    for needed, key, remedy in (
        (by_ray, "discovery.ray_address", "use --discovery-file or --controller"),
        (config.reader == "client", "reader", "use --reader wire"),
    ):
        missing = [name for name in ("ray", "transfer_queue") if needed and importlib.util.find_spec(name) is None]
        if missing:
            problem = f"needs {' and '.join(missing)}, not installed here"
            raise ConfigError(key, problem, f"install tq-exporter[tq] or {remedy}")


def _print(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


def _fail(line: str, code: int) -> int:
    sys.stderr.write(f"{_PROGRAM}: {' '.join(line.split())}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
