"""The public interface against a recorded table: names, signatures, defaults and base classes.

The first part of each table is what NeMo RL's users know, which must not change; the second is ours.
"""

from __future__ import annotations

import abc
import dataclasses
import importlib
import inspect
import subprocess
import sys
import typing
from typing import Any

import msgspec
import pytest

import dataplane
from dataplane import interfaces
from dataplane.interfaces import DataPlaneClient, DataPlaneGroupMeta, KVBatchMeta, MetadataReader

MODULES = {
    "": [
        *("DataPlaneClient", "DataPlaneConfig", "KVBatchMeta", "MetricsDataPlaneClient"),
        *("build_data_plane_client", "log_event", "materialize"),
    ],
    ".interfaces": [
        *("DataPlaneClient", "KVBatchMeta", "DataPlaneGroupMeta", "DataPlaneCapabilities"),
        *("DataPlaneConfig", "ObservabilityConfig", "SimpleStorageConfig", "MooncakeCpuConfig"),
        *("DataPlaneError", "DataPlaneUnavailable", "DataPlaneTimeout", "DataPlaneReadError"),
        *("DataPlaneWriteError", "DataPlaneClearError", "DataPlaneNotReady", "DataPlaneBadRequest"),
    ],
    ".factory": ["build_data_plane_client"],
    ".observability": ["MetricsDataPlaneClient", "log_event"],
    ".adapters.noop": ["NoOpDataPlaneClient"],
    ".adapters.transfer_queue": ["TQDataPlaneClient"],
}

CLIENT = {
    "register_partition": (
        "(self, partition_id, fields, num_samples, consumer_tasks, grpo_group_size=None, enums=None)"
    ),
    "claim_meta": (
        "(self, partition_id, task_name, required_fields, batch_size, dp_rank=None, blocking=True, timeout_s=60.0)"
    ),
    "get_data": "(self, meta, select_fields=None)",
    "check_consumption_status": "(self, partition_id, task_names)",
    "put_samples": "(self, sample_ids, partition_id, fields=None, tags=None)",
    "get_samples": "(self, sample_ids, partition_id, select_fields)",
    "list_sample_ids": "(self, partition_id)",
    "clear_samples": "(self, sample_ids, partition_id)",
    "save_checkpoint": "(self, checkpoint_dir, *, metadata=None)",
    "load_checkpoint": "(self, checkpoint_dir)",
    "close": "(self)",
    "ping": "(self, timeout_s=None)",
    "list_metadata": "(self, partition_id)",
    "depth": "(self, partition_id)",
    "pop": "(self, keys, partition_id)",
    "evict": "(self, keys, partition_id)",
    "get_capabilities": "(self)",
    # ours
    "list_partitions": "(self)",
}

DERIVED = {"depth", "pop", "evict", "list_sample_ids", "save_checkpoint", "load_checkpoint"}
"""What an adapter need not define."""

BATCH = {
    "subset": "(self, indices)",
    "slice": "(self, start, stop)",
    "concat": "(self, *others)",
    "drop": "(self, indices)",
    "with_fields": "(self, field_names)",
    "stamp_tags": "(self, scalars)",
}

ERRORS: dict[str, set[type]] = {
    "DataPlaneError": {RuntimeError},
    "DataPlaneUnavailable": set(),
    "DataPlaneTimeout": {TimeoutError, OSError},
    "DataPlaneReadError": set(),
    "DataPlaneWriteError": set(),
    "DataPlaneClearError": set(),
    "DataPlaneNotReady": {KeyError, LookupError},
    "DataPlaneBadRequest": {ValueError},
}

CONFIGS = {
    "DataPlaneConfig": {
        *("enabled", "impl", "backend", "claim_meta_poll_interval_s", "simple", "mooncake_cpu", "controller_address"),
        *("storage_capacity", "num_storage_units", "global_segment_size", "local_buffer_size"),
        *("ack_timeout_ms", "observability"),
        "timeout_s",  # ours
    },
    "ObservabilityConfig": {"enabled", "callback"},
    "SimpleStorageConfig": {"storage_capacity", "num_storage_units"},
    "MooncakeCpuConfig": {
        *("metadata_server", "master_server_address", "protocol", "auto_init", "hard_pin"),
        *("global_segment_size", "local_buffer_size", "device_name", "use_gdr", "gdr_staging_buffer_mb"),
        *("reuse_registered_buffers", "staging_buffer_size", "cpu_staging_slots", "cpu_staging_buffer_mb"),
    },
}


def signature(function: Any) -> str:
    """Return a function's parameters with their kinds and defaults, without annotations."""
    plain = inspect.signature(function)
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in plain.parameters.values()]
    return str(plain.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


@pytest.mark.parametrize("module", MODULES)
def test_every_name_is_where_users_import_it_from(module: str) -> None:
    found = importlib.import_module("dataplane" + module)
    assert set(MODULES[module]) <= set(found.__all__)
    assert [name for name in MODULES[module] if not hasattr(found, name)] == []
    assert set(MODULES[module]) <= set(dir(found))


def test_one_object_has_one_identity() -> None:
    for name in set(dataplane.__all__) & set(interfaces.__all__):
        assert getattr(dataplane, name) is getattr(interfaces, name), name


def test_the_root_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'MetricsClient'"):
        dataplane.MetricsClient  # noqa: B018


def test_importing_the_package_loads_no_telemetry_and_asking_for_it_does() -> None:
    source = """
import sys
import dataplane, dataplane.factory, dataplane.interfaces, dataplane.adapters.noop, dataplane.adapters.transfer_queue
HEAVY = ("opentelemetry", "ray", "torch", "tensordict", "transfer_queue")
loaded = [name for name in HEAVY if name in sys.modules]
from dataplane import MetricsDataPlaneClient, log_event
print(loaded, [name for name in HEAVY if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[] ['opentelemetry']", "")


def test_the_client_has_exactly_these_methods() -> None:
    public = {name for name in vars(DataPlaneClient) if not name.startswith("_")}
    assert public == set(CLIENT)
    assert DataPlaneClient.__abstractmethods__ == public - DERIVED
    assert issubclass(DataPlaneClient, abc.ABC)


@pytest.mark.parametrize(
    "adapter",
    ["interfaces.DataPlaneClient", "adapters.noop.NoOpDataPlaneClient", "adapters.transfer_queue.TQDataPlaneClient"],
)
@pytest.mark.parametrize("method", CLIENT)
def test_a_method_has_its_signature(adapter: str, method: str) -> None:
    module, _, name = adapter.rpartition(".")
    cls = getattr(importlib.import_module(f"dataplane.{module}"), name)
    assert signature(getattr(cls, method)) == CLIENT[method]
    assert name == "DataPlaneClient" or cls.__abstractmethods__ == set()


def test_the_read_half_is_a_part_of_the_client() -> None:
    for name in ("ping", "list_partitions", "list_metadata", "depth", "get_capabilities", "close"):
        assert signature(getattr(MetadataReader, name)) == CLIENT[name]


def test_how_clients_are_made() -> None:
    from dataplane.adapters.noop import NoOpDataPlaneClient
    from dataplane.adapters.transfer_queue import TQDataPlaneClient
    from dataplane.observability import MetricsDataPlaneClient, log_event

    assert signature(dataplane.build_data_plane_client) == "(cfg, *, bootstrap=True, allow_noop=False)"
    assert signature(TQDataPlaneClient).startswith("(cfg, *, bootstrap=True, rules=None, default_rules=")
    assert all(p.kind is p.KEYWORD_ONLY for p in inspect.signature(NoOpDataPlaneClient).parameters.values())
    assert signature(MetricsDataPlaneClient).startswith("(inner, on_event=None, *, ")
    assert signature(log_event) == "(event)"
    assert signature(dataplane.materialize) == "(td, layout='padded', pad_value_dict=None, pad_to_seqlen=0)"


def test_the_batch() -> None:
    fields = [(field.name, field.default) for field in dataclasses.fields(KVBatchMeta)]
    missing = dataclasses.MISSING
    assert fields == [
        *[(name, missing) for name in ("partition_id", "task_name", "sample_ids")],
        *[("fields", None), ("sequence_lengths", None), ("extra_info", missing), ("tags", None)],
    ]
    assert KVBatchMeta("p", None, []).extra_info == {}
    assert {name: signature(getattr(KVBatchMeta, name)) for name in BATCH} == BATCH
    assert isinstance(KVBatchMeta.size, property)


def test_the_group() -> None:
    fields = {field.name: field.default for field in msgspec.structs.fields(DataPlaneGroupMeta)}
    nodefault = msgspec.NODEFAULT
    assert list(fields.items())[:8] == [
        *[(name, nodefault) for name in ("partition_id", "group_id", "keys")],
        *[("weight_version", None), ("created_at", None), ("committed", False)],
        *[("expected_num_keys", None), ("size_bytes", None)],
    ]
    assert list(fields)[8] == "tags"
    assert DataPlaneGroupMeta("p", "g", []).tags == {}
    assert isinstance(DataPlaneGroupMeta.is_complete, property)


def test_the_capabilities() -> None:
    assert [(field.name, field.default) for field in dataclasses.fields(interfaces.DataPlaneCapabilities)] == [
        ("supports_persistent_recovery", False),
        ("supports_server_side_filtering", False),
        ("supports_atomic_batch_put", False),
        ("supports_verified_clear", False),
    ]


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_what_its_callers_catch(name: str) -> None:
    cls = getattr(interfaces, name)
    assert issubclass(cls, interfaces.DataPlaneError)
    common: set[type] = {RuntimeError, Exception, BaseException, object}
    builtin = {base for base in cls.__mro__ if base.__module__ == "builtins"}
    assert builtin - common == ERRORS[name] - common
    assert signature(cls) == "(message='', *, operation=None, partition_id=None)"


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_has_these_keys(name: str) -> None:
    typed = getattr(interfaces, name)
    assert typing.is_typeddict(typed)
    assert set(typed.__annotations__) == CONFIGS[name]
    assert typed.__required_keys__ == ({"enabled"} if name == "DataPlaneConfig" else set())


def test_every_declared_key_is_read_and_no_other() -> None:
    from dataplane.config import _CHECKS

    read = {prefix.rstrip("."): set(checks) for prefix, checks in _CHECKS.items()}
    names = {"": "DataPlaneConfig", "simple": "SimpleStorageConfig", "mooncake_cpu": "MooncakeCpuConfig"}
    assert read == {key: CONFIGS[name] for key, name in {**names, "observability": "ObservabilityConfig"}.items()}
