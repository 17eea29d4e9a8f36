"""What the commands share: their flags, one line per mistake, and output that may fail."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

from msgspec import Meta

from dataplane.environment import PASSWORD_VARIABLE
from dataplane.files import read_regular_text
from dataplane.nearest import did_you_mean
from dataplane.visible import visible
from exporter.config import CONFIG_ENV, SETTINGS, Config, ConfigError
from exporter.config.values import BadValue, Duration, parse

if TYPE_CHECKING:
    from exporter.remote import Remote

__all__ = [
    "PROGRAM",
    "OutputError",
    "Parser",
    "add_remote_arguments",
    "add_settings",
    "discard_output",
    "duration",
    "fail",
    "given_flags",
    "join_values",
    "note",
    "print_out",
    "printing",
    "reject",
    "remote_of",
]

PROGRAM: Final = "tq-exporter"
_FLAG: Final = re.compile(r"--[\w.-]+")
_NEGATIVE: Final = re.compile(r"-[\d.]")
_PRECEDENCE: Final = (
    f"Every flag has an environment variable: --ping-interval is TQ_EXPORTER_PING_INTERVAL, --config {CONFIG_ENV}. "
    "Flags win over variables, variables over the file. The file has further keys: docs/configuration.md."
)


class Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line. ``commands`` are the parsers of its commands, by name."""

    commands: Mapping[str, Parser]

    def error(self, message: str) -> NoReturn:
        """Write *message* and end the process with 2."""
        sys.exit(fail(f"{message}; see {self.prog} --help", 2))


def join_values(arguments: Sequence[str]) -> list[str]:
    """Return *arguments* with ``--flag -5s`` as ``--flag=-5s``: a negative value is no flag, and its error names it."""
    joined: list[str] = []
    for argument in arguments:
        last = joined[-1] if joined else ""
        if _NEGATIVE.match(argument) and last.startswith("--") and last != "--" and "=" not in last:
            joined[-1] = f"{last}={argument}"
        else:
            joined.append(argument)
    return joined


def add_settings(
    parser: Parser,
    *,
    only: Collection[str] | None = None,
    unused: Collection[str] = (),
    defaults: Mapping[str, str] | None = None,
) -> None:
    """Add ``--config`` and the flags of the settings to *parser*. All are accepted, so that commands can share them.

    Args:
        parser: The parser of a command.
        only: The flags that its help lists, because it uses them; None for all.
        unused: Flags that it does not list.
        defaults: What the help names as default of a flag, where the command has a default of its own.
    """
    own = defaults or {}
    group = parser.add_argument_group("configuration", _PRECEDENCE)
    group.add_argument("--config", type=Path, metavar="FILE", help="a YAML file, see docs/reference-config.yaml")
    for setting in SETTINGS:
        flag = setting.flag
        if not flag:
            continue
        default = None if setting.metavar is None else setting.get(Config())
        shown = own.get(flag, None if default in (None, ()) else setting.show(default))
        said = setting.help if shown is None else f"{setting.help} (default: {shown})"
        if flag in unused or (only is not None and flag not in only):
            said = argparse.SUPPRESS
        if setting.metavar is None:
            group.add_argument(flag, dest=flag, action="store_const", const=True, help=said)
        else:
            group.add_argument(flag, dest=flag, metavar=setting.metavar, help=said)


def given_flags(options: argparse.Namespace) -> dict[str, object]:
    """Return the values of the settings' flags, None where one was not given."""
    return {setting.flag: getattr(options, setting.flag) for setting in SETTINGS if setting.flag}


def reject(parser: Parser, rest: Sequence[str], arguments: Sequence[str]) -> NoReturn:
    """Raise the ConfigError for arguments that are *rest*: unknown. It suggests only what the command knows."""
    unknown = rest[0].partition("=")[0]
    name = next((word for word in arguments if not word.startswith("-")), "")
    command = parser.commands.get(name, parser)
    page = f"{PROGRAM} {name} --help".replace("  ", " ")
    known = {*_FLAG.findall(command.format_usage()), "--help"}
    others = sorted(
        other for other, its in parser.commands.items() if its is not command and unknown in its._option_string_actions
    )
    if command is not parser and others and unknown.startswith("--"):
        raise ConfigError(unknown, f"is an argument of {', '.join(others)}, not of {name}", f"see {page}")
    remedy = did_you_mean(unknown, known, page) if unknown.startswith("--") else f"see {page}"
    raise ConfigError(unknown, "is not a known argument", remedy)


# A running exporter.


def add_remote_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--url`` of a running exporter to *parser*, and what its protection takes. :func:`remote_of` reads them."""
    group = parser.add_argument_group(
        "running exporter", f"The password is in ${PASSWORD_VARIABLE} or a file, where no list of processes shows it."
    )
    group.add_argument("--url", metavar="URL", help="read this running exporter: http://[USER@]HOST:9464 or HOST:PORT")
    group.add_argument("--user", metavar="NAME", help="user name of its basic authentication")
    group.add_argument("--password-file", type=Path, metavar="FILE", help="file with the password on its first line")
    group.add_argument("--ca-file", type=Path, metavar="FILE", help="authorities of its certificate, PEM")
    group.add_argument("--cert", type=Path, metavar="FILE", help="certificate of this client, PEM")
    group.add_argument("--key", type=Path, metavar="FILE", help="key of that certificate, PEM")
    group.add_argument(
        "--timeout",
        type=duration(Annotated[Duration, Meta(ge=0.1, le=600)]),
        default=15.0,
        metavar="DURATION",
        help="longest wait for an answer (default: 15s)",
    )


def remote_of(options: argparse.Namespace, environ: Mapping[str, str]) -> Remote | None:
    """Return the running exporter that the arguments name, None without ``--url``.

    Raises:
        ConfigError: An argument cannot be used, or belongs to ``--url`` and is given without it.
    """
    if options.url is None:
        for name in ("user", "password_file", "ca_file", "cert", "key"):
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name.replace('_', '-')}", "belongs to a running exporter", "give --url too")
        return None
    for flag in ("--controller", "--discovery-file"):
        if getattr(options, flag, None) is not None:
            raise ConfigError(flag, "cannot be used with --url: that exporter knows its controller", "leave one out")
    from exporter.remote import ClientTls, Remote, parse_url

    try:
        address = parse_url(options.url)
    except ValueError as error:
        remedy = f"write http://HOST:9464; the password belongs in ${PASSWORD_VARIABLE} or --password-file"
        raise ConfigError("--url", f"cannot be used: {error}", remedy) from None
    password = environ.get(PASSWORD_VARIABLE)
    if options.password_file is not None:
        password = _first_line(options.password_file)
    if options.key is not None and options.cert is None:
        raise ConfigError("--key", "is given without its certificate", "give --cert too")
    tls = ClientTls(options.ca_file, options.cert, options.key)
    try:
        tls.context()
    except OSError as error:  # an SSLError is one
        named = error.strerror or str(error)
        raise ConfigError("--ca-file, --cert or --key", f"cannot be used ({named})", "give files in PEM") from error
    return Remote(address, user=options.user, password=password, tls=tls, timeout_s=options.timeout)


def _first_line(file: Path) -> str:
    try:
        return read_regular_text(file).partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError("--password-file", f"{file} cannot be read ({why})", "name a file with one line") from error


def duration(kind: Any) -> Callable[[str], Any]:
    """Return the type of a flag whose values are of *kind*, as in the configuration, such as a duration in a range."""

    def convert(text: str) -> Any:
        try:
            return parse(text, kind)
        except BadValue as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


# Output.


class OutputError(Exception):
    """Standard output cannot be written to. ``str()`` says why."""


@contextmanager
def printing() -> Iterator[None]:
    """Turn a failure to write to standard output into an OutputError, unless its reader has exited: BrokenPipeError."""
    if sys.stdout is None:
        raise OutputError("it is closed")
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.strerror or str(error)) from error


def print_out(text: str) -> None:
    """Write *text* and a line break to standard output."""
    with printing():
        sys.stdout.write(text.rstrip("\n") + "\n")


def discard_output() -> None:
    """Discard what is still to be written, so that the end of the process does not fail in its turn."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def fail(line: str, code: int) -> int:
    """Write *line* as one line to standard error, where there is one, and return *code*."""
    if sys.stderr is not None:
        sys.stderr.write(f"{PROGRAM}: {visible(' '.join(line.split()))}\n")
    return code


def note(line: str) -> None:
    """Write a remark like an error of :func:`fail`."""
    fail(f"note: {line}", 0)
