"""Takes secrets out of what leaves this machine in a bundle, and the ids of groups and keys where they are private.

A secret is recognised by where it stands (the user part and the query of a URL, after a name such as ``password``, an
``Authorization`` header), by its form (private keys, hashes of passwords, tokens of well-known services), or since
the environment has it under such a name. It is better to mask a harmless word than to send a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from exporter.conditions.words import quoted

__all__ = ["MASK", "Mask", "ids_in", "secrets_in", "without_ids"]

MASK: Final = "***"

_NAME: Final = (
    r"pass(?:word|wd|phrase)|pwd|secret|token(?!iz)|credential|authorization|cookie"
    r"|api[_-]?key|access[_-]?key|private[_-]?key"
)
_SECRET_NAME: Final = re.compile(rf"(?:{_NAME}|headers)", re.IGNORECASE)
_RULES: Final = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}"), MASK),
    (re.compile(r"\b(?:hf_|gh[oprsu]_|github_pat_|glpat-|sk-|xox[abprs]-|AKIA)[A-Za-z0-9_-]{8,}"), MASK),
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s\"'<>“”]*@"), rf"\1{MASK}@"),
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://[^\s?\"'<>“”]*\?)[^\s\"'<>“”]+"), rf"\1{MASK}"),
    (re.compile(r"\b([Bb]asic|[Bb]earer|BASIC|BEARER)(\s+)(?=\S*[\dA-Z=])[\w+/=.~-]{6,}"), rf"\1\2{MASK}"),
    (
        re.compile(
            rf"([\w-]*(?:{_NAME})[\w-]*\\?[\"']?\s*[=:]\s*\\?[\"']?)((?:basic|bearer)\s+)?[^\s\"',;&<>\\“”]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
)
_HARMLESS: Final = re.compile(r"(?:OLD)?PWD|.*_(?:MODE|TYPE|PATH|FILE|PROTOCOL)", re.IGNORECASE)
"""Names of variables that say where the shell is, or only how or where a secret is used."""
_LEAST: Final = 6
"""A value of the environment that is shorter would be found in many words."""


def secrets_in(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the values of the variables whose names say that they are secret, and the parts of lists of headers."""
    found: set[str] = set()
    for name, value in environ.items():
        if not _SECRET_NAME.search(name) or _HARMLESS.fullmatch(name):
            continue
        if name.upper().endswith("TOKENS") and value.isdigit():  # a number of tokens
            continue
        found.add(value)
        for part in re.split(r"[,;]", value):
            found.add(part.partition("=")[2].strip())
            found.update(part.partition("=")[2].split()[1:])  # what follows "Bearer"
    return tuple(sorted((one for one in found if len(one) >= _LEAST), key=len, reverse=True))


class Mask:
    """Masks texts.

    Args:
        secrets: Texts that are secrets wherever they occur.
        ids: Ids that are left out where they are quoted.
    """

    def __init__(self, secrets: Iterable[str] = (), ids: Iterable[str] = ()) -> None:
        self._secrets = tuple(secrets)
        forms = {form for one in ids for form in (quoted(one), f"'{one}'", f'"{one}"')}
        longest_first = sorted(forms, key=len, reverse=True)
        self._ids = re.compile("|".join(map(re.escape, longest_first))) if forms else None

    def text(self, text: str) -> str:
        """Return *text* without secrets and ids."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        for pattern, instead in _RULES:
            text = pattern.sub(instead, text)
        return self._ids.sub("“…”", text) if self._ids else text

    def value(self, value: Any) -> Any:
        """Return a tree of JSON values without secrets and ids: those below a name that says so, and in each text."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(name)): self._named(str(name), inner) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(inner) for inner in value]
        return value

    def _named(self, name: str, value: Any) -> Any:
        return MASK if isinstance(value, str) and value and _SECRET_NAME.search(name) else self.value(value)


_LISTS: Final = ("first_keys", "keys", "groups")


def ids_in(value: Any) -> Iterator[str]:
    """Yield the ids of groups and keys in a tree of JSON values: where snapshots, conditions and groups have them."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "group_id" and isinstance(inner, str) and inner:
                yield inner
            elif _is_ids(name, inner):
                yield from filter(None, inner)
            else:
                yield from ids_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from ids_in(inner)


def without_ids(value: Any) -> Any:
    """Return a tree of JSON values without the fields of :func:`ids_in`."""
    if isinstance(value, Mapping):
        return {
            name: "" if name == "group_id" else [] if _is_ids(name, inner) else without_ids(inner)
            for name, inner in value.items()
        }
    return [without_ids(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _is_ids(name: object, value: Any) -> bool:
    return name in _LISTS and isinstance(value, (list, tuple)) and all(isinstance(one, str) for one in value)
