"""Links and version lag: what is known about a key, from which source, and how much is kept."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Sampler
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from tensordict import TensorDict

from dataplane.adapters.noop import NoOpDataPlaneClient
from dataplane.interfaces import KVBatchMeta
from dataplane.observability import MetricsDataPlaneClient
from dataplane.observability.effects import trainer_version
from dataplane.observability.lineage import Lineage
from dataplane.observability.origins import MAX_LINKS
from dataplane.observability.trace_context import TRACEPARENT, contexts_of, traceparent, versions_of
from tests.instrument.conftest import Telemetry
from tests.instrument.scripted import ScriptedClient


def _put(client: Any, keys: list[str], version: int | None = None, partition: str = "train") -> None:
    fields = TensorDict({"x": torch.zeros(len(keys), 1)}, batch_size=[len(keys)])
    tags = None if version is None else [{"weight_version": version} for _ in keys]
    client.put_samples(keys, partition, fields, tags)


def _linked(telemetry: Telemetry, name: str) -> set[int]:
    return {link.context.span_id for link in telemetry.span(name).links}


def _put_ids(telemetry: Telemetry) -> list[int]:
    return [span.context.span_id for span in telemetry.spans if span.name.startswith("put_samples")]


def _lag(telemetry: Telemetry, operation: str) -> tuple[int, float] | None:
    point = telemetry.value("dataplane.client.consumed.lag", operation=operation, partition="train")
    return None if point is None else (point.count, point.sum)


# Links.


@pytest.mark.parametrize("read", ["get_samples", "pop", "evict"])
def test_a_call_by_key_links_to_the_puts_of_its_keys(
    read: str, telemetry: Telemetry, noop: NoOpDataPlaneClient
) -> None:
    client = telemetry.wrap(noop)
    _put(client, ["a", "b"])
    _put(client, ["c"])
    _put(client, ["unrelated"])
    args = (["a", "b", "c"], "train", ["x"]) if read == "get_samples" else (["a", "b", "c"], "train")
    getattr(client, read)(*args)
    assert _linked(telemetry, f"{read} train") == set(_put_ids(telemetry)[:2])


def test_a_consumer_in_another_client_links_through_the_tags(telemetry: Telemetry, noop: NoOpDataPlaneClient) -> None:
    producer, consumer = telemetry.wrap(noop, propagate=True), telemetry.wrap(noop)
    _put(producer, ["a", "b"], 3)
    (put,) = _put_ids(telemetry)
    meta = consumer.claim_meta("train", "t", ["x"], 2)
    consumer.get_data(meta)
    consumer.get_samples(["a"], "train", ["x"])
    consumer.pop(["a"], "train")
    consumer.evict(["b"], "train")
    for name in ("claim_meta", "get_data", "get_samples", "pop", "evict"):
        assert _linked(telemetry, f"{name} train") == {put}, name
        link = telemetry.span(f"{name} train").links[0]
        assert link.context.trace_id == telemetry.span("put_samples train").context.trace_id


def test_a_listing_tells_a_controller_where_keys_came_from(telemetry: Telemetry, noop: NoOpDataPlaneClient) -> None:
    producer, controller = telemetry.wrap(noop, propagate=True), telemetry.wrap(noop)
    _put(producer, ["a_g0", "a_g1"], 3)
    controller.list_metadata("train")
    controller.pop(["a_g0", "a_g1"], "train")
    assert _linked(telemetry, "pop train") == set(_put_ids(telemetry))


def test_a_claimed_batch_that_crossed_processes_still_links(telemetry: Telemetry, noop: NoOpDataPlaneClient) -> None:
    _put(telemetry.wrap(noop, propagate=True), ["a"], 3)
    meta = noop.claim_meta("train", "t", ["x"], 1)
    telemetry.wrap(noop).get_data(meta)
    assert _linked(telemetry, "get_data train") == set(_put_ids(telemetry))


def test_the_callers_tags_are_never_changed(telemetry: Telemetry) -> None:
    inner = ScriptedClient()
    client = telemetry.wrap(inner, propagate=True)
    tags: list[Any] = [{"weight_version": 1}, None]
    client.put_samples(["a", "b"], "train", None, tags)
    assert tags == [{"weight_version": 1}, None]
    sent = inner.calls[0][1][3]
    assert sent[1] is None
    assert sent[0]["weight_version"] == 1
    context = telemetry.span("put_samples train").context
    assert sent[0][TRACEPARENT].split("-")[1:3] == [f"{context.trace_id:032x}", f"{context.span_id:016x}"]


@pytest.mark.parametrize("style", ["positional", "keyword", "left out"])
def test_tags_are_found_however_they_are_passed(style: str, telemetry: Telemetry) -> None:
    inner = ScriptedClient()
    client: Any = telemetry.wrap(inner, propagate=True)
    if style == "positional":
        client.put_samples(["a"], "train", None, [{}])
        (tag,) = inner.calls[0][1][3]
    elif style == "keyword":
        client.put_samples(sample_ids=["a"], partition_id="train", tags=[{}])
        (tag,) = inner.calls[0][2]["tags"]
    else:
        client.put_samples(["a"], "train", TensorDict({"x": torch.zeros(1)}, batch_size=[1]))
        (tag,) = inner.calls[0][2]["tags"]
    assert set(tag) == {TRACEPARENT}


def test_a_later_put_without_a_version_leaves_the_producers_span(telemetry: Telemetry) -> None:
    inner = ScriptedClient()
    client: Any = telemetry.wrap(inner, propagate=True)
    fields = TensorDict({"x": torch.zeros(2, 1)}, batch_size=[2])
    client.put_samples(["a", "b"], "train", None, [{"weight_version": 1}, {"weight_version": 1}])
    client.put_samples(["a", "b"], "train", fields)
    client.put_samples(["a", "c"], "train", fields)
    client.put_samples(["a", "b"], "train", fields, [{"status": "done"}, {"status": "done"}])
    sent: list[Any] = [call[1][3] if len(call[1]) > 3 else call[2].get("tags") for call in inner.calls]
    assert [TRACEPARENT in tag for tag in sent[0]] == [True, True]
    assert sent[1] is None
    assert [TRACEPARENT in tag for tag in sent[2]] == [False, True]
    assert sent[3] == [{"status": "done"}, {"status": "done"}]


def test_who_has_only_read_rows_leaves_their_producers_span(telemetry: Telemetry, noop: NoOpDataPlaneClient) -> None:
    _put(telemetry.wrap(noop, propagate=True), ["a"], 3)
    trainer = telemetry.wrap(noop, propagate=True)
    trainer.get_samples(["a"], "train", ["x"])
    _put(trainer, ["a"])
    telemetry.wrap(noop).claim_meta("train", "t", ["x"], 1)
    assert _linked(telemetry, "claim_meta train") == {_put_ids(telemetry)[0]}


def test_the_text_of_a_span_is_what_the_propagator_writes(telemetry: Telemetry) -> None:
    span = telemetry.tracers.get_tracer("test").start_span("x")
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(span))
    assert traceparent(span) == carrier[TRACEPARENT]


def test_nothing_is_propagated_unless_asked(telemetry: Telemetry) -> None:
    inner = ScriptedClient()
    tags = [{"weight_version": 1}]
    telemetry.wrap(inner).put_samples(["a"], "train", None, tags)
    assert inner.calls[0][1][3] is tags


def test_without_an_sdk_nothing_is_propagated() -> None:
    inner = ScriptedClient()
    tags = [{"weight_version": 1}]
    MetricsDataPlaneClient(inner, propagate=True).put_samples(["a"], "train", None, tags)
    assert inner.calls[0][1][3] is tags


def test_a_producer_that_was_not_sampled_is_not_linked_to(noop: NoOpDataPlaneClient, telemetry: Telemetry) -> None:
    unsampled = Telemetry(ALWAYS_OFF)
    _put(unsampled.wrap(noop, propagate=True), ["a"], 1)
    consumer = telemetry.wrap(noop)
    assert (consumer.claim_meta("train", "t", ["x"], 1).tags or [])[0][TRACEPARENT].startswith("00-")
    assert telemetry.span("claim_meta train").links == ()


def test_a_span_links_to_at_most_32_producers(telemetry: Telemetry, noop: NoOpDataPlaneClient) -> None:
    client = telemetry.wrap(noop)
    keys = [f"k{i}" for i in range(50)]
    for key in keys:
        _put(client, [key])
    client.pop(keys, "train")
    assert len(_linked(telemetry, "pop train")) == MAX_LINKS == 32


@pytest.mark.parametrize("text", ["", "00-00-00-00", "x" * 55, 5, None, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_malformed_traceparent_is_no_link(text: Any, telemetry: Telemetry) -> None:
    meta = KVBatchMeta("train", None, ["a"], tags=[{TRACEPARENT: text}])
    client = telemetry.wrap(ScriptedClient(claim_meta=meta))
    assert client.claim_meta("train", "t", ["x"], 1) is meta
    assert telemetry.span("claim_meta train").links == ()
    assert client.snapshot()["observer_failures"] == 0


# Lag.


def test_lag_is_measured_against_the_published_version(telemetry: Telemetry, noop: NoOpDataPlaneClient) -> None:
    client = telemetry.wrap(noop)
    _put(client, ["a", "b"], 3)
    _put(client, ["c"], 5)
    client.publish_weight_version(7)
    client.claim_meta("train", "t", ["x"], 2)
    client.pop(["a", "b", "c"], "train")
    assert _lag(telemetry, "claim_meta") == (1, 4)
    assert _lag(telemetry, "pop") == (2, 4 + 2)


def test_without_a_published_version_the_newest_seen_is_the_reference(
    telemetry: Telemetry, noop: NoOpDataPlaneClient
) -> None:
    client = telemetry.wrap(noop)
    _put(client, ["a"], 3)
    _put(client, ["b"], 5)
    client.evict(["a"], "train")
    assert _lag(telemetry, "evict") == (1, 2)


def test_a_version_newer_than_the_trainers_is_no_negative_lag(telemetry: Telemetry, noop: NoOpDataPlaneClient) -> None:
    client = telemetry.wrap(noop)
    client.publish_weight_version(1)
    _put(client, ["a"], 3)
    client.pop(["a"], "train")
    assert _lag(telemetry, "pop") == (1, 0)


def test_reads_and_clears_have_a_lag_as_claims_have(telemetry: Telemetry, noop: NoOpDataPlaneClient) -> None:
    client = telemetry.wrap(noop)
    _put(client, ["a"], 3)
    client.publish_weight_version(5)
    client.get_samples(["a"], "train", ["x"])
    client.get_data(KVBatchMeta("train", None, ["a"], ["x"]))
    client.clear_samples(["a"], "train")
    assert [_lag(telemetry, name) for name in ("get_samples", "get_data", "clear_samples")] == [(1, 2)] * 3
    (put,) = _put_ids(telemetry)[:1]
    for name in ("get_samples", "get_data", "clear_samples"):
        assert _linked(telemetry, f"{name} train") == {put}, name


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF])
@pytest.mark.parametrize("departure", ["clear_samples", "pop", "evict"])
def test_the_lag_at_departure_counts_from_the_version_when_the_keys_were_last_seen(
    departure: str, sampler: Sampler
) -> None:
    telemetry = Telemetry(sampler)
    client = telemetry.wrap(ScriptedClient())
    client.put_samples(["a", "b"], "train", None, [{"weight_version": 3}] * 2)
    trainer_version.published = 5
    client.get_samples(["a", "b"], "train", ["x"])
    trainer_version.published = 6  # the step that was made of them
    getattr(client, departure)(["a", "b"], "train")
    assert _lag(telemetry, departure) == (1, 2)


def test_a_key_that_comes_back_with_another_version_was_not_seen_yet(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient())
    trainer_version.published = 5
    client.put_samples(["a"], "train", None, [{"weight_version": 5}])
    client.get_samples(["a"], "train", ["x"])
    client.clear_samples(["a"], "train")
    client.put_samples(["a"], "train", None, [{"weight_version": 6}])
    trainer_version.published = 8
    client.clear_samples(["a"], "train")
    assert _lag(telemetry, "clear_samples") == (2, 0 + 2)


def test_lags_are_measured_although_the_client_is_gone_when_a_reader_collects(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient())
    client.put_samples(["a"], "train", None, [{"weight_version": 5}])
    client.get_samples(["a", "b"], "train", ["x"])
    del client
    assert _lag(telemetry, "get_samples") == (1, 0)
    assert telemetry.value("dataplane.client.lineage.misses", operation="get_samples", partition="train") == 1


def test_an_unknown_key_is_a_counted_miss_and_causes_no_call(telemetry: Telemetry) -> None:
    inner = ScriptedClient()
    client = telemetry.wrap(inner)
    client.pop(["a", "b"], "train")
    assert telemetry.value("dataplane.client.lineage.misses", operation="pop", partition="train") == 2
    assert [name for name, *_ in inner.calls] == ["pop"]
    assert telemetry.points("dataplane.client.consumed.lag") == {}


def test_a_key_is_known_in_its_own_partition_only(telemetry: Telemetry, noop: NoOpDataPlaneClient) -> None:
    client = telemetry.wrap(noop)
    _put(client, ["a"], 3, "train")
    client.pop(["a"], "val")
    assert telemetry.value("dataplane.client.lineage.misses", operation="pop", partition="val") == 1


def test_who_adds_fields_or_lists_does_not_hide_what_was_known(telemetry: Telemetry, noop: NoOpDataPlaneClient) -> None:
    client = telemetry.wrap(noop)
    _put(client, ["a_g0"], 3)
    _put(client, ["a_g0"])  # another field without a version: same producer, same version
    client.list_metadata("train")  # the version without a span
    client.publish_weight_version(5)
    client.pop(["a_g0"], "train")
    assert _lag(telemetry, "pop") == (1, 2)
    assert _linked(telemetry, "pop train") == {_put_ids(telemetry)[0]}


@pytest.mark.parametrize(
    ("tags", "versions"),
    [
        ([{"weight_version": 3}] * 4, [3]),
        ([{"weight_version": 3}, {"weight_version": 4}], [3, 4]),
        ([{"weight_version": 3.0}], [3]),
        ([{"weight_version": "3"}], [3]),
        ([{"weight_version": "v3"}], [None]),
        ([{"min_global_steps": 3, "max_global_steps": 5}, {"is_prompt": True}], [3, None]),
        ([{"weight_version": True}], [None]),
        ([{"weight_version": 2**60}], [None]),
    ],
)
def test_versions_of_tags(tags: list[Any], versions: list[int | None]) -> None:
    assert versions_of(tags) == versions


@pytest.mark.parametrize(
    ("tags", "spans"),
    [([{}, {}], [0]), ([{"traceparent": 1}, {}], [1, 0]), ([{}, None, {"traceparent": 1}], [0, 0, 1])],
)
def test_contexts_of_tags(tags: list[Any], spans: list[int]) -> None:
    text = "00-" + "0" * 31 + "1-" + "0" * 15 + "1-01"
    given = [{TRACEPARENT: text} if tag and TRACEPARENT in tag else tag for tag in tags]
    assert [0 if context is None else context.span_id for context in contexts_of(given)] == spans


# What is kept.


def test_the_newest_keys_are_remembered_and_no_more_than_the_limit() -> None:
    lineage = Lineage(limit=100)
    for i in range(50):
        keys = tuple(f"k{i}_{j}" for j in range(10))
        lineage.wrote("train", keys, [{"weight_version": i}] * 10, None)
        if i % 7 == 0:
            lineage.find("train", keys)
    kept = sum(lineage.find("train", [f"k{i}_{j}"]) != [] for i in range(50) for j in range(10))
    assert 50 <= kept <= 110
    assert lineage.find("train", ["k49_0"]) != []
    assert lineage.find("train", ["k0_0"]) == []


def test_a_batch_larger_than_the_memory_keeps_its_end() -> None:
    lineage = Lineage(limit=100)
    keys = [f"k{i}" for i in range(1000)]
    lineage.listed("train", keys, list(range(1000)), [None], None)
    assert [origin.version for origin in lineage.find("train", ["k999"])] == [999]
    assert lineage.find("train", ["k0"]) == []


def test_keys_that_hold_data_are_not_kept(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient())
    client.put_samples([torch.zeros(2)], "train", None, [{"weight_version": 1}])
    memory = client._recorder.memory
    assert not memory.lineage._notes
    assert not memory.outstanding._notes


# Misses.


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF])
@pytest.mark.parametrize("operation", ["get_samples", "pop", "evict"])
def test_misses_do_not_depend_on_sampling(operation: str, sampler: Sampler, noop: NoOpDataPlaneClient) -> None:
    telemetry = Telemetry(sampler)
    _put(noop, ["a", "b"], 1)
    client = telemetry.wrap(noop)
    _put(client, ["c"], 1)
    args = (["a", "b", "c"], "train", ["x"]) if operation == "get_samples" else (["a", "b", "c"], "train")
    getattr(client, operation)(*args)
    assert telemetry.value("dataplane.client.lineage.misses", operation=operation, partition="train") == 2


def test_a_put_whose_tags_tell_nothing_is_missed() -> None:
    telemetry = Telemetry(ALWAYS_OFF)
    client = telemetry.wrap(ScriptedClient())
    client.put_samples(["a"], "train", None, [{}])
    client.pop(["a"], "train")
    assert telemetry.value("dataplane.client.lineage.misses", operation="pop", partition="train") == 1


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF])
def test_a_batch_that_tells_its_origin_is_read_without_a_miss(sampler: Sampler) -> None:
    telemetry = Telemetry(sampler)
    client = telemetry.wrap(ScriptedClient())
    client.get_data(KVBatchMeta("train", None, ["a"], tags=[{"weight_version": 1}]))
    client.get_data(KVBatchMeta("train", None, ["b"]))
    assert telemetry.value("dataplane.client.lineage.misses", operation="get_data", partition="train") == 1


@pytest.mark.parametrize("sampler", [ALWAYS_ON, ALWAYS_OFF])
@pytest.mark.parametrize(
    ("tags", "misses"),
    [
        (None, 2),
        ([{}, {}], 2),
        ([{"weight_version": 1}, {}], 1),
        ([{"weight_version": 1}, {"weight_version": 2}], None),
        ([{"weight_version": 1}] * 2, None),
    ],
)
def test_a_claim_misses_what_its_tags_do_not_tell(tags: Any, misses: int | None, sampler: Sampler) -> None:
    telemetry = Telemetry(sampler)
    client = telemetry.wrap(ScriptedClient(claim_meta=KVBatchMeta("train", None, ["a", "b"], tags=tags)))
    client.claim_meta("train", "t", ["x"], 2)
    assert telemetry.value("dataplane.client.lineage.misses", operation="claim_meta", partition="train") == misses


def test_a_claim_without_tags_finds_what_this_process_put(telemetry: Telemetry) -> None:
    client = telemetry.wrap(ScriptedClient(claim_meta=KVBatchMeta("train", None, ["a"], tags=[{}])))
    client.put_samples(["a"], "train", None, [{"weight_version": 1}])
    client.claim_meta("train", "t", ["x"], 1)
    assert telemetry.points("dataplane.client.lineage.misses") == {}
    assert _lag(telemetry, "claim_meta") == (1, 0)


def test_a_claim_larger_than_the_memory_misses_nothing_that_its_tags_tell(telemetry: Telemetry) -> None:
    keys = [f"k{i}" for i in range(20_000)]
    tags = [{"weight_version": i % 2} for i in range(20_000)]
    client = telemetry.wrap(ScriptedClient(claim_meta=KVBatchMeta("train", None, keys, tags=tags)))
    client.claim_meta("train", "t", ["x"], len(keys))
    assert telemetry.points("dataplane.client.lineage.misses") == {}
    assert _lag(telemetry, "claim_meta") == (2, 1)
