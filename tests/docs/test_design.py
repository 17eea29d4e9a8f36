"""The table of packages in docs/design.md names what the code imports, and every package of the code."""

from __future__ import annotations

import re

import pytest

from tests.docs.test_code import DOCS

_ALL_BELOW = "all below"


def _table() -> list[tuple[list[str], set[str] | None]]:
    """Return the packages of each row, and what they import, None for all rows below."""
    rows = []
    for line in (DOCS / "design.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        paths = re.findall(r"`([^`]+)`", cells[0])
        if len(cells) != 3 or not paths or not paths[0].endswith(("/", ".py")):
            continue
        root = paths[0].split("/")[0]
        names = [path.removeprefix(f"{root}/").removesuffix(".py").removesuffix("/") for path in paths]
        packages = [f"{root}.{name}" for name in names] if names != [""] else [root]
        imports = [f"{root}.{name}" if "." not in name else name for name in re.findall(r"`([^`]+)`", cells[2])]
        rows.append((packages, None if cells[2] == _ALL_BELOW else set(imports)))
    return rows


@pytest.mark.full  # needs import-linter's graph
def test_the_table_names_what_is_imported() -> None:
    import grimp

    graph = grimp.build_graph("dataplane", "exporter", "dashboards")
    imports: dict[str, set[str]] = {}
    for module in graph.modules:
        name = _package(module)
        imports.setdefault(name, set()).update(map(_package, graph.find_modules_directly_imported_by(module)))
    table = _table()
    assert {package for packages, _ in table for package in packages} == imports.keys() - {"dataplane", "exporter"}
    for index, (packages, said) in enumerate(table):
        found = set().union(*(imports[package] for package in packages)).difference(packages)
        own = {name for name in found if name.split(".")[0] == packages[0].split(".")[0] or packages == ["dashboards"]}
        if said is None:
            assert own <= {package for below, _ in table[index + 1 :] for package in below}
        else:
            assert own == said, packages
    exporters = {name for name in imports if name.startswith("exporter")}
    for package in imports.keys() - exporters - {"dashboards"}:
        assert not imports[package] & exporters, package


def _package(module: str) -> str:
    return module.split(".", maxsplit=1)[0] if module.startswith("dashboards") else ".".join(module.split(".")[:2])


def test_nothing_is_named_twice() -> None:
    names = [package for packages, _ in _table() for package in packages]
    assert len(names) == len(set(names)) > 40
