"""From the client's configuration to TransferQueue's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dataplane.config import check_config, storage_options
from dataplane.errors import DataPlaneUnavailable

__all__ = ["DEFAULT_POLL_INTERVAL_S", "DEFAULT_TIMEOUT_S", "check_no_master_runs", "seconds", "tq_conf"]

DEFAULT_TIMEOUT_S: Final = 30.0
DEFAULT_POLL_INTERVAL_S: Final = 0.5

_MOONCAKE: Final = "MooncakeStore"
_MASTER: Final = "mooncake_master"


def tq_conf(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration for ``transfer_queue.init``. Values that *cfg* leaves out keep TransferQueue's default.

    Raises:
        ValueError: A key is unknown or a value is wrong; the message names the key.
    """
    check_config(cfg)
    backend = cfg.get("backend") or "simple"
    options = storage_options(cfg, backend)
    if backend == "simple":
        names = {"storage_capacity": "total_storage_size", "num_storage_units": "num_data_storage_units"}
        storage, options = "SimpleStorage", {names[key]: value for key, value in options.items()}
    else:
        storage = _MOONCAKE
        is_there = not options.keys().isdisjoint(("metadata_server", "master_server_address"))
        options = {"auto_init": not is_there, **options}
    return {
        # In polling mode a claim never makes the controller's only thread wait.
        "controller": {"polling_mode": True},
        "backend": {"storage_backend": storage, storage: options},
    }


def seconds(cfg: Mapping[str, Any], key: str, default: float) -> float:
    """Return ``cfg[key]`` of a checked *cfg*, or *default* when it is absent."""
    value = cfg.get(key)
    return default if value is None else float(value)


def check_no_master_runs(conf: Mapping[str, Any], processes: Path = Path("/proc")) -> None:
    """Raise DataPlaneUnavailable if TransferQueue, started with *conf*, would end a Mooncake master of this machine.

    To start a master of its own, it first ends every process of the machine with that name in its command line:
    another job's, too.
    """
    if not conf["backend"].get(_MOONCAKE, {}).get("auto_init"):
        return
    for folder in processes.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it has just ended
            continue
        if _MASTER.encode() in command:
            raise DataPlaneUnavailable(
                f"process {folder.name} of this machine has {_MASTER} in its command line, and TransferQueue would end "
                "it to start its own: give the address of the master to use as mooncake_cpu.master_server_address and "
                "metadata_server"
            )
