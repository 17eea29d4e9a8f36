"""A minute of the soak test; ``make soak`` runs it for longer."""

from __future__ import annotations

import pytest

from tests.soak.soak import soak


@pytest.mark.full
def test_the_exporter_stays_as_small_as_it_was_and_tells_no_lies() -> None:
    rows, wrong = soak(50.0)
    assert [row for row in rows if not row.good] == [], wrong[:10]
