"""The client's configuration mapping, read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["BACKENDS", "DEFAULT_POLL_INTERVAL_S", "DEFAULT_TIMEOUT_S", "check_seconds", "seconds", "tq_conf"]

BACKENDS: Final = ("simple", "mooncake_cpu")

DEFAULT_TIMEOUT_S: Final = 30.0
DEFAULT_POLL_INTERVAL_S: Final = 0.5


def tq_conf(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration for ``transfer_queue.init``. Values that *cfg* leaves out keep TransferQueue's default.

    ``mooncake_cpu`` is passed on but not tested: it needs Mooncake's packages and servers.

    Raises:
        ValueError: A value is wrong; the message names its key.
    """
    backend = cfg.get("backend", "simple")
    if backend == "simple":
        options = {
            "total_storage_size": _count(cfg, "storage_capacity"),
            "num_data_storage_units": _count(cfg, "num_storage_units"),
        }
        name = "SimpleStorage"
    elif backend == "mooncake_cpu":
        options = {key: _count(cfg, key) for key in ("global_segment_size", "local_buffer_size")}
        name = "MooncakeStore"
    else:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {backend!r}")
    return {
        # In polling mode a claim never makes the controller's only thread wait.
        "controller": {"polling_mode": True},
        "backend": {"storage_backend": name, name: {key: value for key, value in options.items() if value is not None}},
    }


def _count(cfg: Mapping[str, Any], key: str) -> int | None:
    value = cfg.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ValueError(f"{key} must be a positive integer or absent, not {value!r}")
    return value


def seconds(cfg: Mapping[str, Any], key: str, default: float) -> float:
    """Return ``cfg[key]``, or *default* when it is absent; ValueError unless it is a positive, finite number."""
    value = cfg.get(key)
    return default if value is None else check_seconds(key, value)


def check_seconds(key: str, value: object) -> float:
    """Return *value*; ValueError, which names *key*, unless it is a positive, finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ValueError(f"{key} must be a positive number of seconds, not {value!r}")
    return float(value)
