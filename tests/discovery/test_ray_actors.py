"""Ray's own records for a diagnosis, on a real Ray."""

from __future__ import annotations

import pytest

from exporter.discovery.ray_actors import read_records
from tests.support.cluster import TQCluster


@pytest.fixture(autouse=True)
def _environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    if "shared_cluster" in request.fixturenames:
        for name, value in request.getfixturevalue("shared_cluster").env.items():
            monkeypatch.setenv(name, value)


def test_the_actors_and_nodes_of_a_real_ray(cluster: TQCluster) -> None:
    found = read_records(cluster.ray_address, 60.0)
    by_id = {one["actor_id"]: one for one in found["actors"]}
    controller = by_id[cluster.controller.actor_id]
    assert controller["name"] == "TransferQueueController"
    assert (controller["state"], controller["pid"], controller["death"]) == ("ALIVE", cluster.controller.pid, "")
    assert [one["alive"] for one in found["nodes"]] == [True]
    assert controller["node_id"] == found["nodes"][0]["node_id"]
    assert found["actors"][0]["name"].startswith("TransferQueue")
    assert found["actors_left_out"] == 0
