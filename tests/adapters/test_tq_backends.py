"""What the client of TransferQueue does for a backend other than SimpleStorage, without one."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from tensordict import TensorDict

from dataplane.adapters.transfer_queue import TQDataPlaneClient
from dataplane.adapters.transfer_queue.session import Attachment
from dataplane.errors import DataPlaneBadRequest, DataPlaneUnavailable


def _client(monkeypatch: pytest.MonkeyPatch, backend: str) -> TQDataPlaneClient:
    attachment = Attachment(SimpleNamespace(_loop=None), "controller", "tcp://127.0.0.1:1", backend=backend)
    monkeypatch.setattr(TQDataPlaneClient, "_attach", lambda self, conf: attachment)
    monkeypatch.setattr(TQDataPlaneClient, "_watch", lambda *arguments, **options: None)
    monkeypatch.setattr("dataplane.adapters.transfer_queue.attached.import_tq", lambda: ModuleType("transfer_queue"))
    return TQDataPlaneClient({"enabled": True})


@pytest.mark.parametrize(("backend", "apart"), [("SimpleStorage", False), ("Yuanrong", False), ("MooncakeStore", True)])
def test_scalars_go_apart_where_they_would_become_rows_of_one(
    backend: str, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = TensorDict({"reward": torch.tensor([1.0, 2.0])}, batch_size=[2])
    stored = _client(monkeypatch, backend)._storage.storable("p", ["a", "b"], fields)
    assert stored["reward"].is_nested is apart


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
