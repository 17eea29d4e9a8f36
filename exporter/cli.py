"""The command line: ``tq-exporter run | once | groups | check-config | healthcheck | metrics | … | ray-submit | demo``.

Importing this module loads only the configuration; a command loads what it needs.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from dataplane.files import read_regular_text
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
from exporter.commands import diagnose, once, top
from exporter.config import Config, ConfigError, ConfigNote, Listen, dump_config, load_config
from exporter.logs import setup_logging
from exporter.version import this_build

__all__ = ["main"]

_REPLAY_LISTEN: Final = Listen("127.0.0.1", 9465)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The arguments, by default those of the process.

    Returns:
        The exit code. ``docs/api.md`` has what each command means by it.
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


# The commands.


def _run(options: argparse.Namespace) -> int:
    config = _load(options)
    _check_packages(config)
    setup_logging(config.log.format, config.log.level, urls=_urls(config))
    from exporter import app

    with _listening():
        return app.run(config, reread=lambda: _load(options))


@contextmanager
def _listening() -> Iterator[None]:
    """Turn an address that cannot be listened on into an error of the configuration."""
    from exporter.web import ListenError

    try:
        yield
    except ListenError as error:
        remedy = "free it or give another with --listen ADDRESS:PORT (port 0 takes any free one)"
        raise ConfigError("listen", error.strerror or str(error), remedy) from error


def _quiet(options: argparse.Namespace) -> Config:
    """Load the configuration of a command whose output names each failure: a log line would repeat it."""
    config = _load(options)
    if getattr(options, "url", None) is None:
        _check_packages(config)
    setup_logging(config.log.format, "debug" if config.log.level == "debug" else "error", urls=_urls(config))
    return config


def _diagnose(options: argparse.Namespace) -> int:
    return diagnose.run(options, lambda: _quiet(options))


def _top(options: argparse.Namespace) -> int:
    return top.run(options, lambda: _quiet(options))


def _once(options: argparse.Namespace) -> int:
    return once.run(options, lambda: _quiet(options))


def _groups(options: argparse.Namespace) -> int:
    from exporter.commands import groups

    return groups.run(options, lambda: _quiet(options))


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


def _report(options: argparse.Namespace) -> int:
    from exporter.model.recording import RecordingError
    from exporter.recording.archive import Archive
    from exporter.recording.report import render_report

    try:
        page = render_report(Archive(options.file))
    except RecordingError as error:
        return fail(str(error), 1)
    if options.output is None:
        print_out(page)
        return 0
    try:
        options.output.write_text(page, "utf-8")
    except OSError as error:
        return fail(f"cannot write {options.output}: {error.strerror}; give another path with -o", 2)
    return 0


def _replay(options: argparse.Namespace) -> int:
    config = _load(options)
    if given_flags(options)["--listen"] is None:  # a replay is for the one who started it, not for the network
        config = msgspec.structs.replace(config, listen=_REPLAY_LISTEN)
    setup_logging(config.log.format, config.log.level)
    from exporter import replay
    from exporter.model.recording import RecordingError

    try:
        with _listening():
            return replay.replay(options.file, config)
    except RecordingError as error:
        return fail(str(error), 1)


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

_LOOKING = ("--controller", "--discovery-file", "--ray-address", "--reader", "--log-level")
"""Flags of the settings that commands list which only look at a data plane. They accept all others as well."""


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
    polling = add(
        "once",
        _once,
        "poll once and print what was found; exit code 1 if TransferQueue does not answer, 3 if it answers "
        "and a critical condition holds",
        "once --json",
    )
    once.add_arguments(polling)
    add_settings(polling, only=_LOOKING)
    page = add(
        "top", _top, "show the live page as text in this terminal; q or Ctrl-C ends it", "top --url http://HOST:9464"
    )
    top.add_arguments(page)
    add_settings(page, only=_LOOKING)
    listed = add(
        "groups",
        _groups,
        "list groups with their state, age and lag",
        "groups --url http://10.0.0.1:9464 --condition stuck",
    )
    if arguments is None or arguments[:1] == ["groups"]:
        from exporter.commands import groups

        groups.add_arguments(listed)
    add_settings(listed, only=_LOOKING)
    diagnosing = add(
        "diagnose",
        _diagnose,
        "say where the fault is, what works and what is unknown, and write a bundle for a bug report; exit code 1 if "
        "TransferQueue does not answer, 3 if it answers and a critical condition holds",
        "diagnose --url http://HOST:9464 -o bundle.zip",
    )
    diagnose.add_arguments(diagnosing)
    add_settings(diagnosing, only=_LOOKING)
    check = add(
        "check-config",
        _check_config,
        "print the effective configuration, or one line with the error in it",
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
    report = add(
        "report",
        _report,
        "write a report of a recorded run, as one HTML file that needs no network",
        "report run.tqr -o report.html",
    )
    report.add_argument("file", type=Path, metavar="FILE", help="the recording that history.file names")
    report.add_argument(
        "-o", "--output", type=Path, metavar="HTML", help="where to write it (default: standard output)"
    )
    replayed = add(
        "replay",
        _replay,
        "serve the live page from a recording until SIGTERM; only the flag --listen changes where",
        "replay run.tqr --listen 127.0.0.1:9465",
    )
    replayed.add_argument("file", type=Path, metavar="FILE", help="the recording that history.file names")
    add_settings(
        replayed,
        only=("--listen", "--web.config.file", "--web.allowed-hosts", "--log-format", "--log-level"),
        defaults={"--listen": str(_REPLAY_LISTEN)},
    )
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
    demo = add("demo", _demo, "run a small training loop with a real TransferQueue and the exporter", "demo")
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
