"""The command ``tq-exporter groups``: the groups of a running exporter or, without one, of a single poll."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import msgspec

from dataplane.groups import GROUP_STATES
from dataplane.visible import visible_json
from exporter.arguments import add_remote_arguments, fail, print_out, printing, remote_of
from exporter.config import Config, ConfigError
from exporter.groups.answer import Answer
from exporter.groups.query import DEFAULT_LIMIT, MAX_LIMIT, SELECTING, SORTS, BadQuery, Query, read_query

__all__ = ["add_arguments", "run"]

_PATH = "/api/v1/groups"
_NAMES = ("partition", "state", "condition", "sort", "limit", "search")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose groups, and those of a running exporter, to *parser*."""
    chosen = parser.add_argument_group("groups")
    chosen.add_argument("--partition", metavar="NAME", help="only groups of this partition")
    chosen.add_argument("--state", metavar="STATE", help=f"only groups in this state: {', '.join(GROUP_STATES)}")
    chosen.add_argument(
        "--condition",
        metavar="NAME",
        help=f"only groups that this condition is about, such as {list(SELECTING)[1]}; stuck: groups that no process "
        "will finish or remove",
    )
    chosen.add_argument(
        "--search", metavar="TEXT", help="only groups with this text in their id or in one of their keys"
    )
    chosen.add_argument("--sort", metavar="BY", help=f"largest first by {', '.join(SORTS)} (default: age)")
    chosen.add_argument("--limit", metavar="N", help=f"how many, at most {MAX_LIMIT} (default: {DEFAULT_LIMIT})")
    chosen.add_argument(
        "--departed",
        action="store_true",
        help="groups with an unusual departure: failed, unfinished, stale, lost …; needs --url",
    )
    chosen.add_argument("--json", action="store_true", help="print JSON instead of a table")

    add_remote_arguments(parser)


def run(options: argparse.Namespace, load: Callable[[], Config]) -> int:
    """Print groups and return the exit code: 0, or 1 when the exporter or TransferQueue did not answer.

    Args:
        options: The arguments.
        load: Returns the configuration for a poll of its own, ready to be used.
    """
    given = {name: getattr(options, name) for name in _NAMES if getattr(options, name) is not None}
    if options.departed:
        given["departed"] = "true"
    query = _query(given)
    remote = remote_of(options, os.environ)
    if remote is not None:
        from exporter.remote import RemoteError

        try:
            answer = remote.read_json(_PATH, Answer, given)
        except RemoteError as error:
            return fail(str(error), 1)
    elif query.departed:
        raise ConfigError("--departed", "needs an exporter that ran when they left", "give --url")
    else:
        config = load()
        from exporter import app

        answer = app.poll_groups(config).answer(query)
    if options.json:
        print_out(visible_json(msgspec.json.encode(answer).decode()))
    else:
        from exporter.terminal.groups import print_groups

        with printing():
            print_groups(answer, query)
    return 0 if answer.up else fail("TransferQueue did not answer", 1)


def _query(given: dict[str, str]) -> Query:
    try:
        return read_query(given.items())
    except BadQuery as error:
        raise ConfigError(f"--{error.name}", error.problem, error.remedy) from None
