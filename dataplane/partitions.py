"""What the name of a partition tells: its role, its family, the label under which it is counted. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, Generic, Literal, TypeVar

from dataplane.patterns import MAX_NAME, compile_pattern

__all__ = ["MAX_LABEL", "ROLES", "ByName", "Role", "bounded_label", "check_pattern", "families", "role_of"]

Role = Literal["train", "eval", "staging"]

ROLES: Final[tuple[Role, ...]] = ("train", "eval", "staging")

MAX_LABEL: Final = 128
"""Longest label, characters. A longer name is cut and ends in a hash."""

_EVAL: Final = re.compile(r"(?<![a-z])(val|valid|validation|eval|evaluation|test)(?![a-z])", re.IGNORECASE)
_DIGITS: Final = re.compile(r"\d+")
_MAX_NUMBERS: Final = 4
_PATTERN_SIGNS: Final = frozenset("\\*+?[](){}^$|")
_MAX_REMEMBERED: Final = 10_000

T = TypeVar("T")


def role_of(partition: str) -> Role:
    """Return what *partition* is for by its name: ``staging``, ``eval`` (a word such as ``val``), else ``train``."""
    if "staging" in partition.lower():
        return "staging"
    return "eval" if _EVAL.search(partition) else "train"


def families(partition: str) -> Iterator[str]:
    """Yield the families of *partition*: its name with one number replaced by ``*``, the last number first.

    Names that differ in one number share a family: ``train_17`` and ``train_18`` are of ``train_*``. A name with more
    than four numbers, such as a hash, has none.
    """
    numbers = list(islice(_DIGITS.finditer(partition), _MAX_NUMBERS + 1))
    if len(numbers) <= _MAX_NUMBERS:
        for number in reversed(numbers):
            yield f"{partition[: number.start()]}*{partition[number.end() :]}"


def bounded_label(name: str) -> str:
    """Return *name* as a label of at most :data:`MAX_LABEL` characters."""
    if len(name) <= MAX_LABEL:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{name[: MAX_LABEL - len(digest) - 1]}-{digest}"


class ByName(Generic[T]):
    r"""Settings by partition name. A regular expression as a key, such as ``train_\d+``, matches whole names.

    Args:
        settings: Name or pattern to its settings. An exact name wins, then the first pattern that matches.
    """

    def __init__(self, settings: Mapping[str, T]) -> None:
        self._exact = dict(settings)
        self._patterns = [(re.compile(name), value) for name, value in settings.items() if _is_pattern(name)]
        self._found: dict[str, T | None] = {}

    def get(self, partition: str) -> T | None:
        """Return the settings of *partition*, None when it has none."""
        if partition in self._exact:
            return self._exact[partition]
        if not self._patterns or len(partition) > MAX_NAME:
            return None
        if partition not in self._found:
            if len(self._found) >= _MAX_REMEMBERED:
                self._found.clear()
            matching = (value for pattern, value in self._patterns if pattern.fullmatch(partition))
            self._found[partition] = next(matching, None)
        return self._found[partition]

    def names(self, partition: str) -> bool:
        """Whether the settings name exactly this partition."""
        return partition in self._exact


def _is_pattern(name: str) -> bool:
    """Whether a key of the settings is a regular expression."""
    return not _PATTERN_SIGNS.isdisjoint(name)


def check_pattern(name: str) -> None:
    """Raise BadPattern if *name* is meant as a regular expression and is none, or one that can take long."""
    if _is_pattern(name):
        compile_pattern(name, "escape its signs with \\")
