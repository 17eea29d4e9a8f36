"""The code in the pages runs, and what they quote from the repository is there word for word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import dataplane
from dataplane import conventions
from dataplane.adapters.noop import NoOpDataPlaneClient

DOCS = Path(__file__).parents[2] / "docs"
_BLOCK = re.compile(r'^```python(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```', re.MULTILINE | re.DOTALL)
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in (DOCS / "contribute").glob("*.md"))


def blocks(page: str) -> list[tuple[str | None, str]]:
    """Return the Python of a page: the file that it is quoted from, if any, and the code."""
    return [(match["title"], match["code"]) for match in _BLOCK.finditer((DOCS / page).read_text())]


@pytest.mark.parametrize("page", PAGES)
def test_quotations_are_in_the_code(page: str) -> None:
    for title, code in blocks(page):
        if title is not None:
            assert code in (DOCS.parent / title).read_text(), f"{page}: {title} has changed"


def run(page: str, scope: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the blocks of a page that are no quotations, one after another in the same scope."""
    scope = {} if scope is None else scope
    for title, code in blocks(page):
        if title is None:
            exec(compile(code, page, "exec"), scope)
    return scope


@pytest.mark.full  # needs torch
def test_the_client(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def build(cfg: Mapping[str, Any]) -> NoOpDataPlaneClient:
        return NoOpDataPlaneClient()

    class Reader(NoOpDataPlaneClient):
        def __init__(self, address: str) -> None:
            super().__init__()

    monkeypatch.setattr(dataplane, "build_data_plane_client", build)
    monkeypatch.setattr("dataplane.adapters.wire.WireMetadataReader", Reader)
    client = run("client.md")["client"]
    assert client.list_metadata("train") == []
    assert capsys.readouterr().out.endswith(" []\n")


def test_testing() -> None:
    scope = run("testing.md")
    scope["test_stale_groups_are_evicted"]()
    flaky = scope["Flaky"]()
    for number in range(2):
        flaky.put_samples([str(number)], "train", tags=[{}])
    with pytest.raises(dataplane.DataPlaneUnavailable):
        flaky.put_samples(["2"], "train", tags=[{}])


def test_a_convention(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        run("contribute/convention.md")
    finally:
        conventions.unregister("episodes")
    printed = capsys.readouterr().out
    shown = re.search(r"It prints:\n\n((?:    .*\n)+)", (DOCS / "contribute/convention.md").read_text())
    assert shown is not None
    assert printed == re.sub("^    ", "", shown[1], flags=re.MULTILINE)
