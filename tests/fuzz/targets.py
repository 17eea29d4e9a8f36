"""The fuzz targets: decode bytes that a controller might send into groups. A target fails by raising.

For any bytes, the outcome must be groups or a ``DataPlaneReadError``. Hypothesis (``test_fuzz.py``) and atheris
(``python -m tests.fuzz.fuzz``) both drive these functions; ``corpus/<target>/`` holds bytes worth keeping.
"""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

from dataplane import conventions
from dataplane.adapters.wire.protocol import decode_metrics, decode_partitions
from dataplane.adapters.wire.rows import decode_listing
from dataplane.conventions import ConfiguredConvention, ConventionTags, GroupFrom, TagNamed, TagWith
from dataplane.errors import DataPlaneReadError
from dataplane.grouping import TagRules
from dataplane.groups import GROUP_STATES, Listing, group_listed, group_rows
from dataplane.tags import Tag
from tests.support.listings import raw_listing
from tests.support.offline_reader import OfflineReader

__all__ = ["CORPUS", "PARTITION", "TARGETS", "bounded", "poisoned_pickle"]

CORPUS: Final = Path(__file__).with_name("corpus")
PARTITION: Final = "p"
MAX_ROWS: Final = 1000
# The conventions that ship, and one that is configured to read their tags in its own way.
OWN: Final = ConventionTags(
    group=GroupFrom(tag="is_prompt", key=r"(?P<group>.+)_\w\d*"),
    weight_version=TagNamed("global_steps"),
    committed=TagWith("status", ("finished", 1, True)),
    failed=TagWith("committed", (False,)),
)
REGISTRY_MORE: Final = (ConfiguredConvention("own", OWN),)
REGISTRY: Final = conventions.registry(REGISTRY_MORE)


class Unpickled(BaseException):
    """Bytes from the network reached a pickle function."""


@contextmanager
def poisoned_pickle() -> Iterator[None]:
    """Make every pickle function raise during the block."""

    def refuse(*_: object, **__: object) -> Any:
        raise Unpickled

    names = ("load", "loads", "Unpickler", "_load", "_loads", "_Unpickler")
    replaced: dict[str, Any] = dict.fromkeys(names, refuse)
    with mock.patch.multiple(pickle, **replaced):
        yield


@contextmanager
def bounded(data: bytes) -> Iterator[None]:
    """Fail when the block takes memory out of proportion to *data*."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 2**20 + 100 * len(data), f"{peak} bytes for {len(data)}"


def listing(data: bytes) -> None:
    """A listing, grouped by every convention."""
    rows = _read(lambda frame: decode_listing(frame, PARTITION, MAX_ROWS, REGISTRY.schema).body, data)
    if rows is None:
        return
    assert len(rows.keys) == len(rows.tags) <= MAX_ROWS
    assert not rows.ends or (len(rows.ends) == len(rows.keys) + 1 and 0 <= rows.ends[-1] < len(data))
    by_key = dict(zip(rows.keys, rows.tags, strict=True))
    for convention in REGISTRY.names():
        found = group_listed(PARTITION, list(by_key), list(by_key.values()), convention=convention, registry=REGISTRY)
        _check(found.listing, by_key)


def incremental(data: bytes) -> None:
    """Two listings in turn. The second is spliced from the first, so that it is made of rows that match and do not.

    A reader that keeps the first must find in the second what a reader that keeps nothing does.
    """
    convention = REGISTRY.names()[data[0] % len(REGISTRY.names())] if data else "auto"
    size = int.from_bytes(data[1:3], "big")
    first, rest = data[4 : 4 + size], data[4 + size :]
    second, splices = b"", rest[1:]
    while splices:
        if splices[0] % 2:
            start, count = int.from_bytes(splices[1:3], "big"), int.from_bytes(splices[3:5], "big")
            second, splices = second + first[start : start + count], splices[5:]
        else:
            second, splices = second + splices[1 : 1 + splices[0] // 2], splices[1 + splices[0] // 2 :]
    readers = [
        OfflineReader(default_rules=TagRules(convention), conventions=REGISTRY_MORE, incremental=kept)
        for kept in (True, False)
    ]
    for count, rows in zip(data[3:4] + rest[:1], (first, second), strict=False):
        found, expected = (_listed(reader, raw_listing(count, rows)) for reader in readers)
        assert found == expected


def _listed(reader: OfflineReader, frame: bytes) -> tuple[object, ...] | None:
    try:
        found = reader.read(frame, PARTITION)
    except DataPlaneReadError:
        return None
    return repr(list(found)), found.rows, found.convention, found.stated_version


def grouping(data: bytes) -> None:
    """Rows as the public client passes them to grouping: their tags are plain Python values."""
    import msgspec

    try:
        rows = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return
    if not isinstance(rows, dict):
        rows = {"a": rows, "b_g0": {"weight_version": rows}, "c": {"group_id": rows, "committed": rows, "status": rows}}
    rows = {key: tag for key, tag in rows.items() if isinstance(key, str)}
    for convention in REGISTRY.names():
        for group_size in (None, 2):
            found = group_rows(PARTITION, rows, convention=convention, group_size=group_size, registry=REGISTRY)
            _check(found, rows)


def partitions(data: bytes) -> None:
    """A list of partitions."""
    names = _read(lambda frame: decode_partitions(frame).body, data)
    assert names is None or all(type(name) is str for name in names)


def metrics(data: bytes) -> None:
    """A storage unit's figures."""
    found = _read(lambda frame: decode_metrics(frame).body, data)
    assert found is None or type(found.active_keys) is int


TARGETS: Final[Mapping[str, Callable[[bytes], None]]] = {
    target.__name__: target for target in (listing, incremental, grouping, partitions, metrics)
}
"""The targets by name. The name is also that of their folder in the corpus."""


def _read(decode: Callable[[memoryview], Any], data: bytes) -> Any:
    try:
        return decode(memoryview(data))
    except DataPlaneReadError as error:
        said = str(error)
    assert len(said) < 2000
    return None


def _check(groups: Listing, rows: Mapping[str, Tag] | Mapping[str, object]) -> None:
    keys = sorted(key for group in groups for key in group.keys)
    own = sorted(key for key in rows if not key.startswith("__"))
    assert keys == own if groups.convention != "verl" else set(keys) <= set(own)  # verl has rows that are no samples
    for group in groups:
        assert group.keys == sorted(group.keys)
        assert group.state in GROUP_STATES
        assert 0 <= group.malformed_keys <= len(group.keys)
        assert group.weight_version is None or abs(group.weight_version) <= 2**53
        assert group.created_at is None or abs(group.created_at) <= 2**53
        assert group.size_bytes is None or group.size_bytes >= 0
