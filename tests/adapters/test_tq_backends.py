"""What the client of TransferQueue does for a backend other than SimpleStorage, without one."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from dataplane.adapters.transfer_queue import TQDataPlaneClient
from dataplane.adapters.transfer_queue.session import Attachment
from dataplane.errors import DataPlaneBadRequest, DataPlaneUnavailable


def _client(monkeypatch: pytest.MonkeyPatch, backend: str) -> TQDataPlaneClient:
    attachment = Attachment(SimpleNamespace(_loop=None), "controller", "tcp://127.0.0.1:1", backend=backend)
    monkeypatch.setattr(TQDataPlaneClient, "_attach", lambda self, conf: attachment)
    monkeypatch.setattr(TQDataPlaneClient, "_watch", lambda *arguments: None)
    monkeypatch.setattr("dataplane.adapters.transfer_queue.attached.import_tq", lambda: ModuleType("transfer_queue"))
    return TQDataPlaneClient({"enabled": True})


@pytest.mark.parametrize(("backend", "changed"), [("SimpleStorage", False), ("MooncakeStore", True)])
def test_a_scalar_travels_in_a_shape_of_its_own_where_it_must(
    backend: str, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = _client(monkeypatch, backend)
    fields = TensorDict({"reward": torch.tensor([1.0, 2.0]), "tokens": torch.ones(2, 1)}, batch_size=[2])
    stored = client._storable("p", fields)
    assert (stored["reward"].dim() > 1) is changed

    def answer(self: TQDataPlaneClient, operation: str, *arguments: Any, **options: Any) -> TensorDict:
        return stored

    monkeypatch.setattr(TQDataPlaneClient, "_call_tq", answer)
    read = client.get_samples(["a", "b"], "p", ["reward", "tokens"])
    assert torch.equal(read["reward"], torch.tensor([1.0, 2.0]))
    assert torch.equal(read["tokens"], torch.ones(2, 1))


def test_no_checkpoint_without_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(DataPlaneBadRequest, match="saves no rows of its backend MooncakeStore") as caught:
        _client(monkeypatch, "MooncakeStore").save_checkpoint(tmp_path / "checkpoint")
    assert caught.value.operation == "save_checkpoint"
    assert list(tmp_path.iterdir()) == []


def test_a_closed_client_says_so_whatever_it_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    client = _client(monkeypatch, "SimpleStorage")
    client._close_calls()
    for name, arguments in {"list_sample_ids": ("p",), "save_checkpoint": (tmp_path / "new",)}.items():
        with pytest.raises(DataPlaneUnavailable, match="closed") as caught:
            getattr(client, name)(*arguments)
        assert caught.value.operation == name
