"""How the look-up reads Ray's record of a death, and a controller's configuration."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from ray.core.generated import gcs_pb2

from dataplane.discovery import actor
from dataplane.discovery.record import Place, StorageUnitEndpoint, decode_endpoint, encode_endpoint, endpoint_of
from dataplane.errors import DataPlaneNotReady
from exporter.discovery import ray_lookup

_OWNER = (
    "The actor is dead because its owner has died. Owner Id: 06 Owner Ip address: 127.0.0.1 Owner worker exit type: "
)
_WORKER = "The actor is dead because its worker process has died. Worker exit type: "


def cause(reason: str, message: str) -> Any:
    """A record as Ray's GCS keeps it, of the type that Ray returns."""
    context = gcs_pb2.ActorTableData().death_cause.actor_died_error_context
    context.reason = context.DESCRIPTOR.fields_by_name["reason"].enum_type.values_by_name[reason].number
    context.error_message = message
    return context


@pytest.mark.parametrize(
    ("reason", "message", "intended"),
    [
        ("RAY_KILL", "The actor is dead because it was killed by `ray.kill`.", True),
        ("OUT_OF_SCOPE", "", True),
        ("REF_DELETED", "", True),
        ("OWNER_DIED", _OWNER + "INTENDED_USER_EXIT Worker exit detail: Owner's worker process has crashed.", True),
        ("OWNER_DIED", _OWNER + "SYSTEM_ERROR Worker exit detail: Owner's worker process has crashed.", False),
        ("WORKER_DIED", _WORKER + "INTENDED_USER_EXIT Worker exit detail: exit_actor() is called.", True),
        ("WORKER_DIED", _WORKER + "SYSTEM_ERROR Worker exit detail: The process receives a SIGTERM.", False),
        ("WORKER_DIED", _WORKER + "NODE_OUT_OF_MEMORY Worker exit detail: not an INTENDED_USER_EXIT", False),
        ("NODE_DIED", "The actor died because its node has died.", False),
        ("UNSPECIFIED", "", False),
    ],
)
def test_what_was_wanted_and_what_was_not(reason: str, message: str, intended: bool) -> None:
    assert ray_lookup._is_intended(cause(reason, message)) is intended


def test_a_death_is_told_in_one_line_without_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    record = gcs_pb2.ActorTableData().death_cause
    record.actor_died_error_context.CopyFrom(
        cause("WORKER_DIED", _WORKER + "SYSTEM_ERROR.\nSome common causes include")
    )
    monkeypatch.setattr(ray_lookup, "actor_record", lambda actor_id: {"State": "DEAD", "DeathCause": record})
    assert ray_lookup._absent("ab").detail == _WORKER + "SYSTEM_ERROR."


@pytest.mark.parametrize("record", [{}, {"State": "ALIVE"}])
def test_without_a_record_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch, record: dict[str, Any]) -> None:
    monkeypatch.setattr(ray_lookup, "actor_record", lambda actor_id: record)
    assert ray_lookup._absent("ab").ended is False


def server(name: str) -> SimpleNamespace:
    return SimpleNamespace(id=f"ID_{name}", to_addr=lambda port: f"tcp://{port}/{name}")


def endpoint(**backend: Any) -> Any:
    conf = OmegaConf.create({"backend": backend}, flags={"allow_objects": True})
    return endpoint_of("ab", server("controller"), conf)


def test_storage_units_are_numbered_by_their_rank() -> None:
    names = [f"TransferQueueStorageUnit#{rank}" for rank in (10, 2, 0)]
    found = endpoint(
        storage_backend="SimpleStorage", SimpleStorage={"zmq_info": {name: server(name) for name in names}}
    )
    assert found.storage_units == tuple(
        StorageUnitEndpoint(index, f"ID_{name}", f"tcp://put_get_socket/{name}")
        for index, name in enumerate(reversed(names))
    )


def test_ray_tells_where_the_controller_and_its_units_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(actor_id: str, name: str, pid: int) -> dict[str, Any]:
        return {"ActorID": actor_id, "Name": name, "JobID": "0a000000", "Pid": pid, "Address": {"NodeID": f"n{pid}"}}

    unit = "TransferQueueStorageUnit#0"
    records = {
        "cd": record("cd", unit, 8),
        "ef": record("ef", "rollout", 9),
        "01": record("01", "", 10),
    }
    asked: list[dict[str, Any]] = []

    def actors(**what: Any) -> dict[str, Any]:
        asked.append(what)
        return records

    monkeypatch.setattr(actor, "actor_record", lambda actor_id: record(actor_id, "TransferQueueController", 7))
    monkeypatch.setattr("ray._private.state.actors", actors)
    actor._places.clear()
    places = actor.actors_of_job("ab")
    assert dict(places) == {unit: Place("cd", "n8", 8), "TransferQueueController": Place("ab", "n7", 7)}
    assert actor.actors_of_job("ab") is places
    assert [(one["job_id"].hex(), one["actor_state_name"]) for one in asked] == [("0a000000", "ALIVE")]
    later = "TransferQueueStorageUnit#1"
    assert actor.actors_of_job("ab", [unit]) is places
    assert later not in actor.actors_of_job("ab", [unit, later])
    records["23"] = record("23", later, 11)
    places = actor.actors_of_job("ab", [unit, later])
    assert places[later] == Place("23", "n11", 11)
    assert actor.actors_of_job("ab", [unit, later]) is places
    assert len(asked) == 3
    conf = OmegaConf.create(
        {
            "backend": {
                "storage_backend": "SimpleStorage",
                "SimpleStorage": {"zmq_info": {name: server(name) for name in (unit, "TransferQueueStorageUnit#1")}},
            }
        },
        flags={"allow_objects": True},
    )
    found = endpoint_of("ab", server("controller"), conf, places)
    assert (found.node_id, found.pid) == ("n7", 7)
    assert [(one.actor_id, one.node_id, one.pid) for one in found.storage_units] == [("cd", "n8", 8), ("23", "n11", 11)]
    assert decode_endpoint(encode_endpoint(found)) == found


_ALONE = {"Name": "TransferQueueController", "JobID": "0a000000", "Pid": 7, "Address": {"NodeID": "n7"}}


@pytest.mark.parametrize("known", [{}, {"JobID": "0a000000"}])
def test_without_rays_records_nobody_knows_where_they_run(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, Any]
) -> None:
    def not_connected(**what: Any) -> dict[str, Any]:
        raise RuntimeError("not connected")

    monkeypatch.setattr(actor, "actor_record", lambda actor_id: known)
    monkeypatch.setattr("ray._private.state.actors", not_connected)
    actor._places.clear()
    assert actor.actors_of_job("ab") == {}
    monkeypatch.setattr(actor, "actor_record", lambda actor_id: {**_ALONE, "ActorID": actor_id})
    monkeypatch.setattr("ray._private.state.actors", lambda **what: {})
    assert actor.actors_of_job("ab") == {_ALONE["Name"]: Place("ab", "n7", 7)}  # a failure is not remembered


def test_a_backend_without_units_of_its_own_has_neither_units_nor_capacity() -> None:
    for settings in ({"MooncakeStore": {"protocol": "tcp"}}, {}):
        found = endpoint(storage_backend="MooncakeStore", **settings)
        assert (found.backend, found.storage_units, found.capacity) == ("MooncakeStore", (), None)
        assert found.metrics_endpoint is None


def test_a_controller_without_configuration_has_no_record_yet() -> None:
    with pytest.raises(DataPlaneNotReady, match="no configuration yet"):
        endpoint_of("ab", server("controller"), None)
