"""The file: what comes back, how old rows are thinned, the bound of its size, and what is refused."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from exporter.model.recording import RecordingError
from exporter.model.samples import COLUMNS, PLANE_COLUMNS, Slots
from exporter.recording.archive import Archive
from exporter.recording.events import Event
from exporter.recording.frames import Frame, encode_frame, reduce
from exporter.recording.schema import APPLICATION_ID, STEPS, VERSION
from exporter.recording.store import MIN_SIZE, Batch, Store
from tests.support.simulated_run import SimulatedRun
from tests.support.small_disk import small_disk

DAY_S = 86_400
BEGAN = 1_700_000_000.0 - 1_700_000_000.0 % 600


def frame(at: float, *, arrived: int = 0, lag: int = 0, partitions: int = 0, name: str = "train") -> Frame:
    row: list[float | int | None] = [0] * len(COLUMNS)
    row[COLUMNS.index("arrived")] = arrived
    row[COLUMNS.index("staleness_max")] = lag
    names = {f"{name}-{index}": list(row) for index in range(partitions)}
    return Frame(at, 10, 3, False, [0.001] * len(PLANE_COLUMNS), {"ping": 0.001}, list(row), list(row), names)


def column(path: Path, name: str) -> list[float | int | None]:
    frames = Archive(path).frames(0, 1e11)
    return [one.trained[COLUMNS.index(name)] if one.trained else None for one in frames]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.tqr", MIN_SIZE)
    lasting = Event(1, "condition", "DataPlaneLost", BEGAN, None, "critical", detail={"text": "gone"})
    store.write(Batch([frame(BEGAN, arrived=7)], {1: lasting}), BEGAN)
    ended = Event(1, "condition", "DataPlaneLost", BEGAN, BEGAN + 5, "critical", detail={"text": "gone for 5 s"})
    store.write(Batch([frame(BEGAN + 10, arrived=9)], {1: ended}), BEGAN + 10)
    archive = Archive(tmp_path / "run.tqr")  # while it is open for writing
    assert column(archive.path, "arrived") == [7, 9]
    (event,) = archive.events(BEGAN, BEGAN + 20)
    assert (event.name, event.until, event.detail, event.cut) == (
        "DataPlaneLost",
        BEGAN + 5,
        {"text": "gone for 5 s"},
        False,
    )
    assert archive.events(BEGAN + 6, BEGAN + 20) == []
    store.close()


def test_old_frames_stand_for_a_minute_and_then_for_ten(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.tqr", MIN_SIZE)
    frames = [frame(BEGAN + 10 * index, arrived=index, lag=9 if index == 30 else 1) for index in range(360)]
    store.write(Batch(frames), BEGAN + 3600)
    for second in (35, 1835, 3600):  # whenever it is done, no minute is merged in two parts
        store.tidy(BEGAN + 6 * 3600 + second)
    archive = Archive(tmp_path / "run.tqr")
    kept = archive.frames(0, 1e11)
    assert {one.step for one in kept} == {60}
    assert column(archive.path, "arrived") == [6 * minute + 5 for minute in range(60)]  # the last of each minute
    assert column(archive.path, "staleness_max") == [9 if minute == 5 else 1 for minute in range(60)]  # the worst
    store.tidy(BEGAN + 3600 + 3 * DAY_S)
    assert column(archive.path, "arrived") == [59, 119, 179, 239, 299, 359]
    assert column(archive.path, "staleness_max") == [9, 1, 1, 1, 1, 1]
    store.tidy(BEGAN + 3600 + 3 * DAY_S)
    assert len(archive.frames(0, 1e11)) == 6
    store.close()


def test_a_day_is_small_whatever_is_recorded(tmp_path: Path) -> None:
    run = SimulatedRun(partitions=20)
    body = reduce(run.snapshot(), Slots(), 10)
    store = Store(tmp_path / "run.tqr", 64 * 2**20)
    largest = 0
    for begin in range(0, DAY_S, 3600):
        batch = Batch()
        for second in range(begin, begin + 3600, 10):
            batch.frames.append(Frame(BEGAN + second, *(getattr(body, name) for name in Frame.__struct_fields__[1:])))
        store.write(batch, BEGAN + begin + 3600)
        store.tidy(BEGAN + begin + 3600)
        largest = max(largest, store.size)
    store.close()
    assert largest <= 20 * 10**6, f"{largest:,} bytes"
    assert len(Archive(tmp_path / "run.tqr").frames(0, 1e11)) == 18 * 60 + 6 * 360


def test_it_keeps_its_bound_and_the_newest_rows(tmp_path: Path) -> None:
    store = Store(tmp_path / "run.tqr", MIN_SIZE)
    key = 0
    for turn in range(60):
        at = BEGAN + 1000 * turn
        batch = Batch([frame(at + 10 * index, partitions=20, name="n" * 250) for index in range(50)])
        for _ in range(50):
            key += 1
            batch.events[key] = Event(key, "incident", "ping", at, at, detail={"reason": "x" * 500})
        store.write(batch, at + 500)
        assert store.size <= MIN_SIZE
    store.close()
    frames = Archive(tmp_path / "run.tqr").frames(0, 1e11)
    assert frames[-1].at == BEGAN + 59_490
    assert frames[0].at > BEGAN
    assert len(frames) > 500


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = Store(tmp_path / "run.tqr", MIN_SIZE)
        store.write(Batch([frame(BEGAN)]), BEGAN)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert modes == dict.fromkeys(("run.tqr", "run.tqr-wal", "run.tqr-shm", "run.tqr.lock"), 0o600)


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    path = tmp_path / "run.tqr"
    store = Store(path, MIN_SIZE)
    with pytest.raises(
        RecordingError, match=rf"run\.tqr is being written by process {os.getpid()} on .+ a file of its own"
    ) as refused:
        Store(path, MIN_SIZE)
    assert not refused.value.lasting
    store.write(Batch([frame(BEGAN)]), BEGAN)
    store.close()
    Store(path, MIN_SIZE).close()


def text_file(path: Path) -> None:
    path.write_text("hello\n")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    path.mkdir()


def other_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mail (text)")
    connection.close()


def newer(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()


def damaged(path: Path) -> None:
    store = Store(path, MIN_SIZE)
    store.write(Batch([frame(BEGAN + 10 * index, partitions=5) for index in range(400)]), BEGAN)
    store.close()
    content = bytearray(path.read_bytes())
    content[8192:-4096] = os.urandom(len(content) - 12288)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (text_file, "is not a recording"),
        (pipe, "is not a regular file"),
        (device, "is not a regular file"),
        (folder, "is not a regular file"),
        (other_database, "is a database of another program"),
        (newer, f"was written by a newer tq-exporter .version {VERSION + 1} of the tables, this one knows {VERSION}."),
        (damaged, "is damaged"),
    ],
)
def test_what_is_no_recording_is_refused_and_left_alone(tmp_path: Path, make: object, says: str) -> None:
    path = tmp_path / "run.tqr"
    assert callable(make)
    make(path)
    before = path.read_bytes() if stat.S_ISREG(path.stat().st_mode) else b""
    for _ in range(2):
        with pytest.raises(RecordingError, match=says) as refused:
            Store(path, MIN_SIZE)
        assert refused.value.lasting
        assert "\n" not in str(refused.value)
    if make is not damaged:
        with pytest.raises(RecordingError, match=says):
            Archive(path).span()
    assert before == (path.read_bytes() if before else b"")


def test_a_file_of_the_older_version_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.tqr"
    with sqlite3.connect(path) as connection:
        connection.executescript((Path(__file__).parent / "version-1.sql").read_text())
        connection.execute("UPDATE frames SET body = ?", (encode_frame(frame(BEGAN, arrived=3)),))
    connection.close()
    assert len(STEPS) == VERSION == 2
    with pytest.raises(RecordingError, match="started by an older tq-exporter; record to it with this version first"):
        Archive(path).summaries()
    store = Store(path, MIN_SIZE)
    store.write(Batch([frame(BEGAN + 600, arrived=4)], snapshots=[(BEGAN, b"{}")], summary=(BEGAN, b"{}")), BEGAN + 600)
    store.close()
    archive = Archive(path)
    assert column(path, "arrived") == [3, 4]
    state, condition = archive.events(0, 1e11)
    assert (state.name, state.until, state.cut) == ("found", 1_700_000_020.0, True)  # its exporter was killed
    assert (condition.name, condition.cut) == ("DataPlaneTrainerStarved", False)
    assert archive.snapshot(BEGAN) == {}
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    connection.close()


def test_a_recording_on_a_disk_that_is_read_only_is_read(tmp_path: Path) -> None:
    with small_disk(tmp_path / "archive", 2**20) as disk:
        store = Store(disk.path / "run.tqr", MIN_SIZE)
        store.write(Batch([frame(BEGAN, arrived=7)]), BEGAN)
        store.close()
        disk.protect()
        assert column(disk.path / "run.tqr", "arrived") == [7]
