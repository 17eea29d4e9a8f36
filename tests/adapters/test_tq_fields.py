"""A field that no row has, requested by a client that did not register the partition."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dataplane import build_data_plane_client
from dataplane.errors import DataPlaneBadRequest, DataPlaneNotReady
from dataplane.interfaces import DataPlaneClient
from tests.contract.rows import rows


@pytest.fixture
def consumer(tq_client: DataPlaneClient) -> Iterator[DataPlaneClient]:
    """A second client that does not share the first one's registrations, like one in another process."""
    client = build_data_plane_client({"enabled": True, "timeout_s": 5.0}, bootstrap=False)
    yield client
    client.close()


def test_a_field_that_another_client_registered_is_not_ready(
    tq_client: DataPlaneClient, consumer: DataPlaneClient
) -> None:
    tq_client.register_partition("p", ["tokens", "reward"], 1, ["train"])
    tq_client.put_samples(["a"], "p", rows(1))
    for client in (tq_client, consumer):
        with pytest.raises(DataPlaneNotReady, match="reward"):
            client.get_samples(["a"], "p", ["tokens", "reward"])


def test_registering_makes_a_client_know_the_fields(tq_client: DataPlaneClient, consumer: DataPlaneClient) -> None:
    tq_client.put_samples(["a"], "p", rows(1))
    with pytest.raises(DataPlaneNotReady, match="misspelt"):
        consumer.get_samples(["a"], "p", ["misspelt"])
    consumer.register_partition("p", ["tokens"], 1, ["train"])
    with pytest.raises(DataPlaneBadRequest, match="misspelt"):
        consumer.get_samples(["a"], "p", ["misspelt"])
