"""Re-reading: effects of a change of the web configuration or of a file that it names."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import bcrypt
import pytest

from exporter.web import Guard
from exporter.web import guard as guard_module
from tests.support.certificates import Authority


class Files:
    """A web configuration whose parts a test can change."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.pair = self.authority.issue("server")
        self.path = folder / "web.yml"
        self.users = {"alice": "secret"}
        self.write()

    def write(self, *, tls: bool = True, users: bool = True, further: str = "") -> None:
        text = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n" if tls else ""
        if users:
            text += "basic_auth_users:\n"
            for name, password in self.users.items():
                text += f"  {name}: '{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}'\n"
        self.replace(self.path, (text + further).encode())

    @staticmethod
    def replace(path: Path, content: bytes) -> None:
        """Replace a file atomically, as editors and Kubernetes do."""
        fresh = path.with_suffix(".new")
        fresh.write_bytes(content)
        os.replace(fresh, path)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_nothing_is_read_again_while_nothing_changes(files: Files) -> None:
    guard = Guard(files.path)
    assert guard.current() is guard.current()


def test_without_a_file_there_is_no_protection() -> None:
    protection = Guard(None).current()
    assert (protection.tls, dict(protection.users), dict(protection.headers)) == (None, {}, {})


def test_new_users_are_taken(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard(files.path)
    files.users["bob"] = "more"
    files.write()
    with caplog.at_level(logging.INFO):
        assert set(guard.current().users) == {"alice", "bob"}
    assert "has changed and is in force" in caplog.text


def test_a_renewed_certificate_is_taken(files: Files) -> None:
    guard = Guard(files.path)
    before = guard.current().tls
    renewed = files.authority.issue("renewed")
    files.replace(files.pair.key, renewed.key.read_bytes())
    assert guard.current().tls is before  # only the key was replaced, by that of another certificate
    files.replace(files.pair.cert, renewed.cert.read_bytes())
    assert guard.current().tls is not before


def test_a_renewed_authority_of_the_clients_is_taken(files: Files, tmp_path: Path) -> None:
    further = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n"
    files.write(users=False, further=further)
    guard = Guard(files.path)
    before = guard.current().tls
    assert guard.current().tls is before
    files.replace(files.authority.file, Authority(tmp_path, "other").file.read_bytes())
    assert guard.current().tls is not before


def test_a_link_that_is_turned_is_followed(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first, second = Files(tmp_path / "one"), Files(tmp_path / "two")
    second.users = {"bob": "more"}
    second.write()
    link = tmp_path / "data"
    link.symlink_to("one")
    guard = Guard(link / first.path.name)
    os.replace(_link(tmp_path / "fresh", "two"), link)
    assert set(guard.current().users) == {"bob"}


def _link(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


@pytest.mark.parametrize("content", [b"", b"tls_server_config: [", b"basic_auth_users: {alice: secret}", b"\xff", None])
def test_a_broken_file_keeps_what_was_and_is_logged_once(
    files: Files, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard(files.path)
    before = guard.current()
    if content is None:
        files.path.unlink()
    else:
        files.replace(files.path, content)
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            assert guard.current() is before
    assert len(caplog.records) == 1
    assert str(files.path) in caplog.text
    assert "secret" not in caplog.text
    files.users = {"bob": "more"}
    files.write()
    assert set(guard.current().users) == {"bob"}


def test_a_broken_certificate_keeps_what_was_and_a_mended_one_is_taken(
    files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard(files.path)
    before, certificate = guard.current(), files.pair.cert.read_bytes()
    files.replace(files.pair.cert, b"half a certif")
    for _ in range(5):
        assert guard.current() is before
    assert len(caplog.records) == 1
    files.replace(files.pair.cert, certificate)
    assert guard.current() is not before


@pytest.mark.parametrize(
    ("tls", "users", "key"), [(False, True, "tls_server_config"), (True, False, "basic_auth_users")]
)
def test_a_change_never_ends_a_protection(
    files: Files, tls: bool, users: bool, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard(files.path)
    before = guard.current()
    files.write(tls=tls, users=users)
    assert guard.current() is before
    assert f"{key}: is gone; restart the exporter" in caplog.text


def test_a_disk_that_hangs_holds_up_one_connection_only(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = Guard(files.path)
    before = guard.current()
    entered, go = threading.Event(), threading.Event()

    def hang(path: Path) -> None:
        entered.set()
        assert go.wait(30)

    monkeypatch.setattr(guard_module, "_sign", hang)
    first = threading.Thread(target=guard.current)
    first.start()
    try:
        assert entered.wait(30)
        assert guard.current() is before
    finally:
        go.set()
        first.join(30)
