"""The attack table in docs/security.md: each row names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

_HERE = Path(__file__).parent
_TABLE = (_HERE.parents[1] / "docs" / "security.md").read_text().partition("## Attacks")[2]


def _tests(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def test_each_row_of_the_attack_table_is_a_test() -> None:
    rows = [line for line in _TABLE.splitlines() if line.startswith("| ") and not line.startswith("| attack")]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", row)
        assert named, row
        for file, test in named:
            assert test in _tests(_HERE / file), f"{file} has no {test}"
