"""The client's half of the fault matrix: each call under each fault of a real TransferQueue, and each call after it.

Under a fault a call ends in exactly one typed error, at its deadline, and never in an untranslated one. After the fault
the same client works again, or its error says what to do. Each test is one fault, shared by all calls.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import psutil
import pytest

from dataplane.adapters.transfer_queue import TQDataPlaneClient, TransferQueueMetadataReader
from tests.faults.adapter_calls import CALLS, METADATA, STORAGE, Outcome, load, outcome_of, outcomes_of
from tests.faults.adapter_report import FAULTS, write_calls
from tests.support import forks
from tests.support.cluster import TQCluster, frozen, kill

_Recorder = Callable[[str, Mapping[str, Outcome]], None]

_SHORT_S, _LONG_S = 0.3, 60.0
_READER = ("ping", "list_partitions", "list_metadata", "depth")
_CHANGES = ("register_partition", "claim_meta", "put_samples", "clear_samples", "pop", "evict")
_ALL_WORK = dict.fromkeys(CALLS, "ok")
_TIMEOUT, _UNAVAILABLE = "DataPlaneTimeout", "DataPlaneUnavailable"

_CONTROLLER_GONE = "the controller at {address} is gone: close this client, and make a new one when TransferQueue runs"
_STORAGE_GONE = "storage unit {id} at {address} is gone, and TransferQueue does not replace it: restart TransferQueue"
_REPLACED = "has attached to another controller or detached: close this client and make a new one"
_CLOSED = "this client is closed: make a new one"
_ATTACH_AGAIN = "attach again when TransferQueue runs"


@pytest.fixture
def client(cluster: TQCluster, ray_connected: None) -> Iterator[TQDataPlaneClient]:
    """A client of the cluster, with rows in it."""
    made = _attach()
    load(made)
    yield made
    made.close()


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Callable[[str, Mapping[str, Outcome]], None]:
    """Record the outcomes of the calls under a fault, for the report."""

    def write(fault: str, outcomes: Mapping[str, Outcome]) -> None:
        assert fault in FAULTS
        write_calls(request.config.getoption("fault_records"), fault, outcomes)

    return write


def _attach(timeout_s: float = _LONG_S) -> TQDataPlaneClient:
    return TQDataPlaneClient({"timeout_s": timeout_s}, bootstrap=False)


def _attach_and_close(timeout_s: float = _LONG_S) -> Outcome:
    return outcome_of(lambda: _attach(timeout_s).close(), "attach")


def _calls(client: Any, failing: tuple[str, ...] = (), others: tuple[str, ...] = tuple(CALLS)) -> dict[str, Outcome]:
    """Make every call once: *failing* with a short deadline, the others with one that suits a slow machine."""
    client._timeout_s = _SHORT_S
    outcomes = outcomes_of(client, failing)
    client._timeout_s = _LONG_S
    return outcomes | outcomes_of(client, tuple(name for name in others if name not in failing))


def _check(outcomes: Mapping[str, Outcome], failing: tuple[str, ...], kind: str, says: str = "") -> None:
    """Assert that every call of *failing* ended in this error with this message, and all others worked."""
    assert {name: outcome.kind for name, outcome in outcomes.items()} == {
        name: kind if name in failing else "ok" for name in outcomes
    }
    wrong = {name: outcomes[name].message for name in failing if says not in outcomes[name].message}
    assert wrong == {}


def _check_unknown_outcomes(outcomes: Mapping[str, Outcome], failing: tuple[str, ...]) -> None:
    """Assert that calls that change something, and only those, say that the change may have happened."""
    assert [name for name in failing if "outcome unknown" in outcomes[name].message] == [
        name for name in failing if name in _CHANGES
    ]


def _check_recovery(client: TQDataPlaneClient) -> None:
    """Assert that the same client works again."""
    client._timeout_s = _LONG_S
    load(client)
    _check(_calls(client), (), "ok")


def test_a_stopped_controller(cluster: TQCluster, client: TQDataPlaneClient, record: _Recorder) -> None:
    reader = TransferQueueMetadataReader(cluster.controller.address, timeout_s=_SHORT_S)
    failing = METADATA + STORAGE
    with frozen(cluster.controller.pid):
        outcomes = _calls(client, failing)
        attached = _attach_and_close(_SHORT_S)
        reads = _calls(reader, _READER, _READER)
    _check(outcomes, failing, _TIMEOUT, "no answer within 0.3 s")
    _check_unknown_outcomes(outcomes, failing)
    _check({"attach": attached}, ("attach",), _TIMEOUT, _ATTACH_AGAIN)
    _check(reads, _READER, _TIMEOUT, "no answer within 0.3 s")

    _check_recovery(client)
    _check(_calls(reader, (), _READER), (), "ok")
    with frozen(cluster.controller.pid):
        closed = {"client": outcome_of(client.close, "close"), "reader": outcome_of(reader.close, "close")}
    _check(closed, (), "ok")
    record("controller stopped", outcomes | {"attach": attached, "close": closed["client"]})


def test_a_stopped_storage_unit(cluster: TQCluster, client: TQDataPlaneClient, record: _Recorder) -> None:
    with frozen(cluster.storage_units[1].pid):
        outcomes = _calls(client, STORAGE)
        attached = _attach_and_close()
    _check(outcomes, STORAGE, _TIMEOUT, "no answer within 0.3 s")
    _check_unknown_outcomes(outcomes, STORAGE)
    _check({"attach": attached}, (), "ok")

    _check_recovery(client)
    with frozen(cluster.storage_units[1].pid):
        closed = outcome_of(client.close, "close")
    _check({"close": closed}, (), "ok")
    record("storage unit stopped", outcomes | {"attach": attached, "close": closed})


def test_a_closed_client(cluster: TQCluster, client: TQDataPlaneClient, record: _Recorder) -> None:
    client.close()
    failing = METADATA + STORAGE
    outcomes = _calls(client, failing)
    _check(outcomes, failing, _UNAVAILABLE, _CLOSED)
    ends = {"attach": _attach_and_close(), "close": outcome_of(client.close, "close")}
    _check(ends, (), "ok")
    record("client closed", outcomes | ends)


def test_storage_units_that_are_killed(cluster: TQCluster, client: TQDataPlaneClient, record: _Recorder) -> None:
    first, second = cluster.storage_units
    for unit, fault in ((second, "storage unit killed"), (first, "all storage killed")):
        kill(unit.pid)
        outcomes = _calls(client, STORAGE)
        _check(outcomes, STORAGE, _UNAVAILABLE, _STORAGE_GONE.format(id=unit.id, address=unit.address))
        _check_unknown_outcomes(outcomes, STORAGE)
        ends = {"attach": _attach_and_close()}
        if fault == "all storage killed":
            ends["close"] = outcome_of(client.close, "close")
        _check(ends, (), "ok")
        record(fault, outcomes | ends)

    cluster.restart_tq()
    new = _attach()
    _check_recovery(new)
    new.close()


def test_a_controller_that_is_killed_and_one_that_replaces_it(
    cluster: TQCluster, client: TQDataPlaneClient, record: _Recorder
) -> None:
    reader = TransferQueueMetadataReader(cluster.controller.address, timeout_s=_SHORT_S)
    gone = _CONTROLLER_GONE.format(address=cluster.controller.address)
    failing = METADATA + STORAGE
    kill(cluster.controller.pid)
    outcomes = _calls(client, failing)
    _check(outcomes, failing, _UNAVAILABLE, gone)
    _check_unknown_outcomes(outcomes, failing)
    _check(_calls(reader, _READER, _READER), _READER, _UNAVAILABLE, gone)
    attached = _attach_and_close()
    _check({"attach": attached}, ("attach",), _UNAVAILABLE, _ATTACH_AGAIN)
    _check({"close": outcome_of(reader.close, "close")}, (), "ok")
    record("controller killed", outcomes | {"attach": attached})

    cluster.restart_tq()
    outcomes = _calls(client, failing)
    _check(outcomes, failing, _UNAVAILABLE, gone)

    successor = _attach()
    load(successor)
    before = cluster.list_rows()
    _check(_calls(client, failing), failing, _UNAVAILABLE, _REPLACED)
    assert cluster.list_rows() == before, "nothing that the old client was asked to do happened to the new controller"
    _check(_calls(successor), (), "ok")
    successor.close()
    _check(_calls(client, failing), failing, _UNAVAILABLE, _REPLACED)
    ends = {"attach": _attach_and_close(), "close": outcome_of(client.close, "close")}
    _check(ends, (), "ok")
    record("controller replaced", outcomes | ends)


def test_a_ray_that_is_gone(record: _Recorder) -> None:
    with TQCluster(storage_units=1) as cluster:
        child = forks.start(
            "ray",
            ["-m", "tests.faults.adapter_child", cluster.ray_address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **cluster.env},
        )
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"attached\n"
            gone = _CONTROLLER_GONE.format(address=cluster.controller.address)
            owner = psutil.Process(cluster.pid)
            for process in (owner, *owner.children(recursive=True)):
                kill(process.pid)
            child.stdin.write(b"\n")
            child.stdin.close()
            output = child.stdout.readline()
            code = child.wait(timeout=240)
        finally:
            child.kill()
            child.wait(timeout=10)
            child.stdin.close()
            child.stdout.close()
    outcomes = {name: Outcome(**outcome) for name, outcome in json.loads(output).items()}
    failing = METADATA + STORAGE
    attached = outcomes.pop("attach")
    _check(outcomes, failing, _UNAVAILABLE, gone)
    _check_unknown_outcomes(outcomes, failing)
    _check({"attach": attached}, ("attach",), _UNAVAILABLE, _ATTACH_AGAIN)
    assert code == 0
    record("Ray gone", outcomes | {"attach": attached})
