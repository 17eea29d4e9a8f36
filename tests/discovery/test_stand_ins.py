"""The look-up's stand-ins for TransferQueue's classes, and the way back to TransferQueue itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from exporter.discovery import ray_lookup, stand_ins

# In a process of its own: this one may have the real TransferQueue.
UNPICKLED = """
import enum, pickle, sys, types
from exporter.discovery import stand_ins

zmq_utils, enum_utils = (types.ModuleType(f"transfer_queue.utils.{name}") for name in ("zmq_utils", "enum_utils"))
for name in ("transfer_queue", "transfer_queue.utils"):
    sys.modules[name] = types.ModuleType(name)
for module in (zmq_utils, enum_utils):
    sys.modules[module.__name__] = module
exec("import enum\\nclass Role(str, enum.Enum):\\n    CONTROLLER = 'TransferQueueController'", enum_utils.__dict__)
exec("class ZMQServerInfo:\\n    pass", zmq_utils.__dict__)
info = zmq_utils.ZMQServerInfo()
info.role, info.id, info.ip, info.ports = enum_utils.Role.CONTROLLER, "c-1", sys.argv[1], {"request_handle_socket": 7}
answers = [pickle.dumps(info, protocol) for protocol in (4, 5)]
for name in [name for name in sys.modules if name.startswith("transfer_queue")]:
    del sys.modules[name]

class Manager:
    def load_actor_class(self, job_id, descriptor):
        1 / 0

manager = Manager()
assert stand_ins.install(manager)
for answer in answers:
    read = pickle.loads(answer)
    print(read.id, read.to_addr("request_handle_socket"))
controller = manager.load_actor_class(None, None)
print(sorted(name for name in vars(controller) if not name.startswith("_")))
stand_ins.remove(manager)
try:
    manager.load_actor_class(None, None)
except ZeroDivisionError:
    print("Ray's own again")
print([name for name in sys.modules if name.startswith("transfer_queue")], "torch" in sys.modules)
"""


@pytest.mark.parametrize(("ip", "address"), [("10.0.0.7", "tcp://10.0.0.7:7"), ("fd00::7", "tcp://[fd00::7]:7")])
def test_answers_are_read_without_transfer_queue(ip: str, address: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNPICKLED, ip], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        *[f"c-1 {address}"] * 2,
        "['get_config', 'get_zmq_server_info']",
        "Ray's own again",
        "[] False",
    ]


def test_a_ray_without_that_method_is_left_as_it_is() -> None:
    before = list(sys.meta_path)
    assert not stand_ins.install(SimpleNamespace(load_class=print))
    assert sys.meta_path == before


class Manager:
    def load_actor_class(self, job_id: object, descriptor: object) -> str:
        return "unpickled"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A look-up without a Ray: which class each question was asked with, and what was imported in between."""
    manager, asked = Manager(), []

    class RaySystemError(Exception):
        pass

    worker = SimpleNamespace(global_worker=SimpleNamespace(function_actor_manager=manager))
    fake = SimpleNamespace(
        _private=SimpleNamespace(worker=worker), exceptions=SimpleNamespace(RaySystemError=RaySystemError)
    )

    def ask(ray: Any, previous: str | None, until: float) -> str:
        loaded: object = manager.load_actor_class(None, None)
        asked.append("TransferQueue" if loaded == "unpickled" else "stand-ins")
        if loaded != "unpickled":
            raise answers.pop() if answers else RaySystemError("cannot unpickle")
        return "the endpoint"

    answers: list[Exception] = []
    monkeypatch.setattr(ray_lookup, "connect", lambda address: fake)
    monkeypatch.setattr(ray_lookup, "_ask", ask)
    monkeypatch.setattr(ray_lookup, "import_needed", asked.append)
    before = list(sys.meta_path)
    yield asked
    assert sys.meta_path == before


def test_a_transfer_queue_that_they_do_not_know_is_imported(asked: list[str]) -> None:
    assert ray_lookup._look("auto", None, 0.0) == "the endpoint"  # type: ignore[comparison-overlap]
    assert asked == ["stand-ins", "transfer_queue", "TransferQueue"]
