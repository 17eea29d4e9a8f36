"""Building a client from a mapping: a wrong key or value is named before anything starts."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dataplane import DataPlaneBadRequest, DataPlaneUnavailable, build_data_plane_client
from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.adapters.transfer_queue import TQDataPlaneClient, session
from dataplane.adapters.transfer_queue.config import check_no_master_runs, tq_conf
from dataplane.adapters.transfer_queue.session import Attachment
from dataplane.config import portable
from dataplane.interfaces import TagRules

ON = {"enabled": True}


@pytest.mark.parametrize("cfg", [None, {}, {"enabled": False}, {"enabled": None}, {"impl": "transfer_queue"}], ids=repr)
def test_who_has_no_data_plane_is_sent_to_the_legacy_trainer(cfg: dict[str, Any] | None) -> None:
    with pytest.raises(ValueError, match=r"disabled.*legacy trainer") as caught:
        build_data_plane_client(cfg, bootstrap=False)
    assert isinstance(caught.value, DataPlaneBadRequest)
    assert caught.value.operation == "build_data_plane_client"


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        ({"enable": True}, "'enable' is not a key of a data plane: did you mean enabled"),
        ({"enabled": "true"}, "enabled must be a bool"),
        ({"impl": "foo"}, "^unknown data plane impl 'foo': it is one of transfer_queue, noop$"),
        ({"impl": "transferqueue"}, "^unknown data plane impl .* did you mean transfer_queue"),
        ({"backend": "disk"}, "^unknown data plane backend 'disk': it is one of simple, mooncake_cpu$"),
        ({"backend": "mooncake"}, "^unknown data plane backend .* did you mean mooncake_cpu"),
        ({"storage_capcity": 1}, "did you mean storage_capacity"),
        ({"storage_capacity": 0}, "storage_capacity must be an int of at least 1"),
        ({"storage_capacity": "many"}, "storage_capacity"),
        ({"num_storage_units": True}, "num_storage_units"),
        ({"simple": {"num_storage_unit": 16}}, "'simple.num_storage_unit' .* did you mean num_storage_units"),
        ({"simple": {"num_storage_units": 0}}, r"simple\.num_storage_units must be"),
        ({"simple": [1]}, "simple must be a mapping"),
        ({"simple": {"storage_capacity": 1}, "storage_capacity": 2}, "give it once"),
        ({"mooncake_cpu": {"global_segment_size": -1}}, r"mooncake_cpu\.global_segment_size must be"),
        ({"mooncake_cpu": {"protocol": "udp"}}, r"unknown mooncake_cpu\.protocol 'udp': it is one of tcp, rdma"),
        ({"mooncake_cpu": {"auto_init": "no"}}, r"mooncake_cpu\.auto_init must be a bool"),
        ({"mooncake_cpu": {"use_gdr": 1}}, r"mooncake_cpu\.use_gdr must be a bool"),
        ({"mooncake_cpu": {"gdr_staging_buffer_mb": "1G"}}, r"mooncake_cpu\.gdr_staging_buffer_mb must be an int"),
        ({"backend": "mooncake_cpu", "mooncake_cpu": {"use_gdr": True}}, r"set mooncake_cpu\.protocol to rdma"),
        ({"use_gdr": True}, r"'use_gdr' is not a key of a data plane: did you mean mooncake_cpu\.use_gdr"),
        ({"mooncake_cpu": {"master_server_address": 50051}}, r"master_server_address must be a str"),
        ({"backend": "mooncake_cpu", "local_buffer_size": -1}, "local_buffer_size"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"claim_meta_poll_interval_s": "fast"}, "claim_meta_poll_interval_s"),
        ({"observability": "on"}, "observability must be a mapping"),
        ({"observability": {"enabled": 1}}, r"observability\.enabled must be a bool"),
        ({"observability": {"callback": "print"}}, r"observability\.callback must be a callable"),
        ({"observability": {"call_back": print}}, "did you mean callback"),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else None,
)
@pytest.mark.parametrize("impl", ["transfer_queue", "noop"])
def test_a_wrong_key_or_value_is_named(cfg: dict[str, Any], said: str, impl: str) -> None:
    enabled = {} if "enable" in cfg else ON
    with pytest.raises(ValueError, match=said) as caught:
        build_data_plane_client({"impl": impl, **enabled, **cfg}, bootstrap=False, allow_noop=True)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("cfg", ["transfer_queue", 5, [("enabled", True)]], ids=repr)
def test_a_configuration_is_a_mapping(cfg: Any) -> None:
    with pytest.raises(ValueError, match="cfg must be a mapping"):
        build_data_plane_client(cfg)


def test_ray_and_torch_are_not_touched_for_a_wrong_configuration() -> None:
    source = """
import sys
from dataplane import build_data_plane_client
for cfg in (None, {}, {"enabled": True, "impl": "foo"}, {"enabled": True, "backend": "foo"}, {"enabled": True, "x": 1}):
    try:
        build_data_plane_client(cfg)
    except ValueError:
        continue
    raise SystemExit(f"{cfg} was taken")
print([name for name in ("torch", "ray", "transfer_queue", "tensordict", "opentelemetry") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_no_job_gets_a_plane_in_memory_by_mistake() -> None:
    cfg = {"enabled": True, "impl": "noop"}
    with pytest.raises(ValueError, match="allow_noop=True"):
        build_data_plane_client(cfg)
    assert isinstance(build_data_plane_client(cfg, allow_noop=True), NoOpDataPlaneClient)


def _noop(observability: object) -> Any:
    return build_data_plane_client({"enabled": True, "impl": "noop", "observability": observability}, allow_noop=True)


def test_observability_wraps_the_client_and_calls_back() -> None:
    events: list[dict[str, Any]] = []
    client = _noop({"enabled": True, "callback": events.append})
    client.put_samples(["a"], "p", tags=[{}])
    assert [(event["op"], event["status"]) for event in events] == [("put", "ok")]


def test_observability_without_a_callback_logs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "dataplane.observability"):
        _noop({"enabled": True}).put_samples(["a"], "p", tags=[{}])
    assert [record.levelname for record in caplog.records if "op=put" in record.message] == ["DEBUG"]


@pytest.mark.parametrize("observability", [None, {}, {"enabled": False, "callback": print}], ids=repr)
def test_observability_that_is_off_wraps_nothing(observability: object) -> None:
    assert isinstance(_noop(observability), NoOpDataPlaneClient)


class _Model:
    """A block as pydantic models it, which is how NeMo RL passes it on."""

    def __init__(self, **values: Any) -> None:
        self._values = values

    def model_dump(self, *, exclude_unset: bool) -> dict[str, Any]:
        assert exclude_unset
        return self._values


_SIZES = {"total_storage_size": 100, "num_data_storage_units": 16}


@pytest.mark.parametrize(
    "cfg",
    [
        {"storage_capacity": 100, "num_storage_units": 16},
        {"simple": {"storage_capacity": 100, "num_storage_units": 16}},
        {"simple": {"storage_capacity": 100}, "num_storage_units": 16, "storage_capacity": 100},
        {"simple": _Model(storage_capacity=100, num_storage_units=16)},
        {"backend": None, "simple": {"storage_capacity": 100, "num_storage_units": 16}, "mooncake_cpu": None},
    ],
    ids=", ".join,
)
def test_the_sizes_of_simple_storage_reach_transfer_queue_from_wherever_they_stand(cfg: dict[str, Any]) -> None:
    conf = tq_conf({**cfg, "global_segment_size": 1, "controller_address": "x", "ack_timeout_ms": 1})
    assert conf == {
        "controller": {"polling_mode": True},
        "backend": {"storage_backend": "SimpleStorage", "SimpleStorage": _SIZES},
    }


def _mooncake(**block: Any) -> dict[str, Any]:
    conf: dict[str, Any] = tq_conf({"backend": "mooncake_cpu", "mooncake_cpu": block})["backend"]
    assert conf["storage_backend"] == "MooncakeStore"
    told: dict[str, Any] = conf["MooncakeStore"]
    return told


def test_every_key_of_mooncake_reaches_transfer_queue() -> None:
    block = {
        "metadata_server": "10.0.0.1:50050",
        "master_server_address": "10.0.0.1:50051",
        "protocol": "rdma",
        "auto_init": True,
        "hard_pin": False,
        "global_segment_size": 0,
        "local_buffer_size": 2**20,
        "device_name": "mlx5_0",
        "use_gdr": True,
        "gdr_staging_buffer_mb": 512,
    }
    assert _mooncake(**block) == block
    flat = tq_conf({"backend": "mooncake_cpu", "global_segment_size": 0, "local_buffer_size": 5})
    assert flat["backend"]["MooncakeStore"] == {"auto_init": True, "global_segment_size": 0, "local_buffer_size": 5}


@pytest.mark.parametrize("address", ["metadata_server", "master_server_address"])
def test_no_master_is_started_beside_one_with_an_address(address: str) -> None:
    assert _mooncake(**{address: "10.0.0.1:50051"})["auto_init"] is False


def test_no_master_of_this_machine_is_ended(tmp_path: Path) -> None:
    for pid, command in (("12", b"python\0train.py\0"), ("345", b"/opt/mooncake/mooncake_master\0--rpc_port=1\0")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(command)
    (tmp_path / "99").mkdir()  # it has just ended
    (tmp_path / "version").write_text("Linux")
    own = tq_conf({"backend": "mooncake_cpu"})
    with pytest.raises(DataPlaneUnavailable, match=r"process 345 .*master_server_address"):
        check_no_master_runs(own, tmp_path)
    check_no_master_runs(tq_conf({"backend": "mooncake_cpu", "mooncake_cpu": {"auto_init": False}}), tmp_path)
    check_no_master_runs(tq_conf({}), tmp_path)
    (tmp_path / "345" / "cmdline").unlink()
    check_no_master_runs(own, tmp_path)


def test_a_start_asks_for_such_a_master_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(conf: dict[str, Any]) -> None:
        raise DataPlaneUnavailable(conf["backend"]["storage_backend"])

    monkeypatch.setattr(session, "check_no_master_runs", refuse)
    with pytest.raises(DataPlaneUnavailable, match="MooncakeStore"):
        session._create(ModuleType("transfer_queue"), tq_conf({"backend": "mooncake_cpu"}), 1.0)


def test_what_travels_with_a_client_pickles_everywhere() -> None:
    cfg = {**ON, "simple": _Model(storage_capacity=1), "observability": {"enabled": True, "callback": lambda event: 1}}
    kept = portable(cfg)
    assert kept == {"enabled": True, "simple": {"storage_capacity": 1}}
    assert pickle.loads(pickle.dumps(kept)) == kept


def test_the_copy_has_the_configuration_and_the_rules_and_never_bootstraps(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[bool] = []

    def attach(self: TQDataPlaneClient, conf: dict[str, Any] | None) -> Attachment:
        starts.append(conf is not None)
        return Attachment(SimpleNamespace(_loop=None), "controller", "tcp://127.0.0.1:1")

    monkeypatch.setattr(TQDataPlaneClient, "_attach", attach)
    monkeypatch.setattr(TQDataPlaneClient, "_watch", lambda *arguments, **options: None)
    monkeypatch.setattr("dataplane.adapters.transfer_queue.attached.import_tq", lambda: ModuleType("transfer_queue"))
    rules = {"p": TagRules("recovery", 2)}
    cfg = {**ON, "timeout_s": 20.0, "observability": {"enabled": True, "callback": lambda event: None}}
    client = TQDataPlaneClient(cfg, rules=rules, default_rules=TagRules("nemo-rl"))
    copy = pickle.loads(pickle.dumps(client))
    assert starts == [True]
    assert copy._attachment.controller_id == "controller"
    assert copy._attachment is copy._attachment
    assert starts == [True, False]
    assert copy._made_with == ({"enabled": True, "timeout_s": 20.0}, rules, TagRules("nemo-rl"))


def test_a_copy_that_was_never_used_closes_without_attaching(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataplane.adapters.transfer_queue.attached.import_tq", lambda: ModuleType("transfer_queue"))
    copy = TQDataPlaneClient(ON, bootstrap=None)
    copy.close()
    with pytest.raises(DataPlaneUnavailable, match="closed") as caught:
        copy.ping()
    assert caught.value.operation == "ping"


_OF_NEMO_RLS_POOL = {
    "reuse_registered_buffers": True,
    "staging_buffer_size": 2**28,
    "cpu_staging_slots": 4,
    "cpu_staging_buffer_mb": 256,
}
"""How NeMo RL's own adapter keeps buffers that are registered with Mooncake."""


def test_what_only_nemo_rls_adapter_reads_does_not_reach_transfer_queue() -> None:
    assert _mooncake(**_OF_NEMO_RLS_POOL) == {"auto_init": True}


@pytest.mark.parametrize(
    "cfg",
    [
        {"controller_address": "10.0.0.1:5"},
        {"ack_timeout_ms": 5},
        *({"backend": "mooncake_cpu", "mooncake_cpu": {key: value}} for key, value in _OF_NEMO_RLS_POOL.items()),
    ],
    ids=repr,
)
def test_a_key_without_effect_is_warned_of(
    cfg: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dataplane.adapters.transfer_queue.attached.import_tq", lambda: ModuleType("transfer_queue"))
    TQDataPlaneClient({**ON, **cfg}, bootstrap=None)
    key = next(iter(cfg["mooncake_cpu"])) if "mooncake_cpu" in cfg else next(iter(cfg))
    assert [f"{key} has no effect" in record.getMessage() for record in caplog.records] == [True]


def test_the_block_of_a_backend_that_is_not_used_is_not_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dataplane.adapters.transfer_queue.attached.import_tq", lambda: ModuleType("transfer_queue"))
    TQDataPlaneClient({**ON, "mooncake_cpu": {**_OF_NEMO_RLS_POOL, "use_gdr": True}}, bootstrap=None)
    assert not caplog.records
