"""Discovery without Ray: a fixed address, and a file that comes, changes and goes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dataplane.discovery.record import (
    Endpoint,
    Starting,
    StorageUnitEndpoint,
    decode_endpoint,
    encode_endpoint,
    encode_starting,
)
from dataplane.errors import DataPlaneNotReady, DataPlaneReadError
from exporter.config import load_config
from exporter.discovery import build_discovery
from exporter.discovery.file import FileDiscovery
from exporter.model.results import Absent, Found

ENDPOINT = Endpoint(
    address="tcp://10.0.0.1:5555",
    controller_id="TQ_CONTROLLER_a",
    actor_id="ab" * 16,
    backend="SimpleStorage",
    capacity=100,
    storage_units=(StorageUnitEndpoint(0, "TQ_STORAGE_UNIT_a", "tcp://10.0.0.1:5556"),),
    versions={"transfer_queue": "0.1.11"},
    run="blue",
    written_at=1.5,
)


@pytest.mark.parametrize(
    ("flag", "value", "kind", "recheck_s"),
    [
        ("--controller", "tcp://10.0.0.1:5555", "address", None),
        ("--discovery-file", "/nowhere/tq.json", "file", 2.0),
        ("--ray-address", "10.0.0.1:6379", "ray", None),
    ],
)
def test_the_configuration_chooses_the_way(flag: str, value: str, kind: str, recheck_s: float | None) -> None:
    discovery = build_discovery(load_config({flag: value}, {}))
    assert (discovery.kind, discovery.recheck_s) == (kind, recheck_s)
    discovery.close()


def test_a_fixed_address_is_always_found_and_nothing_else_is_known() -> None:
    discovery = build_discovery(load_config({"--controller": "tcp://10.0.0.1:5555"}, {}))
    for previous in (None, ENDPOINT):
        assert discovery.look(previous) == Found(Endpoint(address="tcp://10.0.0.1:5555"))


def test_a_file_is_found_with_all_that_it_says(tmp_path: Path) -> None:
    file = tmp_path / "tq.json"
    file.write_bytes(encode_endpoint(ENDPOINT))
    assert FileDiscovery(file).look(None) == Found(ENDPOINT)


def test_a_file_that_is_not_there_yet_is_absent(tmp_path: Path) -> None:
    for file in (tmp_path / "tq.json", tmp_path / "no" / "folder" / "tq.json"):
        found = FileDiscovery(file).look(None)
        assert isinstance(found, Absent)
        assert not found.ended
        assert str(file) in found.detail


def test_a_file_that_was_removed_has_ended(tmp_path: Path) -> None:
    file = tmp_path / "tq.json"
    file.write_bytes(encode_endpoint(ENDPOINT))
    discovery = FileDiscovery(file)
    discovery.look(None)
    file.unlink()
    assert discovery.look(ENDPOINT) == Absent(ended=True, detail=f"{file} was removed")
    assert discovery.look(None) == Absent(ended=True, detail=f"{file} was removed")


def test_a_file_may_say_that_the_controller_is_starting(tmp_path: Path) -> None:
    file = tmp_path / "tq.json"
    discovery = FileDiscovery(file)
    file.write_bytes(encode_starting(Starting("waits for a CPU", run="blue", written_at=1.5)))
    with pytest.raises(DataPlaneNotReady, match="waits for a CPU") as caught:
        discovery.look(None)
    assert caught.value.operation == "discover"
    file.write_bytes(encode_endpoint(ENDPOINT))
    assert discovery.look(None) == Found(ENDPOINT)
    file.write_bytes(encode_starting(Starting("\x1b[2J" + "x" * 1000)))
    with pytest.raises(DataPlaneNotReady) as caught:
        discovery.look(ENDPOINT)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_start_that_was_given_up_has_ended(tmp_path: Path) -> None:
    file = tmp_path / "tq.json"
    file.write_bytes(encode_starting(Starting("waits for a CPU")))
    discovery = FileDiscovery(file)
    with pytest.raises(DataPlaneNotReady):
        discovery.look(None)
    file.unlink()
    assert discovery.look(None) == Absent(ended=True, detail=f"{file} was removed")


def test_a_reader_of_addresses_alone_refuses_the_record_of_a_start() -> None:
    with pytest.raises(ValueError, match="missing required field `address`"):
        decode_endpoint(encode_starting(Starting("waits for a CPU")))


def test_a_file_is_read_anew_also_when_its_times_and_size_stay(tmp_path: Path) -> None:
    file = tmp_path / "tq.json"
    discovery = FileDiscovery(file)
    for port in ("5555", "6666"):
        file.write_text(json.dumps({"address": f"tcp://10.0.0.1:{port}"}))
        os.utime(file, (1, 1))
        assert discovery.look(None) == Found(Endpoint(address=f"tcp://10.0.0.1:{port}"))


def test_keys_of_a_newer_writer_are_ignored(tmp_path: Path) -> None:
    file = tmp_path / "tq.json"
    file.write_text(json.dumps({"address": "tcp://10.0.0.1:1", "future": [1]}))
    assert FileDiscovery(file).look(None) == Found(Endpoint(address="tcp://10.0.0.1:1"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff\xfe",
        encode_endpoint(ENDPOINT)[:40],
        b'{"address": 7}',
        b'{"starting": 7}',
        b'{"address": "10.0.0.1:5555"}',
        b'{"address": "tcp://10.0.0.1:5555", "storage_units": [{"index": "x"}]}',
        b'{"address": "tcp://10.0.0.1:5555"}' + b" " * (1 << 20),
    ],
)
def test_what_is_no_record_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "tq.json"
    file.write_bytes(content)
    with pytest.raises(DataPlaneReadError) as caught:
        FileDiscovery(file).look(None)
    assert str(file) in str(caught.value)
    assert caught.value.operation == "discover"


def test_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataPlaneReadError, match="Is a directory"):
        FileDiscovery(tmp_path).look(None)


def test_a_bad_file_does_not_count_as_seen(tmp_path: Path) -> None:
    file = tmp_path / "tq.json"
    file.write_text("{")
    discovery = FileDiscovery(file)
    with pytest.raises(DataPlaneReadError):
        discovery.look(None)
    file.unlink()
    assert discovery.look(None) == Absent(ended=False, detail=f"{file} does not exist yet")
