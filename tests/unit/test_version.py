"""What the package says of itself."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from exporter.version import Build, this_build


@pytest.mark.parametrize(
    ("node", "commit"),
    [
        ("g0123456789abcdef0123456789abcdef01234567", "0123456789ab"),  # from git, in full
        ("g0123456789ab", "0123456789ab"),  # from the Dockerfile's argument
        ("g", None),  # the argument was not given
        (None, None),  # built from a folder without a repository
    ],
)
def test_the_commit_is_what_the_build_wrote(
    monkeypatch: pytest.MonkeyPatch, node: str | None, commit: str | None
) -> None:
    monkeypatch.setitem(sys.modules, "exporter._commit", SimpleNamespace(COMMIT=node))
    assert this_build().commit == commit


def test_a_working_tree_has_no_commit() -> None:
    """Not even the one at which it was installed: the sources have moved on since."""
    build = this_build()
    assert build.commit is None
    assert build.version[0].isdigit()


def test_it_reads_as_one_line() -> None:
    assert str(Build("0.1.0", "0123456789ab", "3.11.7")) == "0.1.0 (commit 0123456789ab, Python 3.11.7)"
    assert str(Build("0.1.0", None, "3.11.7")) == "0.1.0 (Python 3.11.7)"
