"""Writes the hand-made part of the corpus: one input for every shape that the decoders distinguish.

python -m tests.fuzz.seeds
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.fuzz.targets import CORPUS, PARTITION
from tests.support.fake_router import reply

_encode = msgspec.msgpack.Encoder().encode

RECOVERY = {
    "group_id": "g",
    "weight_version": 3,
    "committed": True,
    "expected_num_keys": 2,
    "created_at": 1.7e9,
    "size_bytes": 10,
}
ROWS: dict[str, dict[str, Any]] = {
    "recovery": {f"g_{row}": RECOVERY for row in range(2)},
    "nemo-rl": {f"u{row // 2}_g{row % 2}": {"weight_version": row} for row in range(4)} | {"ghost_g0": {}},
    "verl": {
        "u": {"is_prompt": True, "status": "finished", "global_steps": 4},
        "u_0_0": {"status": "running", "min_global_steps": 3, "max_global_steps": 4},
        "u_0_1": {"status": "failure", "min_global_steps": None, "num_keys": 2},
    },
    "loose": {"a": {"weight_version": "3", "committed": "yes", "created_at": float("nan"), "group_id": 1.5}},
    "odd": {"a": None, "b": [1], "c": {1: 2}, "d": {"weight_version": [[], {}]}, "__schema__:x": {}},
    "extension": {"a": {"weight_version": msgspec.msgpack.Ext(1, pickle.dumps(3)), "size_bytes": -1}},
    "huge numbers": {"a": {"weight_version": 2**64 - 1, "created_at": 1e308, "expected_num_keys": -(2**63)}},
    "none": {},
}


def seeds() -> Iterator[tuple[str, str, bytes]]:
    """Yield target, name and bytes."""
    for name, rows in ROWS.items():
        found = {"partition_info": {PARTITION: rows}, "message": "success"}
        yield "listing", name, reply("KV_LIST_RESPONSE", found)[0]
        yield "grouping", name, _encode(rows)
    for name, rows in ROWS.items():
        yield "incremental", name, _spliced(rows)
    yield "listing", "unknown partition", reply("KV_LIST_RESPONSE", {"partition_info": {}, "message": "no"})[0]
    yield "listing", "other partition", reply("KV_LIST_RESPONSE", {"partition_info": {"q": {}}})[0]
    yield "listing", "pickle", b"\xc1\xfe\xed"
    yield "listing", "endless map", b"\xdf\xff\xff\xff\xff"
    yield "listing", "nested", b"\x91" * 2000
    yield "listing", "error", reply("REQUEST_ERROR", {"message": "boom"})[0]
    yield "grouping", "nested", b"\x91" * 500 + b"\xc0"
    yield "partitions", "names", reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": ["train", 0, None, "val"]})[0]
    yield "partitions", "no list", reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": "p"})[0]
    yield "partitions", "error", reply("LIST_PARTITIONS_ERROR", {"message": 3})[0]
    yield "metrics", "figures", reply("METRICS_RESPONSE", {"active_keys": 3, "capacity": 9, "process_rss_bytes": 1})[0]
    yield "metrics", "unlimited", reply("METRICS_RESPONSE", {"active_keys": 3, "capacity": None, "op_stats": {}})[0]
    yield "metrics", "no figures", reply("METRICS_RESPONSE", {"active_keys": "3"})[0]


def _spliced(rows: dict[str, Any]) -> bytes:
    """Return some rows, and the same without the last, behind which the first is once more."""
    encoded = [_encode(key) + _encode(tag) for key, tag in rows.items()] * 8
    first = b"".join(encoded)
    last = len(first) - len(encoded[-1] if encoded else b"")
    again = b"\x01\x00\x00" + (len(first) - last).to_bytes(2, "big")
    head = b"\x00" + len(first).to_bytes(2, "big") + bytes([len(encoded)])
    return head + first + bytes([len(encoded)]) + b"\x01\x00\x00" + last.to_bytes(2, "big") + again


if __name__ == "__main__":
    for target, name, data in seeds():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"seed-{name.replace(' ', '-')}").write_bytes(data)
