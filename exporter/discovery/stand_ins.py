"""Stand-ins for TransferQueue's classes in a look-up: what Ray returns is unpickled without TransferQueue.

To import TransferQueue takes seconds of CPU time and some 250 MB, on the machine of a training job, and a look-up needs
two answers of the controller: plain data in two of its classes.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Final

from dataplane.net.addresses import join_host_port

__all__ = ["install", "remove"]

_PACKAGE: Final = "transfer_queue"


class _Controller:
    """The methods that a look-up calls. Ray reads their signatures off the actor's class, which it would unpickle."""

    def get_zmq_server_info(self) -> object: ...

    def get_config(self) -> object: ...


class _AnyMember(type):
    def __getattr__(cls, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls(name)


class _Value(metaclass=_AnyMember):
    """Stands for a class whose values nobody reads, such as an enumeration."""

    def __init__(self, *arguments: object) -> None:
        pass


class _ServerInfo:
    """Stands for ``ZMQServerInfo``: the identity, host and ports of a controller or storage unit."""

    id: str
    ip: str
    ports: dict[str, int]

    def to_addr(self, port_name: str) -> str:
        return f"tcp://{join_host_port(self.ip, self.ports[port_name])}"


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ServerInfo if name == "ZMQServerInfo" else _Value


class _Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != _PACKAGE:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


_importer: Final = _Importer()


def install(manager: object) -> bool:
    """Let the stand-ins take the place of TransferQueue in this process. Return whether this Ray allows it.

    Args:
        manager: Ray's ``function_actor_manager``, which loads the classes of actors.
    """
    if not callable(getattr(manager, "load_actor_class", None)):  # private: another Ray may have another name for it
        return False
    manager.load_actor_class = lambda job_id, descriptor: _Controller  # type: ignore[attr-defined]
    sys.meta_path.insert(0, _importer)
    return True


def remove(manager: object) -> None:
    """Undo :func:`install`, so that TransferQueue can be imported."""
    del manager.load_actor_class  # type: ignore[attr-defined]
    sys.meta_path.remove(_importer)
    for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
        del sys.modules[name]
