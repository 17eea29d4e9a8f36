"""Reads a YAML file: its tree and the line of every key, so that errors can name file, line and key."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from dataplane.files import read_regular_text
from dataplane.nearest import did_you_mean
from exporter.config import values
from exporter.config.model import ConfigError

__all__ = ["Document", "as_mapping", "read_document", "reject_key"]


@dataclass(frozen=True, slots=True)
class Document:
    """A file's mapping of keys to values.

    Attributes:
        file: Where it was read.
        tree: Its content; empty for an empty file.
        lines: The line of every key of the upper four levels, by its path.
    """

    file: Path
    tree: dict[str, Any]
    lines: dict[tuple[str, ...], int]

    def origin(self, *path: str) -> str:
        """Return how an error names a key: file, line and dotted key."""
        line = f":{self.lines[path]}" if path in self.lines else ""
        return f"{self.file}{line}: {'.'.join(path)}"


def read_document(file: Path, flag: str, *, quote: bool = True) -> Document:
    """Read a YAML file. A key that is given twice is an error.

    Args:
        file: The file.
        flag: The flag that names such files, for the remedy.
        quote: Whether an error may quote the file's content; False where that may be secret.

    Raises:
        ConfigError: The file cannot be read or is not a YAML mapping.
    """
    try:
        source = read_regular_text(file)
    except FileNotFoundError:
        raise ConfigError(str(file), "there is no such file", f"give the path of a YAML file to {flag}") from None
    except UnicodeDecodeError:
        raise ConfigError(str(file), "is not text in UTF-8", "save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(
            str(file), f"cannot be read ({error.strerror})", "give the path of a readable file"
        ) from error
    lines: dict[tuple[str, ...], int] = {}

    def visit(node: yaml.Node, above: tuple[str, ...]) -> None:
        if not isinstance(node, yaml.MappingNode) or len(above) == 4:
            return
        for name, value in node.value:
            if not isinstance(name, yaml.ScalarNode):
                continue
            path = (*above, name.value)
            line = name.start_mark.line + 1
            if path in lines:
                where = f"{file}:{line}: {'.'.join(path)}"
                raise ConfigError(where, f"is given twice, first in line {lines[path]}", "remove one")
            lines[path] = line
            visit(value, path)

    try:
        root = yaml.compose(source, Loader=yaml.SafeLoader)
        if root is not None:
            visit(root, ())
        tree = yaml.safe_load(source)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = "is not valid YAML" + (f" ({error.problem or error.context})" if quote else "")
        raise ConfigError(f"{file}:{line}", problem, "check the indentation and the quotes there") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = "is not valid YAML" + (f" ({str(error)[:120]})" if quote else "")
        raise ConfigError(str(file), problem, "write plain keys and values") from None
    return Document(file, as_mapping(tree, str(file), quote=quote), lines)


def as_mapping(value: object, origin: str, *, quote: bool = True) -> dict[str, Any]:
    """Return *value* as a mapping with text keys. None gives an empty mapping.

    Raises:
        ConfigError: It is not a mapping, or one of its keys is not text.
    """
    if value is None:
        return {}
    if not isinstance(value, dict):
        shown = f"{values.show(value)} " if quote else ""
        raise ConfigError(origin, f"{shown}is not a mapping", "write keys with values below it")
    for key in value:
        if not isinstance(key, str):
            shown = f"the key {values.show(key)}" if quote else "a key"
            raise ConfigError(origin, f"{shown} is not text", "put it in quotes")
    return value


def reject_key(origin: str, name: str, known: Iterable[str], page: str = "docs/configuration.md") -> NoReturn:
    """Raise the ConfigError for an unknown key. It names the nearest of the *known* keys."""
    raise ConfigError(origin, "is not a known key", did_you_mean(name, known, page))
