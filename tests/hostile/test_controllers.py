"""Controllers and storage units that lie: the exporter's memory and its scrapes stay small, and no figure is absurd."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from dataplane.tags import to_seconds
from exporter.polling.readers import MAX_UNITS
from tests.support.exporter_process import AS_INSTALLED, ExporterProcess
from tests.support.fake_router import CONTROLLER_ID, FakeRouter, reply
from tests.support.waiting import wait_until

MAX_MEMORY_MB = 150
MAX_SCRAPE_BYTES = 2_000_000

_EMPTY_LISTS = msgspec.Raw(b"\xdd" + (5_000_000).to_bytes(4, "big") + b"\x90" * 5_000_000)
_OPERATIONS = [*("PUT_DATA", "GET_DATA", "CLEAR_DATA", "GET_METRICS", "SAVE_STORAGE_CHECKPOINT"), "LOAD", "x"]
_SIX_TAGS = {"committed": True, "created_at": 1e9, "size_bytes": 2**40, "expected_num_keys": 1, "status": "x" * 20}

Rows = Any
Lie = Callable[[str], Rows]


def _tiny(number: int) -> Lie:
    """The smallest rows that there are, as their bytes."""
    keys = (bytes([0xA3, *key]) + b"\x80" for key in itertools.product(range(32, 127), repeat=3))
    packed = b"".join(itertools.islice(keys, number))
    return lambda partition: msgspec.Raw(b"\xdf" + number.to_bytes(4, "big") + packed)


_fresh = itertools.count()

LIES: dict[str, Lie] = {
    "groups of one, with six tags": lambda p: {
        f"{n:x}": {"group_id": f"g{n}", "weight_version": n, **_SIX_TAGS} for n in range(40_000)
    },
    "ever new groups": lambda p: {f"{next(_fresh):x}": {"weight_version": n} for n in range(40_000)},
    "too many groups": lambda p: {f"{n:x}": {"weight_version": n, "group_id": str(n)} for n in range(120_000)},
    "one group": lambda p: {f"g_g{n}": {"weight_version": n} for n in range(60_000)},
    "as many rows as bytes": _tiny(800_000),
    "a long key": lambda p: {"x" * 15_000_000: {"weight_version": 1}},
    "a long group id": lambda p: {"x": {"group_id": "x" * 15_000_000}},
    "a long reply": lambda p: {"x": {"other": "x" * 40_000_000}},
    "a tag that grows": lambda p: {"x": {"weight_version": _EMPTY_LISTS}},
    "tags that grow": lambda p: {
        f"x{n}": {"weight_version": msgspec.Raw(b"\xdc\xff\x00" + b"\x90" * 0xFF00)} for n in range(200)
    },
    "a tag that is deep": lambda p: {"x": {"weight_version": msgspec.Raw(b"\x91" * 100_000 + b"\xc0")}},
    "impossible figures": lambda p: {
        f"k{n}": {"weight_version": number, "size_bytes": number, "created_at": number, "expected_num_keys": number}
        for n, number in enumerate(
            [-1, -(2**63), 2**63, 2**64 - 1, 1e308, -1e308, float("inf"), float("nan"), "9" * 999]
        )
    },
    "times of no calendar": lambda p: {
        f"k{n}": {"weight_version": 1, "committed": False, "created_at": at}
        for n, at in enumerate([-1.0, 9e15, -9e15, 253_402_300_800, 1.7e12, 0])
    },
}


class Liar(NamedTuple):
    """A real exporter, and the controller that lies to it."""

    router: FakeRouter
    exporter: ExporterProcess

    def tell(self, names: Sequence[Any], rows: Lie, sender: str = CONTROLLER_ID) -> None:
        """Answer with *rows* for each partition until the last of them was asked for, or refused to be asked."""
        few = len(names) < 10 and all(isinstance(name, str) for name in names)
        ready = {name: _listing(name, rows, sender) for name in names} if few else {}

        def answer(request: dict[str, Any]) -> list[bytes]:
            if request["request_type"] == "GET_LIST_PARTITIONS":
                return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": list(names)}, sender)
            if request["request_type"] == "GET_METRICS":
                return _unit_metrics(15_000)
            name = request["body"]["partition_id"]
            return ready.get(name) or _listing(name, rows, sender)

        self.router.answer = answer
        self.rounds(1)

    def rounds(self, number: int) -> None:
        """Wait until that many further rounds of the metadata source have begun and ended."""
        before = self._polls()
        wait_until(lambda: self._polls() >= before + number + 1, "further polls of the lying controller", 120.0)

    def _polls(self) -> float:
        seen = self.exporter.scrape()
        assert len(seen.text.encode()) <= MAX_SCRAPE_BYTES
        return sum(seen.by("tq_exporter_polls_total", "outcome", source="metadata").values())

    def peak_mb(self) -> float:
        """Return the largest memory that the exporter has ever had."""
        status = Path(f"/proc/{self.exporter.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def _listing(name: str, rows: Lie, sender: str) -> list[bytes]:
    return reply("KV_LIST_RESPONSE", {"partition_info": {name: rows(name)}, "message": ""}, sender)


def _unit_metrics(size: int) -> list[bytes]:
    """The metrics of a storage unit with many operations that do not exist, and figures that cannot be."""
    body = {
        "active_keys": 2**53,
        "capacity": -1,
        "process_rss_bytes": 2**63,
        "arrivals_by_op": {f"{n:x}": 1 for n in range(size // 6)},
    }
    return reply("METRICS_RESPONSE", body)


@pytest.fixture(scope="module")
def liar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Liar]:
    record = tmp_path_factory.mktemp("liar") / "tq.json"
    env = {  # no listing is held back, so that every lie is heard
        **AS_INSTALLED,
        "TQ_EXPORTER_METADATA_MAX_CONTROLLER_SHARE": "1",
        "TQ_EXPORTER_METADATA_MAX_CONTROLLER_STALL": "1h",
        "TQ_EXPORTER_STORAGE_INTERVAL": "500ms",
    }
    with FakeRouter(lambda request: reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": []})) as router:
        units = [{"index": n, "id": CONTROLLER_ID, "address": router.address} for n in range(20)]
        record.write_text(json.dumps({"address": router.address, "storage_units": units}))
        flags = ("--discovery-file", str(record), "--metadata-interval", "200ms")
        with ExporterProcess(*flags, env=env, forks=False) as exporter:  # its memory is measured
            yield Liar(router, exporter)


def _check(liar: Liar, *, harmless: bool = True) -> None:
    assert liar.peak_mb() <= MAX_MEMORY_MB
    assert "Traceback" not in liar.exporter.log
    assert len(liar.exporter.get("/api/v1/snapshot")[1]) <= MAX_SCRAPE_BYTES
    if harmless:
        for name, labels, value in _figures(liar.exporter.scrape()):
            assert value >= 0 or "ping" in name, (name, labels, value)


def _figures(seen: Any) -> Iterator[tuple[str, Any, float]]:
    for name in {name for name, _ in seen.series() if name.startswith("dataplane_")}:
        for labels, value in seen.samples(name):
            yield name, labels, value


@pytest.mark.parametrize("lie", LIES)
def test_no_listing_takes_the_memory_or_the_scrape_beyond_its_bound(liar: Liar, lie: str) -> None:
    liar.tell([f"{lie} {time.monotonic()}"], LIES[lie])
    _check(liar, harmless=lie != "impossible figures")


@pytest.mark.parametrize(
    "names",
    [
        [f"{n:x}" for n in range(17_000)],
        [f"{n:x}" for n in range(150_000)],
        [
            chr(0x1F600 + n % 80) * 125 + f"{n:03}"[::-1].translate({48 + d: 97 + d for d in range(10)})
            for n in range(130)
        ],
        ['"' * 125 + f"{n:03}".translate({48 + d: 97 + d for d in range(10)}) for n in range(130)],
        ["x" * 900_000, "y"],
        [[]] * 200_000,
        [None, 1, {"a": 1}, ["b"], "good"],
        [[[[[[]]]]]] * 40_000,
    ],
    ids=["many", "too many", "wide characters", "escaped characters", "long", "lists", "of every type", "deep"],
)
def test_no_names_take_the_memory_or_the_scrape_beyond_its_bound(liar: Liar, names: list[Any]) -> None:
    versions = {f"k{n}": {"weight_version": 2**53 - n, "created_at": 1e9 + n / 7} for n in range(40)}
    liar.tell(names, lambda p: versions)
    _check(liar)


def test_ever_new_ids_and_long_ids_of_the_controller_are_refused(liar: Liar) -> None:
    liar.tell(["p"], lambda p: {"k": {"weight_version": 1}}, sender="x" * 5_000_000)
    for number in range(5):
        liar.tell(["p"], lambda p: {"k": {"weight_version": 1}}, sender=f"{number}" * 200)
    _check(liar)


def test_random_replies_keep_the_bounds(liar: Liar) -> None:
    rng = random.Random(20)
    for _ in range(4):
        liar.tell([_random(rng, 2) for _ in range(20)] + ["p", "q"], lambda p: _random(rng, 4))
    _check(liar, harmless=False)


def _random(rng: random.Random, depth: int) -> Any:
    kind = rng.randrange(9 if depth else 7)
    if kind < 7:
        scalars = (None, rng.random() < 0.5, rng.randrange(-(2**63), 2**64), rng.choice([1e308, -0.0, float("nan")]))
        return [
            *scalars,
            "x" * rng.choice([0, 1, 70, 300_000]),
            b"\0" * 9,
            msgspec.msgpack.Ext(rng.randrange(9), b"x"),
        ][kind]
    size = rng.choice([0, 1, 5, 60])
    if kind == 7:
        return [_random(rng, depth - 1) for _ in range(size)]
    names = ["weight_version", "group_id", "committed", "created_at", "size_bytes", "status"]
    return {rng.choice([*names, f"{rng.randrange(99)}_g1"]): _random(rng, depth - 1) for _ in range(size)}


def test_a_scrape_is_small_when_everything_is_at_its_largest(tmp_path: Path) -> None:
    def answer(request: dict[str, Any]) -> list[bytes]:
        if request["request_type"] == "GET_METRICS":
            stats = {name: {"request_count": 2**53, "latency_avg": 2.0**52} for name in _OPERATIONS}
            ssd = dict.fromkeys(("ssd_active_bytes", "ssd_active_values", "ssd_fallback_values_total"), 2**53)
            queue = {"samples": 1, "peak_utilization": 0.123456789, "sk_drops_delta": 2**53}
            figures = {"active_keys": 2**53, "capacity": 2**53, "process_rss_bytes": 2**53, "ssd_offload_enabled": 1}
            arrived = dict.fromkeys(_OPERATIONS, 2**53)
            body = {**figures, **ssd, "op_stats": stats, "arrivals_by_op": arrived, "accept_queue": queue}
            return reply("METRICS_RESPONSE", body, "u" * 256)
        if request["request_type"] == "GET_LIST_PARTITIONS":
            names = ["p" * 60 + f"{n:03}".translate({48 + d: 97 + d for d in range(10)}) for n in range(130)]
            return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": names}, "c" * 256)
        name = request["body"]["partition_id"]
        tags = {"committed": True, "created_at": 1e9 + 1 / 7, "size_bytes": 2**52}
        rows = {f"k{n}": {"weight_version": 2**53 - n, "expected_num_keys": 1 + n % 3, **tags} for n in range(40)}
        return reply("KV_LIST_RESPONSE", {"partition_info": {name: rows}, "message": ""}, "c" * 256)

    record = tmp_path / "tq.json"
    with FakeRouter(answer) as router:
        units = [{"index": 99_999 - n, "id": "u" * 256, "address": router.address} for n in range(MAX_UNITS + 44)]
        texts = dict.fromkeys(("run", "backend"), "😀" * 256)
        record.write_text(json.dumps({"address": router.address, "storage_units": units, **texts}))
        with ExporterProcess("--discovery-file", str(record), "--metadata-interval", "500ms") as exporter:
            seen = exporter.wait_for(
                lambda seen: (
                    len(seen.samples("dataplane_storage_keys")) == MAX_UNITS
                    and len(seen.samples("dataplane_partition_keys")) == 101
                ),
                "all units and partitions",
            )
            assert 1_000_000 < len(seen.text.encode()) <= MAX_SCRAPE_BYTES
            source = next(one for one in exporter.snapshot()["sources"] if one["source"] == "storage")
            assert source["detail"] == "44 storage units are left out"


def test_figures_of_a_unit_that_cannot_be_are_unknown(tmp_path: Path) -> None:
    from exporter import app
    from exporter.config import load_config

    figures = [
        {"active_keys": 3, "capacity": -1, "process_rss_bytes": -7},
        {"active_keys": 3, "capacity": 2**63, "process_rss_bytes": 2**60},
        {"active_keys": -5, "capacity": 10},
        {"active_keys": 2**60},
    ]
    order = iter(figures)

    def answer(request: dict[str, Any]) -> list[bytes]:
        if request["request_type"] == "GET_METRICS":
            return reply("METRICS_RESPONSE", next(order))
        return reply("LIST_PARTITIONS_RESPONSE", {"partition_ids": []})

    seen = []
    for _ in figures:
        with FakeRouter(answer) as router:
            unit = {"index": 0, "id": CONTROLLER_ID, "address": router.address}
            (tmp_path / "tq.json").write_text(json.dumps({"address": router.address, "storage_units": [unit]}))
            found = app.poll_once(load_config({"--discovery-file": str(tmp_path / "tq.json")}, {}))
        seen += [(one.keys, one.capacity, one.memory_bytes, one.error_type) for one in found.storage]
    assert seen[:2] == [(3, None, None, None)] * 2
    assert [error for *_, error in seen[2:]] == ["DataPlaneReadError"] * 2


@pytest.mark.parametrize("value", [-1, -0.5, 9e15, 253_402_300_800, 1.7e12, 2**70, float("inf"), float("nan")])
def test_a_time_of_no_calendar_is_malformed(value: float) -> None:
    assert to_seconds(value) is None
