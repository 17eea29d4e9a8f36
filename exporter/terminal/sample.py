"""How a configuration groups the rows of a sample file: ``tq-exporter check-config --sample``."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from dataplane.conventions import AUTO
from dataplane.files import read_regular_text
from dataplane.grouping import Grouper
from dataplane.groups import GROUP_STATES, DataPlaneGroupMeta, Listing, group_rows
from dataplane.visible import visible
from exporter.config import Config, ConfigError
from exporter.config.rules import tag_rules

__all__ = ["read_sample", "render_sample"]

_MAX_BYTES: Final = 64 * 2**20
_MAX_GROUPS: Final = 50
_MAX_KEYS: Final = 4
_FORM: Final = "write {KEY: TAG} or {PARTITION: {KEY: TAG}}, as kv_list returns it"

_Rows = Mapping[str, object]


def read_sample(file: Path) -> dict[str, _Rows]:
    """Return the rows in a JSON file by partition. Rows without one are of the partition ``""``.

    Raises:
        ConfigError: The file cannot be read or does not hold rows.
    """
    try:
        tree = json.loads(read_regular_text(file, _MAX_BYTES))
    except FileNotFoundError:
        raise ConfigError(str(file), "there is no such file", "give the path of a JSON file to --sample") from None
    except OSError as error:
        raise ConfigError(str(file), f"cannot be read ({error.strerror})", "give a readable file") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}:{error.lineno}", f"is not valid JSON ({error.msg})", _FORM) from None
    except (ValueError, RecursionError):  # not UTF-8, or a number of thousands of digits
        raise ConfigError(str(file), "is not valid JSON", _FORM) from None
    if not isinstance(tree, dict):
        raise ConfigError(str(file), f"has a {type(tree).__name__} at the top", _FORM)
    return tree if _has_partitions(tree) else {"": tree}


def _has_partitions(tree: _Rows) -> bool:
    """Return whether rows are one level down. A tag may have mappings as values, but hardly nothing else."""
    inner = [value for rows in tree.values() if isinstance(rows, dict) for value in rows.values()]
    return bool(inner) and all(isinstance(value, dict) for value in (*tree.values(), *inner))


def render_sample(config: Config, sample: Mapping[str, _Rows]) -> str:
    """Return, as text, the groups that the exporter would see in *sample*, and the rows that are in none."""
    grouper = Grouper(*tag_rules(config))
    lines: list[str] = []
    for partition, rows in sample.items():
        found = grouper.group_rows(partition, rows)
        title = f"partition {visible(partition)}" if partition else "rows of no partition"
        by_auto = ", chosen by auto" if grouper.rules(partition).convention == AUTO else ""
        lines += [f"{title}: {found.rows} rows, convention {found.convention}{by_auto}"]
        lines += (f"  {line}" for line in _partition(grouper, partition, rows, found))
    return "\n".join(lines) or "no rows"


def _partition(grouper: Grouper, partition: str, rows: _Rows, found: Listing) -> Iterator[str]:
    groups = [group for group in found if not group.bare]
    states = Counter(group.state for group in groups)
    yield f"{len(groups)} groups: " + (", ".join(f"{states[s]} {s}" for s in GROUP_STATES if states[s]) or "none")
    yield from _table(groups[:_MAX_GROUPS])
    if len(groups) > _MAX_GROUPS:
        yield f"… and {len(groups) - _MAX_GROUPS} more groups"
    if found.stated_version is not None:
        yield f"version that the rows say the trainer has finished: {found.stated_version}"
    grouped = {key for group in found for key in group.keys}
    malformed = [
        key
        for group in found
        if group.malformed_keys
        for key in group.keys
        if any(
            alone.malformed_keys
            for alone in group_rows(partition, {key: rows[key]}, convention=found.convention, registry=grouper.registry)
        )
    ]
    for what, keys in (
        ("ignored", [key for key in rows if key not in grouped]),
        ("bare, of no group yet", [key for group in found if group.bare for key in group.keys]),
        ("malformed", malformed),
    ):
        if keys:
            yield f"{what}: {_keys(keys)}"


def _table(groups: Sequence[DataPlaneGroupMeta]) -> Iterator[str]:
    """Yield the lines of a table with a line per group, none without groups."""
    table = [("group", "state", "version", "expected", "keys")] if groups else []
    for group in groups:
        version, expected = (
            "?" if value is None else str(value) for value in (group.weight_version, group.expected_num_keys)
        )
        table.append((visible(group.group_id), group.state, version, expected, _keys(group.keys)))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _keys(keys: Sequence[str]) -> str:
    more = f", … ({len(keys)} keys)" if len(keys) > _MAX_KEYS else ""
    return ", ".join(map(visible, keys[:_MAX_KEYS])) + more
