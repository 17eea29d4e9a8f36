"""The loop in one file: in memory, and its page shows what it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from examples.plain import loop

PAGE = (Path(loop.__file__).parent / "README.md").read_text()


@pytest.mark.full  # needs torch
def test_it_prints_what_its_page_shows(capsys: pytest.CaptureFixture[str]) -> None:
    command = re.search(r"^    python (examples/plain/loop\.py (--impl noop .*))$", PAGE, re.MULTILINE)
    assert command is not None
    loop.main([*command[2].split(), "--seconds-per-step", "0"])
    printed = capsys.readouterr().out.splitlines()
    shown = PAGE.partition("It prints:\n\n")[2].partition("\n\n")[0].splitlines()
    assert [line.strip() for line in shown] == printed
