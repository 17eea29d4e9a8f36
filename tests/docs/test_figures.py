"""Figures in the docs that constants of the code define."""

from __future__ import annotations

import re

from dataplane.adapters.wire import limits
from tests.docs.test_code import DOCS


def test_the_estimate_of_what_a_listing_takes_is_that_of_the_code() -> None:
    page = " ".join((DOCS / "configuration.md").read_text().split())
    said = {what: int(number.replace(",", "")) for number, what in re.findall(r"([\d,]+) bytes per (\w+)", page)}
    assert said == {
        "row": limits._PER_ROW,
        "run": limits._PER_PART,
        "group": limits._PER_GROUP,
        "partition": limits._PER_PARTITION,
    }
    assert f"a row counts {limits._PER_ROW_WHILE_DECODED} bytes" in page
    assert limits._PER_BYTE == 2
    assert "twice the bytes of the reply" in page
