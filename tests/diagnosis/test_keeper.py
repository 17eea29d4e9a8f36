"""The bundles that SIGUSR1 asks for: where they are written, how many stay, and what goes wrong."""

from __future__ import annotations

import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from exporter.config import Config
from exporter.config.model import Diagnose
from exporter.diagnosis.evidence import Evidence
from exporter.diagnosis.keeper import KEPT, Keeper, private_folder
from tests.support.snapshots import TAKEN, rich_snapshot
from tests.support.waiting import wait_until


def evidence() -> Evidence:
    return Evidence("here", TAKEN, rich_snapshot())


class Logged:
    """A keeper and what it logs."""

    def __init__(self, folder: Path | None) -> None:
        self.lines: list[str] = []
        self.keeper = Keeper(Config(diagnose=Diagnose(folder)), self.lines.append)

    def write(self) -> str:
        before = len(self.lines)
        self.keeper.start(evidence)
        wait_until(lambda: len(self.lines) > before, "a line")
        wait_until(lambda: not self.keeper._busy.locked(), "the end of the write")
        return self.lines[-1]


def test_the_last_few_stay(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    logged = Logged(folder)
    (folder.parent).mkdir()
    folder.mkdir()
    for number in range(KEPT + 2):
        (folder / f"tq-diagnosis-20200101-0000{number:02d}-abcdef.zip").touch()
    (folder / "mine.zip").touch()
    line = logged.write()
    assert line.startswith(f"wrote a diagnosis to {folder}/tq-diagnosis-")
    left = sorted(one.name for one in folder.iterdir())
    assert (len(left), left[0]) == (KEPT + 1, "mine.zip")
    newest = folder / left[-1]
    assert newest.name in line
    assert stat.S_IMODE(newest.stat().st_mode) == 0o600


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert Logged(tmp_path / "file").write().startswith("the diagnosis cannot be written: ")


def test_the_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = private_folder()
    assert (folder.parent, stat.S_IMODE(folder.stat().st_mode)) == (tmp_path, 0o700)
    assert private_folder() == folder
    assert f"{folder}/" in Logged(None).write()
    folder.chmod(0o755)
    with pytest.raises(OSError, match="not a folder of this user alone"):
        private_folder()


def test_a_link_that_somebody_else_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / f"tq-exporter-{os.geteuid()}").symlink_to(tmp_path / "elsewhere")
    assert Logged(None).write().startswith("the diagnosis cannot be written: ")


def test_one_at_a_time(tmp_path: Path) -> None:
    logged = Logged(tmp_path)
    go_on = threading.Event()

    def slow() -> Evidence:
        go_on.wait(30)
        return evidence()

    logged.keeper.start(slow)
    logged.keeper.start(evidence)
    assert logged.lines == ["no new diagnosis: the last one is still being written"]
    go_on.set()
    wait_until(lambda: len(logged.lines) == 2, "the first one")


def test_a_defect_is_one_line(tmp_path: Path) -> None:
    logged = Logged(tmp_path)

    def broken() -> Evidence:
        raise ZeroDivisionError("a bug")

    logged.keeper.start(broken)
    wait_until(lambda: bool(logged.lines), "a line")
    assert logged.lines == ["the diagnosis failed with an unexpected error: ZeroDivisionError: a bug"]
