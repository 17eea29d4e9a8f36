"""NeMo RL's import paths lead to our interface by docs/swap.md, and what its callers do with it works."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from tensordict import NonTensorData, TensorDict

import dataplane
from dataplane.config import check_config

PAGE = (Path(__file__).parents[2] / "docs" / "swap.md").read_text()

IMPORTED = {
    "": [
        *("DataPlaneClient", "DataPlaneConfig", "KVBatchMeta", "MetricsDataPlaneClient"),
        *("build_data_plane_client", "log_event", "materialize"),
    ],
    ".interfaces": ["DataPlaneClient", "DataPlaneConfig", "KVBatchMeta", "ObservabilityConfig"],
    ".factory": ["build_data_plane_client"],
    ".observability": ["MetricsDataPlaneClient", "log_event"],
    ".adapters.noop": ["NoOpDataPlaneClient"],
    ".adapters.transfer_queue": ["TQDataPlaneClient"],
}
"""What modules of NeMo RL import, by the module under ``nemo_rl.data_plane``."""


@pytest.fixture
def nemo_rl(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """``nemo_rl.data_plane`` as a trainer that was not edited sees it."""
    before = {name for name in sys.modules if name.partition(".")[0] == "nemo_rl"}
    assert before == set()
    package: Any = ModuleType("nemo_rl")
    package.__path__, package.data_plane = [], dataplane
    monkeypatch.setitem(sys.modules, "nemo_rl", package)
    monkeypatch.setitem(sys.modules, "nemo_rl.data_plane", dataplane)
    (program,) = re.findall(r"```python\n# swap\.py\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(program, "swap.py", "exec"), {})
    yield package.data_plane
    for name in [name for name in sys.modules if name.startswith("nemo_rl.")]:
        del sys.modules[name]


@pytest.fixture
def client(nemo_rl: Any) -> Iterator[Any]:
    made = importlib.import_module("nemo_rl.data_plane.adapters.noop").NoOpDataPlaneClient()
    yield made
    made.close()
    made.close()


@pytest.mark.parametrize("module", IMPORTED)
def test_the_old_paths_lead_to_the_same_objects(nemo_rl: Any, module: str) -> None:
    old = importlib.import_module(f"nemo_rl.data_plane{module}")
    new = importlib.import_module(f"dataplane{module}")
    assert all(getattr(old, name) is getattr(new, name) for name in IMPORTED[module])


def test_the_page_names_every_module_that_is_swapped(nemo_rl: Any) -> None:
    swapped = {name for name in sys.modules if name.startswith("nemo_rl.data_plane.")}
    assert swapped == {f"nemo_rl.data_plane{module}" for module in (*IMPORTED, ".adapters") if module}


def test_a_row_is_written_read_and_cleared(client: Any) -> None:
    client.register_partition(partition_id="p", fields=["x"], num_samples=4, consumer_tasks=["read"])
    keys = ["a", "b", "c", "d"]
    client.put_samples(sample_ids=keys, partition_id="p", fields=TensorDict({"x": torch.arange(4)}, batch_size=[4]))
    read = client.get_samples(sample_ids=keys, partition_id="p", select_fields=["x"])
    assert torch.equal(read["x"], torch.arange(4))
    with pytest.raises(KeyError):
        client.get_samples(sample_ids=keys, partition_id="p", select_fields=["later"])
    client.clear_samples(sample_ids=None, partition_id="p")
    with pytest.raises(KeyError):
        client.get_samples(sample_ids=keys, partition_id="p", select_fields=["x"])


def test_a_claim_moves_the_cursor_and_carries_lengths(client: Any, nemo_rl: Any) -> None:
    client.register_partition(partition_id="p", fields=["x"], num_samples=2, consumer_tasks=["read"])
    fields = TensorDict({"x": torch.ones(2, 3)}, batch_size=[2])
    client.put_samples(["a", "b"], "p", fields, [{"input_lengths": 3}, {"input_lengths": 2}])
    meta = client.claim_meta(partition_id="p", task_name="read", required_fields=["x"], batch_size=2)
    assert isinstance(meta, nemo_rl.KVBatchMeta)
    assert (meta.size, meta.sequence_lengths) == (2, [3, 2])
    assert client.check_consumption_status("p", ["read"])
    assert torch.equal(nemo_rl.materialize(client.get_data(meta), pad_to_seqlen=4)["x"][:, 3], torch.zeros(2))


def test_what_callers_catch(client: Any, nemo_rl: Any) -> None:
    client.register_partition(partition_id="p", fields=["x"], num_samples=1, consumer_tasks=["read"])
    client.put_samples(["a"], "p", TensorDict({"x": torch.tensor([1])}, batch_size=[1]))
    with pytest.raises(ValueError, match="select_fields"):
        client.get_data(nemo_rl.KVBatchMeta(partition_id="p", task_name=None, sample_ids=["a"], fields=None))
    with pytest.raises(TypeError, match="non-tensor"):
        client.put_samples(["a"], "p", TensorDict({"x": NonTensorData("hello")}, batch_size=[1]))
    with pytest.raises(TimeoutError):
        client.claim_meta("p", "read", ["x"], 2, timeout_s=0.0)
    with pytest.raises(ValueError, match="align 1:1"):
        nemo_rl.KVBatchMeta("p", None, ["a", "b"], tags=[{}])


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        (None, "disabled"),
        ({"enabled": False, "impl": "transfer_queue"}, "legacy"),
        ({"enabled": True, "impl": "noop"}, "noop"),
        ({"enabled": True, "impl": "no_such_thing"}, "unknown.*impl"),
    ],
    ids=repr,
)
def test_what_the_factory_refuses(nemo_rl: Any, cfg: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        importlib.import_module("nemo_rl.data_plane.factory").build_data_plane_client(cfg)


def test_a_framework_subclasses_and_wraps_the_client(client: Any, nemo_rl: Any) -> None:
    assert isinstance(client, nemo_rl.DataPlaneClient)
    events: list[dict[str, Any]] = []
    wrapped = nemo_rl.MetricsDataPlaneClient(client, on_event=events.append)
    wrapped.put_samples(["a"], "p", TensorDict({"x": torch.ones(1, 2)}, batch_size=[1]))
    assert {"op", "partition_id", "n_keys", "n_bytes", "wall_ms", "status"} <= set(events[0])
    assert wrapped.snapshot()["n_keys_outstanding"] == 1


def test_the_configuration_of_the_page_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    cfg = yaml.safe_load(text)["data_plane"]
    check_config(cfg)
    assert set(cfg["mooncake_cpu"]) == set(dataplane.MooncakeCpuConfig.__annotations__)
    assert set(cfg["simple"]) == set(dataplane.SimpleStorageConfig.__annotations__)
