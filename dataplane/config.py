"""The configuration of a client: its keys, their types, and the check that names the one that is wrong.

The keys are those of NeMo RL, in both of its spellings: the sizes of a backend stand in a block named like the backend,
or, as before, at the top. ``None`` is the same as an absent key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypedDict

from dataplane.errors import DataPlaneBadRequest
from dataplane.nearest import choices, did_you_mean

__all__ = [
    "BACKENDS",
    "IMPLEMENTATIONS",
    "DataPlaneConfig",
    "MooncakeCpuConfig",
    "ObservabilityConfig",
    "SimpleStorageConfig",
    "bad_config",
    "check_config",
    "check_seconds",
    "plain",
    "portable",
    "storage_options",
    "without_effect",
]

IMPLEMENTATIONS: Final = ("transfer_queue", "noop")
BACKENDS: Final = ("simple", "mooncake_cpu")
PROTOCOLS: Final = ("tcp", "rdma")


class SimpleStorageConfig(TypedDict, total=False):
    """Sizes of the backend ``simple``.

    Attributes:
        storage_capacity: Rows that all storage units together hold; no limit when absent.
        num_storage_units: Number of storage units; TransferQueue's default when absent. It recommends two per node.
    """

    storage_capacity: int | None
    num_storage_units: int | None


class MooncakeCpuConfig(TypedDict, total=False):
    """Addresses and sizes of the backend ``mooncake_cpu``. What is absent keeps TransferQueue's default.

    Attributes:
        metadata_server: ``HOST:PORT`` of the metadata server, or ``P2PHANDSHAKE``.
        master_server_address: ``HOST:PORT`` of the ``mooncake_master``. Needed on more than one node.
        protocol: ``tcp`` or ``rdma``.
        auto_init: TransferQueue starts a ``mooncake_master``. False when an address is given, else True. Refused
            where one runs already, which TransferQueue would end.
        hard_pin: Whether stored objects are never evicted.
        global_segment_size: Bytes that each client process contributes; 0 contributes none.
        local_buffer_size: Bytes of the transfer buffer of each client process.
        device_name: Network device.
        use_gdr: Transfer straight from and to the memory of GPUs. Needs the protocol ``rdma``.
        gdr_staging_buffer_mb: Megabytes of GPU memory that a client keeps for it; 0 turns it off.
        reuse_registered_buffers: Of NeMo RL's configurations; has no effect: only its own adapter keeps a pool of
            registered buffers.
        staging_buffer_size: Likewise.
        cpu_staging_slots: Likewise.
        cpu_staging_buffer_mb: Likewise.
    """

    metadata_server: str | None
    master_server_address: str | None
    protocol: Literal["tcp", "rdma"] | None
    auto_init: bool | None
    hard_pin: bool | None
    global_segment_size: int | None
    local_buffer_size: int | None
    device_name: str | None
    use_gdr: bool | None
    gdr_staging_buffer_mb: int | None
    reuse_registered_buffers: bool | None
    staging_buffer_size: int | None
    cpu_staging_slots: int | None
    cpu_staging_buffer_mb: int | None


class ObservabilityConfig(TypedDict, total=False):
    """Whether the client is wrapped in a ``MetricsDataPlaneClient``.

    Attributes:
        enabled: Wrap it. False when absent.
        callback: Called with one dict per operation; ``log_event`` when absent.
    """

    enabled: bool
    callback: Callable[[dict[str, Any]], None] | None


class _Required(TypedDict):
    enabled: bool


class DataPlaneConfig(_Required, total=False):
    """What ``build_data_plane_client`` reads.

    Attributes:
        enabled: Must be true: who has no data plane builds no client.
        impl: ``transfer_queue`` (the default) or, for tests, ``noop``.
        backend: TransferQueue's storage: ``simple`` (the default) or ``mooncake_cpu``. Only its block is used.
        simple: Sizes of that backend.
        mooncake_cpu: Addresses and sizes of that backend.
        claim_meta_poll_interval_s: Pause between two requests of a claim that waits, in seconds. Default 0.5.
        timeout_s: Deadline of each call in seconds. Default 30.
        observability: Wrap the client.
        storage_capacity: The same as ``simple.storage_capacity``.
        num_storage_units: The same as ``simple.num_storage_units``.
        global_segment_size: The same as ``mooncake_cpu.global_segment_size``.
        local_buffer_size: The same as ``mooncake_cpu.local_buffer_size``.
        controller_address: Of NeMo RL's configurations; has no effect: the controller is found through Ray.
        ack_timeout_ms: Likewise; ``timeout_s`` is the deadline here.
    """

    impl: Literal["transfer_queue", "noop"]
    backend: Literal["simple", "mooncake_cpu"]
    simple: SimpleStorageConfig | None
    mooncake_cpu: MooncakeCpuConfig | None
    claim_meta_poll_interval_s: float | None
    timeout_s: float | None
    observability: ObservabilityConfig | None
    storage_capacity: int | None
    num_storage_units: int | None
    global_segment_size: int | None
    local_buffer_size: int | None
    controller_address: str | None
    ack_timeout_ms: int | None


Check = Callable[[str, Any], object]
"""Raises DataPlaneBadRequest, which names the key, unless the value is right."""


def bad_config(message: str) -> DataPlaneBadRequest:
    """Return the error for a wrong configuration."""
    return DataPlaneBadRequest(message, operation="build_data_plane_client")


def check_config(cfg: Mapping[str, Any]) -> None:
    """Raise DataPlaneBadRequest, a ValueError, unless every key of *cfg* is known and has a value of its type."""
    _check_block("", cfg)
    for backend, keys in _AT_THE_TOP.items():
        for key in keys:
            top, nested = cfg.get(key), (plain(cfg.get(backend)) or {}).get(key)
            if top is not None and nested is not None and top != nested:
                raise bad_config(f"{key} is {top!r} and {backend}.{key} is {nested!r}: give it once")
    mooncake = storage_options(cfg, "mooncake_cpu")
    if cfg.get("backend") == "mooncake_cpu" and mooncake.get("use_gdr") and mooncake.get("protocol") != "rdma":
        raise bad_config("mooncake_cpu.use_gdr needs RDMA: set mooncake_cpu.protocol to rdma, or use_gdr to false")


def storage_options(cfg: Mapping[str, Any], backend: str) -> dict[str, Any]:
    """Return what a checked *cfg* says of *backend*, from its block and from the top, without what has no effect."""
    given = {**{key: cfg.get(key) for key in _AT_THE_TOP[backend]}, **(plain(cfg.get(backend)) or {})}
    return {
        key: value for key, value in given.items() if value is not None and f"{backend}.{key}" not in _WITHOUT_EFFECT
    }


def without_effect(cfg: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of a checked *cfg* that are accepted and have no effect here, each with the reason."""
    backend = cfg.get("backend") or "simple"
    blocks = {"": cfg, f"{backend}.": plain(cfg.get(backend)) or {}}
    given = {f"{prefix}{key}" for prefix, block in blocks.items() for key in block if block[key] is not None}
    return {key: reason for key, reason in _WITHOUT_EFFECT.items() if key in given}


def plain(block: Any) -> Any:
    """Return a block as a mapping of what was set, if it is a pydantic model, as in NeMo RL; else as it is."""
    is_model = not isinstance(block, Mapping) and hasattr(block, "model_dump")
    return block.model_dump(exclude_unset=True) if is_model else block


def portable(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the client itself reads of a checked *cfg*, as plain values that pickle everywhere."""
    kept = {key: plain(value) for key, value in cfg.items() if key != "observability"}
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in kept.items()}


def check_seconds(key: str, value: object) -> float:
    """Return *value*; DataPlaneBadRequest, which names *key*, unless it is a positive, finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < math.inf:
        raise bad_config(f"{key} must be a positive number of seconds, not {value!r:.80}")
    return float(value)


def _check_block(prefix: str, block: Mapping[str, Any]) -> None:
    checks = _CHECKS[prefix]
    for key, value in block.items():
        name = f"{prefix}{key}"
        if key not in checks:
            homes = [f"{other}{key}" for other in _CHECKS if other and key in _CHECKS[other]] if not prefix else []
            meant = f"did you mean {homes[0]}" if homes else did_you_mean(str(key), checks, "docs/swap.md")
            raise bad_config(f"{name!r} is not a key of a data plane: {meant}")
        if value is not None:
            checks[key](name, plain(value))


def _of_type(*types: type) -> Check:
    def check(name: str, value: Any) -> None:
        if type(value) not in types:
            raise bad_config(f"{name} must be a {types[0].__name__}, not {value!r:.80}")

    return check


def _at_least(least: int) -> Check:
    def check(name: str, value: Any) -> None:
        if type(value) is not int or value < least:
            raise bad_config(f"{name} must be an int of at least {least}, not {value!r:.80}")

    return check


def _one_of(kind: str, known: tuple[str, ...]) -> Check:
    def check(name: str, value: Any) -> None:
        if value not in known:
            raise bad_config(f"unknown {kind} {value!r:.80}: {choices(str(value), known)}")

    return check


def _block(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise bad_config(f"{name} must be a mapping, not {value!r:.80}")
    _check_block(f"{name}.", value)


def _callable(name: str, value: Any) -> None:
    if not callable(value):
        raise bad_config(f"{name} must be a callable, not {value!r:.80}")


_AT_THE_TOP: Final[Mapping[str, tuple[str, ...]]] = {
    "simple": ("storage_capacity", "num_storage_units"),
    "mooncake_cpu": ("global_segment_size", "local_buffer_size"),
}
"""The sizes of each backend that may also stand at the top."""

_POOL: Final = "TransferQueue registers its buffers for each transfer"
_WITHOUT_EFFECT: Final[Mapping[str, str]] = {
    "controller_address": "the controller is found through Ray",
    "ack_timeout_ms": "timeout_s is the deadline",
    "mooncake_cpu.reuse_registered_buffers": _POOL,
    "mooncake_cpu.staging_buffer_size": _POOL,
    "mooncake_cpu.cpu_staging_slots": _POOL,
    "mooncake_cpu.cpu_staging_buffer_mb": _POOL,
}
"""Keys of NeMo RL's configurations that only its own adapter reads, and what holds in place of them."""

_SIZES: Final[Mapping[str, Check]] = {
    "storage_capacity": _at_least(1),
    "num_storage_units": _at_least(1),
    "global_segment_size": _at_least(0),
    "local_buffer_size": _at_least(1),
}

_CHECKS: Final[Mapping[str, Mapping[str, Check]]] = {
    "": {
        "enabled": _of_type(bool),
        "impl": _one_of("data plane impl", IMPLEMENTATIONS),
        "backend": _one_of("data plane backend", BACKENDS),
        "simple": _block,
        "mooncake_cpu": _block,
        "claim_meta_poll_interval_s": check_seconds,
        "timeout_s": check_seconds,
        "observability": _block,
        **_SIZES,
        "controller_address": _of_type(str),
        "ack_timeout_ms": _at_least(1),
    },
    "simple.": {key: _SIZES[key] for key in _AT_THE_TOP["simple"]},
    "mooncake_cpu.": {
        "metadata_server": _of_type(str),
        "master_server_address": _of_type(str),
        "protocol": _one_of("mooncake_cpu.protocol", PROTOCOLS),
        "auto_init": _of_type(bool),
        "hard_pin": _of_type(bool),
        **{key: _SIZES[key] for key in _AT_THE_TOP["mooncake_cpu"]},
        "device_name": _of_type(str),
        "use_gdr": _of_type(bool),
        "gdr_staging_buffer_mb": _at_least(0),
        "reuse_registered_buffers": _of_type(bool),
        "staging_buffer_size": _at_least(1),
        "cpu_staging_slots": _at_least(1),
        "cpu_staging_buffer_mb": _at_least(1),
    },
    "observability.": {"enabled": _of_type(bool), "callback": _callable},
}
"""The check of every key, by the prefix of its block."""
