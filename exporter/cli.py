"""The command line: ``tq-exporter run | once | check-config | healthcheck | metrics | … | ray-submit | demo``.

Importing this module loads only the configuration; a command loads what it needs.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from dataplane.files import read_regular_text
from dataplane.visible import visible_json
from exporter.arguments import (
    PROGRAM,
    OutputError,
    Parser,
    add_settings,
    discard_output,
    fail,
    given_flags,
    join_values,
    note,
    print_out,
    printing,
    reject,
)
from exporter.config import Config, ConfigError, ConfigNote, dump_config, load_config
from exporter.logs import setup_logging
from exporter.version import this_build

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments, by default those of the process.

    Returns:
        The exit code: 0 done, 1 failed on the way (``once``: TransferQueue did not answer), 2 wrong arguments or
        configuration, 3 (``once``) TransferQueue answered, and a critical condition holds.
    """
    arguments = join_values(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may know few characters
    try:
        parser = _build_parser(arguments)
        options, rest = parser.parse_known_args(arguments)
        if rest:
            reject(parser, rest, arguments)
        if options.command is None:
            parser.print_help(sys.stderr)
            return 2
        command: Callable[[argparse.Namespace], int] = options.handler
        code = command(options)
        if sys.stdout is not None:
            with printing():
                sys.stdout.flush()
        return code
    except ConfigError as error:
        return fail(str(error), 2)
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output has exited, as with `| head`: nobody is left to print an error to.
        discard_output()
        return 1
    except OutputError as error:
        discard_output()
        return fail(f"cannot write to standard output: {error}", 1)


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
        print_out(visible_json(encode_snapshot(snapshot).decode()))
    else:
        from exporter.terminal.table import print_snapshot

        with printing():
            print_snapshot(snapshot, watched_s=watched_s)
    if snapshot.up:
        serious = ("critical", "warning") if options.strict else ("critical",)
        return 3 if any(one.severity in serious for one in snapshot.held) else 0
    reasons = [f"{source.source}: {source.detail}" for source in snapshot.sources if source.detail]
    why = "; ".join(reasons) or f"discovery: {snapshot.discovery.replace('_', ' ')}"
    return fail(f"TransferQueue did not answer: {why}", 1)


def _check_config(options: argparse.Namespace) -> int:
    if options.file is not None and options.config is not None:
        raise ConfigError("--config", f"and {options.file} are two files", "give one of them")
    config = _read(options, os.environ, options.file or options.config)
    from exporter.telemetry import check_environment

    check_environment(config, os.environ)
    from exporter.web import Guard

    Guard(config.web.config_file)
    if options.sample is None:
        print_out(dump_config(config))
    else:
        from exporter.terminal.sample import read_sample, render_sample

        print_out(render_sample(config, read_sample(options.sample)))
    return 0


def _healthcheck(options: argparse.Namespace) -> int:
    from exporter.health import SeveralExportersError, UnhealthyError, check_health

    try:
        check_health(options.pid, ready=options.ready)
    except UnhealthyError as error:
        return fail(f"unhealthy: {error}", 1)
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
    print_out(render())
    return 0


def _dashboards(options: argparse.Namespace) -> int:
    from exporter.shipped import commands

    return _write_files(commands.write_dashboards, options)


def _rules(options: argparse.Namespace) -> int:
    from exporter.shipped import commands

    configured: dict[str, float] = {}
    if options.config is not None:
        config = load_config({}, {}, options.config)
        configured = {**msgspec.structs.asdict(config.thresholds), "ping_slo_seconds": config.ping.slo}
    return _write_files(lambda given: commands.write_rules(given, configured), options)


def _write_files(write: Callable[[argparse.Namespace], str], options: argparse.Namespace) -> int:
    from exporter.shipped.commands import CommandError

    try:
        print_out(write(options))
    except CommandError as error:
        return fail(str(error), 2)
    return 0


def _ray_submit(options: argparse.Namespace) -> int:
    config = _read(options, {}, options.config)
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
            print_out("stopped")
            return 0
        if options.status:
            seen = ray_submit.status(address)
        else:
            given = {flag: value for flag, value in given_flags(options).items() if value is not None}
            given.pop("--ray-address", None)
            arguments = [flag if value is True else f"{flag}={value}" for flag, value in given.items()]
            text = None if options.config is None else read_regular_text(options.config)
            seen = ray_submit.submit(address, arguments, text, any_node=options.any_node)
    except ray_submit.SubmitError as error:
        return fail(str(error), 1)
    where = f"http://{seen.node}:{config.listen.port}/metrics" if not options.status else f"node {seen.node}"
    print_out(f"{seen.state} (process {seen.pid}, restarted {seen.restarts} times), {where}")
    return 1 if seen.state == "failed" else 0


def _demo(options: argparse.Namespace) -> int:
    from exporter.demo import cli as demo

    return demo.main(options)


def _completion(options: argparse.Namespace) -> int:
    if importlib.util.find_spec("shtab") is None:
        return fail("completion needs shtab: pip install 'tq-exporter[completion]'", 1)
    import shtab

    print_out(shtab.complete(_build_parser(), shell=options.shell))
    return 0


# The arguments.


def _build_parser(arguments: Sequence[str] | None = None) -> Parser:
    """Return the parser. With *arguments*, flags that must be loaded are left out where another command is named."""
    parser = Parser(
        prog=PROGRAM,
        description="Export metrics of a running TransferQueue: occupancy, staleness, flow and errors.",
        epilog="Start here: tq-exporter run --ray-address auto",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {this_build()}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    parser.commands = commands.choices

    def add(name: str, handler: Callable[[argparse.Namespace], int], summary: str, example: str) -> Parser:
        command: Parser = commands.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"Example: {PROGRAM} {example}",
            allow_abbrev=False,
        )
        command.set_defaults(handler=handler)
        return command

    run = add("run", _run, "poll TransferQueue and serve its metrics until SIGTERM", "run --listen 0.0.0.0:9464")
    add_settings(run)
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
    add_settings(once, unused=("--listen", "--web.config.file", "--web.disable-page", "--web.allowed-hosts"))
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
    add_settings(check)
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
    if arguments is None or arguments[:1] in (["dashboards"], ["rules"]):
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
    add_settings(submit, unused=("--controller", "--discovery-file"))
    demo = add("demo", _demo, "run a small training loop with a real TransferQueue and the exporter beside it", "demo")
    if arguments is None or arguments[:1] == ["demo"]:
        from exporter.demo import cli as demo_cli

        demo_cli.add_arguments(demo)
    completion = add(
        "completion",
        _completion,
        "print a script that completes commands and flags in your shell",
        "completion bash > ~/.local/share/bash-completion/completions/tq-exporter",
    )
    completion.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="your shell")
    return parser


def _load(options: argparse.Namespace) -> Config:
    return _read(options, os.environ, options.config)


def _read(options: argparse.Namespace, environ: Mapping[str, str], file: Path | None) -> Config:
    """Load the configuration, and say what was not taken as it is written."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConfigNote)
        config = load_config(given_flags(options), environ, file)
    for one in said:
        note(str(one.message))
    return config


def _urls(config: Config) -> tuple[str, ...]:
    given = (config.otlp.endpoint, config.tracking.mlflow.uri, config.tracking.rl_insight)
    return tuple(url for url in given if url is not None)


def _check_packages(config: Config) -> None:
    """Raise ConfigError when the configuration needs packages that are not installed."""
    for name in config.tracking.chosen:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # a folder of that name is no package
            flag = f"--{name}"
            raise ConfigError(
                flag, f"needs the package {name}, not installed here", f"pip install 'tq-exporter[{name}]'"
            )
    by_ray = config.discovery.controller is None and config.discovery.file is None
    for needed, key, remedy in (
        (by_ray, "discovery.ray_address", "use --discovery-file or --controller"),
        (config.reader == "client", "reader", "use --reader wire"),
    ):
        missing = [name for name in ("ray", "transfer_queue") if needed and importlib.util.find_spec(name) is None]
        if missing:
            problem = f"needs {' and '.join(missing)}, not installed here"
            raise ConfigError(key, problem, f"install tq-exporter[tq] or {remedy}")


if __name__ == "__main__":
    sys.exit(main())
