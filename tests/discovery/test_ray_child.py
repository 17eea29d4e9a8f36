"""The parent's side of a Ray look-up: how it reads any answer, its deadline, and that no process is left behind."""

from __future__ import annotations

import socket
import sys
import textwrap
import threading
import time
import tracemalloc
from pathlib import Path

import psutil
import pytest

from dataplane.discovery.record import Endpoint, encode_endpoint
from dataplane.errors import (
    DataPlaneBadRequest,
    DataPlaneError,
    DataPlaneNotReady,
    DataPlaneReadError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
)
from exporter.discovery import ray_actors
from exporter.discovery.ray_actors import RayRecordsError, read_records
from exporter.discovery.ray_child import RayDiscovery, decode_answer
from exporter.model.results import Absent, Found

ENDPOINT = Endpoint(address="tcp://10.0.0.1:5555", actor_id="ab" * 16)


def discovery(source: str, timeout_s: float = 20.0) -> RayDiscovery:
    """A look-up that runs *source* in place of the real one."""
    command = (sys.executable, "-c", textwrap.dedent(source))
    return RayDiscovery("10.0.0.1:6379", timeout_s=timeout_s, command=command)


def wait_until_gone(pid: int) -> bool:
    try:
        psutil.Process(pid).wait(timeout=10)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True


def test_answers() -> None:
    assert decode_answer(encode_endpoint(ENDPOINT) + b"\n") == Found(ENDPOINT)
    assert decode_answer(b'{"absent":true,"ended":true,"detail":"x"}\n') == Absent(ended=True, detail="x")
    assert decode_answer(b'{"absent":true}') == Absent(ended=False, detail="")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("DataPlaneUnavailable", DataPlaneUnavailable),
        ("DataPlaneTimeout", DataPlaneTimeout),
        ("DataPlaneBadRequest", DataPlaneBadRequest),
        ("DataPlaneNotReady", DataPlaneNotReady),
        ("_OTHER", DataPlaneReadError),
        ("error_type", DataPlaneReadError),
    ],
)
def test_errors_come_back_as_what_they_were(name: str, kind: type[DataPlaneError]) -> None:
    with pytest.raises(DataPlaneError, match="why") as caught:
        decode_answer(f'{{"error_type":"{name}","detail":"why"}}'.encode())
    assert type(caught.value) is kind
    assert caught.value.operation == "discover"


@pytest.mark.parametrize("output", [b"hello\n", b"{}", b"[1]", b'{"address":', b"\xff", b'{"absent":true}\nnoise'])
def test_what_is_no_answer_is_quoted_and_short(output: bytes) -> None:
    with pytest.raises(DataPlaneReadError) as caught:
        decode_answer(output + b"x" * 10_000 if output == b"hello\n" else output)
    assert len(str(caught.value)) < 250
    assert "\n" not in str(caught.value)


def test_a_refused_token_is_told_from_what_ray_itself_writes() -> None:
    with pytest.raises(DataPlaneUnavailable, match=r"Failed to connect; Ray refused the token: .*RAY_AUTH_MODE"):
        decode_answer(
            b'{"error_type":"DataPlaneUnavailable","detail":"Failed to connect"}',
            b"gcs_client.cc:210: Unauthenticated: RPC error: InvalidAuthToken",
        )


def test_noise_on_standard_error_does_not_matter() -> None:
    source = """
        import sys
        sys.stderr.write("noise\\n" * 50_000)
        print('{"absent": true, "detail": "x"}')
    """
    assert discovery(source).look(None) == Absent(ended=False, detail="x")


def test_a_look_up_that_dies_is_unavailable_with_its_last_words() -> None:
    with pytest.raises(DataPlaneUnavailable, match=r"exit code 3.*: check failed"):
        discovery("import sys; print('check failed', file=sys.stderr); sys.exit(3)").look(None)


def test_a_look_up_that_cannot_start_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(DataPlaneUnavailable, match="No such file"):
        RayDiscovery("auto", command=(str(tmp_path / "no-python"),)).look(None)


def test_address_deadline_and_the_previous_actor_are_handed_over() -> None:
    source = """
        import json, sys
        print(json.dumps({"absent": True, "detail": " ".join(sys.argv[1:])}))
    """
    looked = discovery(source)
    assert looked.look(None) == Absent(ended=False, detail="10.0.0.1:6379 --deadline 20.0")
    assert looked.look(Endpoint(address="tcp://10.0.0.1:1")) == Absent(False, "10.0.0.1:6379 --deadline 20.0")
    assert looked.look(ENDPOINT) == Absent(False, f"10.0.0.1:6379 --deadline 20.0 --previous {ENDPOINT.actor_id}")


def test_the_environment_keeps_ray_from_starting_a_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ENABLE_AUTO_CONNECT", "1")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "x")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    source = """
        import json, os
        names = ["RAY_ENABLE_AUTO_CONNECT", "RAY_AUTH_TOKEN", "OTEL_SERVICE_NAME", "RAY_JOB_CONFIG_JSON_ENV_VAR"]
        print(json.dumps({"absent": True, "detail": " ".join(os.environ.get(name, "-") for name in names)}))
    """
    assert discovery(source).look(None) == Absent(ended=False, detail="0 t - -")


STUCK = """
    import pathlib, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    path = pathlib.Path({path!r})
    path.with_suffix(".new").write_text(f"{{child.pid}}")
    path.with_suffix(".new").rename(path)
    time.sleep(600)
"""


def test_at_its_deadline_the_whole_group_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    with pytest.raises(DataPlaneTimeout, match=r"10\.0\.0\.1:6379 did not answer within 3 s"):
        discovery(STUCK.format(path=str(path)), timeout_s=3.0).look(None)
    assert wait_until_gone(int(path.read_text()))


def test_close_ends_a_look_up_in_flight_and_refuses_further_ones(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    looked = discovery(STUCK.format(path=str(path)))
    errors: list[Exception] = []

    def look() -> None:
        try:
            looked.look(None)
        except DataPlaneUnavailable as error:
            errors.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    while not path.exists():
        time.sleep(0.02)
    looked.close()
    looked.close()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert [str(error) for error in errors] == ["discovery was closed during a look-up"]
    assert wait_until_gone(int(path.read_text()))
    with pytest.raises(DataPlaneUnavailable, match="discovery is closed"):
        looked.look(None)


def test_no_zombie_is_left() -> None:
    looked = discovery("print('{\"absent\": true}')")
    before = {child.pid for child in psutil.Process().children()}
    looked.look(None)
    assert {child.pid for child in psutil.Process().children()} <= before


def test_endless_output_takes_no_memory_and_ends_at_the_deadline() -> None:
    looked = discovery("while True: print('x' * 100_000)", timeout_s=3.0)
    tracemalloc.start()
    try:
        with pytest.raises(DataPlaneTimeout, match="did not answer within 3 s"):
            looked.look(None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20


def test_records_of_no_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(RayRecordsError, match="nothing listens at"):
        read_records(f"127.0.0.1:{port}", 60.0)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import time; time.sleep(60)", "no answer within 2 s"),
        ("import sys; sys.exit('a reason')", "a reason"),
        ("print('[1')", "cannot be asked"),
        ("""print('{"error": "refused"}')""", "refused"),
    ],
)
def test_records_that_nobody_gives(source: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_actors, "_COMMAND", (sys.executable, "-c", textwrap.dedent(source)))
    with pytest.raises(RayRecordsError, match=said):
        read_records("10.0.0.1:6379", 2.0 if "sleep" in source else 30.0)
