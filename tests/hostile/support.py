"""What the attackers of these tests have in common: a text with every trick, and a controller that says it."""

from __future__ import annotations

import unicodedata
from typing import Any

from tests.support.fake_router import reply

__all__ = ["TRICKS", "hidden", "listing", "lying_controller"]

TRICKS = (
    "a\x1b[2J"  # clears the screen
    "\x1b]52;c;ZXZpbA==\x07"  # writes the clipboard
    "\x9b31m\x9d0;title\x9c"  # the same as single C1 characters
    "\u202egnp.exe\u2066"  # reorders what follows
    "\r\nTransferQueue up\u2028at tcp://10.0.0.1:1\x85"  # forges a line
    "\x7f\b\0\ufeff\U000e0041"
    "[/bold][red]:warning:[link=file:///]"  # rich's markup
)


def hidden(text: str, *, lines: bool = True) -> set[str]:
    """Return the characters of *text* that a terminal obeys or does not show. *lines*: it may have several lines."""
    allowed = "\n" if lines else ""
    return {sign for sign in text if unicodedata.category(sign) in {"Cc", "Cf", "Cs", "Zl", "Zp"}} - set(allowed)


def listing(partition: str, rows: Any) -> list[bytes]:
    """Return the reply to a question for the rows of a partition."""
    return reply("KV_LIST_RESPONSE", {"partition_info": {partition: rows}, "message": "success"}, TRICKS)


def lying_controller(request: dict[str, Any]) -> list[bytes]:
    """Answer as controller or storage unit. Every text is of :data:`TRICKS`."""
    if request["request_type"] == "GET_LIST_PARTITIONS":
        return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": [TRICKS, "refused", "c[/x]"]}, TRICKS)
    if request["request_type"] == "GET_METRICS":
        return reply("REQUEST_ERROR", {"message": TRICKS}, TRICKS)
    partition = request["body"]["partition_id"]
    if partition == "refused":
        return reply("REQUEST_ERROR", {"message": TRICKS}, TRICKS)
    return listing(partition, {f"{TRICKS}{row}": {"weight_version": TRICKS, "group_id": TRICKS} for row in range(3)})
