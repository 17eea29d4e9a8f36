"""The metrics: exactly the declared ones are emitted, with bounded attributes."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from tensordict import TensorDict

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.errors import DataPlaneBadRequest, DataPlaneUnavailable
from dataplane.metrics import CLIENT_METRICS, CLIENT_OPERATION_DURATION, Metric
from tests.instrument.conftest import Telemetry
from tests.instrument.scripted import BATCH, CALLS, ScriptedClient

BY_NAME = {metric.name: metric for metric in CLIENT_METRICS}


def _use_everything(telemetry: Telemetry, client: Any) -> None:
    fields = TensorDict({"x": torch.zeros(2, 3)}, batch_size=[2])
    client.put_samples(["a", "b"], "train", fields, [{"weight_version": 1}, {"weight_version": 2}])
    client.get_data(client.claim_meta("train", "t", ["x"], 2))
    client.list_metadata("train")
    client.pop(["a"], "train")
    client.evict(["unknown"], "train")
    with pytest.raises(DataPlaneBadRequest):
        client.get_samples(["never"], "train", ["x"])
    client.ping()


def test_all_declared_metrics_are_emitted_and_nothing_else(telemetry: Telemetry, noop: NoOpDataPlaneClient) -> None:
    _use_everything(telemetry, telemetry.wrap(noop))
    emitted = telemetry.metrics()
    assert set(emitted) == set(BY_NAME)
    for name, metric in emitted.items():
        declared = BY_NAME[name]
        assert (metric.unit, metric.description) == (declared.unit, declared.description)
        for point in metric.data.data_points:
            _check_attributes(declared, point.attributes)


def _check_attributes(declared: Metric, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        values = declared.attributes[name]
        assert values is None or value in values, (declared.name, name, value)


def test_metrics_and_spans_name_the_schema_of_their_names(telemetry: Telemetry) -> None:
    telemetry.wrap(ScriptedClient()).ping()
    data: Any = telemetry._reader.get_metrics_data()
    schemas = {scope.schema_url for resource in data.resource_metrics for scope in resource.scope_metrics}
    scope = telemetry.span("ping").instrumentation_scope
    assert scope is not None
    assert schemas == {scope.schema_url} == {"https://opentelemetry.io/schemas/1.40.0"}


def test_durations_have_buckets_from_100_microseconds_to_a_minute(telemetry: Telemetry) -> None:
    telemetry.wrap(ScriptedClient()).ping()
    (point,) = telemetry.points("messaging.client.operation.duration").values()
    assert point.explicit_bounds == CLIENT_OPERATION_DURATION.boundaries
    assert (point.explicit_bounds[0], point.explicit_bounds[-1]) == (0.0001, 60.0)


def test_keys_and_bytes_by_direction(telemetry: Telemetry, noop: NoOpDataPlaneClient) -> None:
    client = telemetry.wrap(noop)
    fields = TensorDict({"x": torch.zeros(2, 3), "y": torch.zeros(2, dtype=torch.int64)}, batch_size=[2])
    client.put_samples(["a", "b"], "train", fields)
    client.get_samples(["a"], "train", ["x"])
    client.clear_samples(["a", "b"], "train")
    keys = {dict(key)["direction"]: n for key, n in telemetry.points("dataplane.client.keys").items()}
    sizes = {dict(key)["direction"]: n for key, n in telemetry.points("dataplane.client.io").items()}
    assert keys == {"write": 2, "read": 1, "clear": 2}
    assert sizes == {"write": 2 * 3 * 4 + 2 * 8, "read": 3 * 4}


def test_names_of_partitions_past_a_hundred_fold_into_other(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient(put_samples=BATCH, pop=DataPlaneUnavailable))
    for i in range(150):
        client.put_samples(["a", "b"], f"step_{i}")
        with pytest.raises(DataPlaneUnavailable):
            client.pop(["a"], f"step_{i}")
    names = {dict(key)["partition"]: n for key, n in telemetry.points("dataplane.client.keys").items()}
    assert len(names) == 101
    assert names["other"] == 100
    assert names["step_0"] == names["step_99"] == 2
    for metric in telemetry.metrics().values():
        assert len(metric.data.data_points) <= 202
    assert telemetry.spans[-1].name == "pop other"
    assert sum(n for n in telemetry.points("dataplane.client.errors").values()) == 150


def test_two_clients_of_a_process_share_one_set_of_series(telemetry: Telemetry) -> None:
    first, second = telemetry.wrap(ScriptedClient(put_samples=BATCH)), telemetry.wrap(ScriptedClient(put_samples=BATCH))
    first.put_samples(["a", "b"], "train")
    second.put_samples(["a", "b"], "train")
    assert list(telemetry.points("dataplane.client.keys").values()) == [4]
    assert [point.count for point in telemetry.points("messaging.client.operation.duration").values()] == [2]
    assert first.snapshot()["total_ops"] == second.snapshot()["total_ops"] == 1


def test_counters_do_not_fall_when_a_client_goes(telemetry: Telemetry) -> None:
    for _ in range(3):
        client = telemetry.wrap(ScriptedClient(put_samples=BATCH, ping=DataPlaneUnavailable("gone")))
        client.put_samples(["a", "b"], "train")
        with pytest.raises(DataPlaneUnavailable):
            client.ping()
        del client
        gc.collect()
        telemetry.metrics()
    assert list(telemetry.points("dataplane.client.keys").values()) == [6]
    assert list(telemetry.points("dataplane.client.errors").values()) == [3]


def test_every_operation_has_a_duration(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient(put_samples=BATCH, claim_meta=BATCH, list_metadata=[]))
    for name, args in CALLS.items():
        getattr(client, name)(*args)
    recorded = {
        dict(key)["messaging.operation.name"] for key in telemetry.points("messaging.client.operation.duration")
    }
    assert recorded == set(CALLS)
