"""Regular expressions for names that come from the job. None of them takes long, whatever the name is."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MAX_NAME", "BadPattern", "compile_pattern"]

# Python's engine backtracks, and all threads wait while it does. So no expression may take long on any name. In a name
# of n characters, each part that repeats has at most n ends, and each choice has two sides: with these limits and
# MAX_NAME, the worst expression that was found takes 0.2 s for the worst name, and '(?P<group>.+)_s\d+' half a
# microsecond. A repeated group, which could take for ever, is refused.
MAX_NAME: Final = 200
"""Longest name that is matched, characters. A longer one matches no expression."""

_MAX_REPEATS: Final = 3
_MAX_CHOICES: Final = 2
_TOKEN: Final = re.compile(
    r"(?P<plain>\\.|\[\^?\]?(?:\\.|[^\]\\])*\])"
    r"|(?P<open>\((?:\?:|\?P<\w+>)?)(?P<special>\?)?"
    r"|(?P<loop>\)(?:[*+]|\{\d*,?\d*\}))"
    r"|(?P<repeat>(?:[*+]|\{\d*,\d*\})[?+]?)"
    r"|(?P<fixed>\{\d+\})"
    r"|(?P<choice>[?|]\??)",
    re.DOTALL,
)


class BadPattern(ValueError):
    """An expression that cannot be used.

    Attributes:
        problem: What is wrong with it.
        remedy: What to write instead.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}; {remedy}")
        self.problem, self.remedy = problem, remedy


def compile_pattern(pattern: str, example: str) -> re.Pattern[str]:
    """Return *pattern*, which is matched against names of at most :data:`MAX_NAME` characters.

    Args:
        pattern: A regular expression.
        example: What to do if it is none.

    Raises:
        BadPattern: It is no regular expression, or one that can take long.
    """
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadPattern(f"is not a regular expression: {error}", example) from None
    kinds = [token.lastgroup for token in _TOKEN.finditer(pattern)]
    if "special" in kinds:
        raise BadPattern("has a (?…) that is not supported", "use only (?P<name>…) and (?:…)")
    if "loop" in kinds:
        raise BadPattern(
            "repeats a group, which can take exponentially long", "repeat single characters or [classes] only"
        )
    for kind, limit, signs in (("repeat", _MAX_REPEATS, "*, + or {m,n}"), ("choice", _MAX_CHOICES, "? or |")):
        if kinds.count(kind) > limit:
            remedy = f"write fixed text or fixed numbers such as {{3}} in place of some, at most {limit} are possible"
            raise BadPattern(f"has {kinds.count(kind)} times {signs}, which can take long", remedy)
    return expression
