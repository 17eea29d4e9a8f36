"""The job that most situations begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.situations.player import Job


@pytest.fixture
def job() -> Iterator[Job]:
    """A job that has not started yet, watched by an exporter without a configuration."""
    with Job() as job:
        yield job
