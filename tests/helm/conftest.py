"""The chart, installed once with each of its ``ci/*-values.yaml``."""

from __future__ import annotations

import pytest

from tests.helm.helm import CI_VALUES, Stage, install, steps


@pytest.fixture(scope="session")
def installed() -> dict[str, Stage]:
    """Return the chart's example installations by name. The release has the same name."""
    stages = install(*(steps(name, values) for name, values in CI_VALUES.items()))
    return {name: stage for name, [stage] in zip(CI_VALUES, stages, strict=True)}
