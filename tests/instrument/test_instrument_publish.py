"""The trainer's weight version: published by the wrapper where the exporter looks for it."""

from __future__ import annotations

from typing import Any

import pytest

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.errors import DataPlaneBadRequest, DataPlaneUnavailable
from dataplane.interfaces import PUBLISHED_VERSION_KEY, RESERVED_PARTITION
from dataplane.observability import MetricsDataPlaneClient
from dataplane.observability.effects import trainer_version
from tests.instrument.scripted import ScriptedClient


def test_a_version_is_one_row_with_a_tag_and_the_last_one_wins(noop: NoOpDataPlaneClient) -> None:
    client = MetricsDataPlaneClient(noop)
    client.publish_weight_version(3)
    client.publish_weight_version(2)  # resumed from an older checkpoint
    (group,) = noop.list_metadata(RESERVED_PARTITION)
    assert group.keys == [PUBLISHED_VERSION_KEY]
    assert group.weight_version == 2
    assert trainer_version.published == 2


def test_a_publication_that_fails_changes_nothing_here() -> None:
    client = MetricsDataPlaneClient(ScriptedClient(put_samples=DataPlaneUnavailable("gone")))
    with pytest.raises(DataPlaneUnavailable):
        client.publish_weight_version(3)
    assert trainer_version.published is None
    assert client.snapshot()["errors_by_type"] == {"DataPlaneUnavailable": 1}


@pytest.mark.parametrize("version", ["3", 3.0, None, True])
def test_what_is_no_integer_is_refused(version: Any) -> None:
    inner = ScriptedClient()
    with pytest.raises(DataPlaneBadRequest, match="int"):
        MetricsDataPlaneClient(inner).publish_weight_version(version)
    assert inner.calls == []


def test_the_groups_of_a_step_are_published_with_it_and_stay(noop: NoOpDataPlaneClient) -> None:
    client = MetricsDataPlaneClient(noop)
    client.publish_weight_version(3, groups_per_step=16)
    client.publish_weight_version(4)
    (group,) = noop.list_metadata(RESERVED_PARTITION)
    assert (group.weight_version, group.tags["groups_per_step"]) == (4, 16)


@pytest.mark.parametrize("groups", [0, -1, 1.5, "16", True])
def test_a_number_of_groups_that_is_no_positive_integer_is_refused(groups: Any) -> None:
    inner = ScriptedClient()
    with pytest.raises(DataPlaneBadRequest, match="groups_per_step"):
        MetricsDataPlaneClient(inner).publish_weight_version(3, groups_per_step=groups)
    assert inner.calls == []
