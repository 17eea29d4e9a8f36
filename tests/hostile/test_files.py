"""Files that are none, or that never end: a discovery record, configurations, certificates, samples."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataplane.discovery.record import MAX_STORAGE_UNITS, Endpoint, encode_endpoint
from dataplane.errors import DataPlaneReadError, DataPlaneTimeout
from dataplane.files import read_regular
from exporter import app, cli
from exporter.config import load_config
from exporter.discovery import file as discovery_file
from exporter.discovery.file import FileDiscovery
from exporter.model.results import Found
from tests.hostile.support import listing
from tests.support.certificates import Authority
from tests.support.exporter_process import ExporterProcess
from tests.support.fake_router import FakeRouter, reply


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk


def _folder(path: Path) -> None:
    path.mkdir()


pytestmark = pytest.mark.timeout(60)  # a read that blocks fails


NO_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (_pipe, "a pipe, not a regular file"),
    "socket": (_socket, "a socket, not a regular file"),
    "endless": (_endless, "a device, not a regular file"),
    "huge": (_huge, "longer than "),
    "folder": (_folder, "Is a directory"),
}


@pytest.fixture(params=NO_FILES)
def no_file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """The name of something that is no readable file, and why it is none."""
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    make, why = NO_FILES[request.param]
    make(Path("no-file"))
    return "no-file", why


def test_only_regular_files_are_read(no_file: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(OSError, match=no_file[1]):
        read_regular(Path(no_file[0]))
    (tmp_path / "good").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("good")
    assert read_regular(tmp_path / "link", 5) == b"12345"
    with pytest.raises(OSError, match="longer than 4 bytes"):
        read_regular(tmp_path / "link", 4)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "none")
    with pytest.raises(OSError, match="no file can have this name"):
        read_regular(tmp_path / "nu\0ll")


def test_a_record_that_is_no_file_fails(no_file: tuple[str, str]) -> None:
    with pytest.raises(DataPlaneReadError, match=no_file[1]):
        FileDiscovery(Path(no_file[0])).look(None)


@pytest.mark.parametrize(
    "arguments",
    [
        ["check-config", "no-file"],
        ["run", "--config", "no-file"],
        ["check-config", "--web.config.file", "no-file"],
        ["check-config", "--sample", "no-file"],
        ["ray-submit", "--config", "no-file"],
    ],
    ids=" ".join,
)
def test_a_setting_that_is_no_file_is_one_line(
    no_file: tuple[str, str], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("tq-exporter: ")
    assert "no-file" in err
    assert no_file[1] in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("key", ["cert_file", "key_file", "client_ca_file"])
def test_a_certificate_that_is_no_file_is_one_line(
    no_file: tuple[str, str], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Authority(tmp_path).issue("server")
    files = {"cert_file": str(server.cert), "key_file": str(server.key), "client_ca_file": str(server.cert)}
    tls = files | {key: str(tmp_path / no_file[0]), "client_auth_type": "RequireAndVerifyClientCert"}
    (tmp_path / "web.yml").write_text(json.dumps({"tls_server_config": tls}))
    assert cli.main(["check-config", "--web.config.file", "web.yml"]) == 2
    err = capsys.readouterr().err
    assert f"{key}: " in err
    assert no_file[1] in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_KEY"])
def test_a_certificate_of_the_push_that_is_no_file_is_one_line(
    no_file: tuple[str, str], variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if no_file[1].startswith("Is a") and variable.endswith("_CERTIFICATE"):
        return  # a folder of certificates is valid there
    monkeypatch.setenv(variable, no_file[0])
    assert cli.main(["check-config", "--otlp", "http://127.0.0.1:4318"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"tq-exporter: {variable}: 'no-file' cannot be read ({no_file[1]}")
    assert err.count("\n") == 1


def test_a_file_system_that_hangs_makes_look_ups_fail_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No file system here can be made to hang: the call that would block does.
    answers, calls = threading.Event(), 0

    def hang(path: Path) -> bytes:
        nonlocal calls
        calls += 1
        answers.wait(30)
        return read_regular(path)

    monkeypatch.setattr(discovery_file, "read_regular", hang)
    monkeypatch.setattr(discovery_file, "_DEADLINE_S", 0.05)
    file = tmp_path / "tq.json"
    discovery = FileDiscovery(file)
    for _ in range(3):
        with pytest.raises(DataPlaneTimeout, match="its file system has not answered"):
            discovery.look(None)
    assert calls == 1  # one thread waits
    answers.set()
    monkeypatch.setattr(discovery_file, "_DEADLINE_S", 30.0)
    file.write_bytes(encode_endpoint(Endpoint("tcp://10.0.0.1:1")))
    assert isinstance(discovery.look(None), Found)


def _controller(request: dict[str, Any]) -> list[bytes]:
    if request["request_type"] == "GET_LIST_PARTITIONS":
        return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["p"]})
    if request["request_type"] == "GET_METRICS":
        return reply("METRICS_RESPONSE", {"active_keys": 3})
    return listing("p", {"k_g0": {"weight_version": 1}})


def test_a_pipe_as_record_is_failing_and_heals(tmp_path: Path) -> None:
    file = tmp_path / "tq.json"
    os.mkfifo(file)
    with FakeRouter(_controller) as router, ExporterProcess("--discovery-file", str(file)) as exporter:
        broken = exporter.wait_for(
            lambda seen: seen.value("dataplane_source_state", source="discovery", reason="failing") == 1, "a failure"
        )
        assert broken.value("dataplane_up") == 0
        assert "a pipe, not a regular file" in exporter.log
        (tmp_path / "new").write_bytes(encode_endpoint(Endpoint(router.address)))
        (tmp_path / "new").replace(file)
        healed = exporter.wait_for(lambda seen: seen.value("dataplane_up") == 1, "the controller")
        assert healed.value("dataplane_source_state", source="discovery", reason="ok") == 1


@pytest.mark.parametrize(
    "address", ["", "nowhere", "tcp://", "tcp://10.0.0.1:0", "tcp://[::1:5", "ipc:///tmp/x", "tcp://a b:1", "x" * 9000]
)
def test_a_storage_unit_with_a_bad_address_hides_no_other(tmp_path: Path, address: str) -> None:
    with FakeRouter(_controller) as router:
        units = [
            {"index": 0, "id": "TQ_CONTROLLER_fake", "address": router.address},
            {"index": 1, "id": "b", "address": address},
            {"index": 2, "id": "TQ_CONTROLLER_fake", "address": router.address},
        ]
        file = tmp_path / "tq.json"
        file.write_text(json.dumps({"address": router.address, "storage_units": units}))
        seen = app.poll_once(load_config({"--discovery-file": str(file)}, {}))
    assert seen.up
    assert [partition.partition for partition in seen.partitions] == ["p"]
    assert [(unit.keys, unit.error_type) for unit in seen.storage] == [
        (3, None),
        (None, "DataPlaneBadRequest"),
        (3, None),
    ]
    assert len(seen.storage[1].detail) < 300


@pytest.mark.parametrize(
    "lie",
    [
        {"run": "x" * 257},
        {"controller_id": "x" * 10_000},
        {"backend": "ä" * 300},
        {"metrics_endpoint": "x" * 300},
        {"versions": {"ray": "x" * 300}},
        {"versions": {str(number): "1" for number in range(33)}},
        {"capacity": -1},
        {"capacity": 2**70},
        {"storage_units": [{"index": -1, "id": "a", "address": "tcp://10.0.0.1:1"}]},
        {"storage_units": [{"index": 0, "id": "a" * 300, "address": "tcp://10.0.0.1:1"}]},
        {"storage_units": [{"index": 0, "id": "a", "address": ""}] * (MAX_STORAGE_UNITS + 1)},
    ],
    ids=" ".join,
)
def test_a_record_that_lies_about_its_size_is_refused_with_its_key(tmp_path: Path, lie: dict[str, Any]) -> None:
    file = tmp_path / "tq.json"
    file.write_text(json.dumps({"address": "tcp://10.0.0.1:1", **lie}))
    with pytest.raises(DataPlaneReadError, match=rf"at `\$\.{next(iter(lie))}") as raised:
        FileDiscovery(file).look(None)
    assert len(str(raised.value)) < 500


def test_a_deep_record_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "tq.json"
    file.write_text('{"x": ' + "[" * 100_000)
    with pytest.raises(DataPlaneReadError, match="holds no discovery record"):
        FileDiscovery(file).look(None)
