"""The site's navigation. `make check` builds the site, which finds broken links."""

from __future__ import annotations

import re

import pytest

from tests.docs.test_code import DOCS

NAVIGATION = (DOCS.parent / "mkdocs.yml").read_text().partition("\nnav:\n")[2].partition("\nhooks:")[0]


def test_every_page_but_the_runbooks_is_in_the_navigation() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md") if path.parent.name != "runbooks"}
    examples = {path.relative_to(DOCS.parent).as_posix() for path in DOCS.parent.glob("examples/*/README.md")}
    assert pages | examples <= set(re.findall(r"\S+\.md", NAVIGATION))


@pytest.mark.parametrize("example", sorted(path.name for path in (DOCS.parent / "examples").iterdir() if path.is_dir()))
def test_every_example_shows_what_to_expect(example: str) -> None:
    page = (DOCS.parent / "examples" / example / "README.md").read_text()
    assert re.search(r"^    \S", page, re.MULTILINE), "no command"
