"""The real exporter behind TLS and passwords, requested with the real curl."""

from __future__ import annotations

import os
import pwd
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from tests.support.certificates import Authority
from tests.support.exporter_process import ExporterProcess
from tests.support.waiting import wait_until

NOWHERE = ("--controller", "tcp://127.0.0.1:1")
PATHS = (
    "/",
    "/metrics",
    "/healthz",
    "/readyz",
    "/sd",
    "/api/v1/conditions",
    "/api/v1/groups",
    "/api/v1/snapshot",
    "/docs/metrics",
    "/nothing",
)


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


class Protected:
    """An exporter with a web configuration in *folder* that a test may change."""

    def __init__(self, folder: Path, tls: str = "", further: str = "") -> None:
        self.authority = Authority(folder)
        self.pair = self.authority.issue("server")
        self.file = folder / "web.yml"
        self._tls = f"tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{tls}"
        self._further = further
        self.set_users(alice="open sesame")
        self.exporter = ExporterProcess(*NOWHERE, "--web.config.file", str(self.file))
        self.url = self.exporter.url

    def set_users(self, **users: str) -> None:
        lines = "".join(f"  {name}: '{hashed(password)}'\n" for name, password in users.items())
        self.replace(f"{self._tls}basic_auth_users:\n{lines}{self._further}")

    def replace(self, text: str) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, self.file)

    def curl(self, path: str, *arguments: str) -> int:
        """Return the status that curl saw, 0 when there was none."""
        command = ["curl", "--silent", "--output", os.devnull, "--write-out", "%{http_code}", "--max-time", "30"]
        command += ["--cacert", str(self.authority.file), *arguments, self.url + path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return int(done.stdout)


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Protected]:
    headers = "http_server_config:\n  headers: {Strict-Transport-Security: max-age=600, X-Frame-Options: deny}\n"
    made = Protected(tmp_path_factory.mktemp("web"), further=headers)
    with made.exporter:
        yield made


def healthcheck(protected: Protected, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "exporter.cli", "healthcheck", "--pid", str(protected.exporter.process.pid)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_without_with_wrong_and_with_right_credentials(protected: Protected) -> None:
    assert protected.url.startswith("https://127.0.0.1:")
    assert protected.curl("/metrics") == 401
    assert protected.curl("/metrics", "--user", "alice:wrong") == 401
    assert protected.curl("/metrics", "--user", "alice:open sesame") == 200


@pytest.mark.parametrize("path", PATHS)
def test_every_path_and_method_asks_for_credentials(protected: Protected, path: str) -> None:
    assert protected.curl(path) == 401
    assert protected.curl(path, "--user", "eve:open sesame") == 401
    assert protected.curl(path, "--head") == 401
    assert protected.curl(path, "--data", "x=1") == 401
    assert protected.curl(path, "--user", "alice:open sesame") in {200, 404, 503}


def test_a_refusal_says_how_to_ask_and_nothing_else(protected: Protected) -> None:
    command = ["curl", "--silent", "--include", "--cacert", str(protected.authority.file), protected.url + "/metrics"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    head, _, body = done.stdout.replace("\r\n", "\n").partition("\n\n")
    assert body == "Unauthorized\n"
    headers = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:])
    assert headers["www-authenticate"] == 'basic realm="tq-exporter", charset="utf-8"'
    assert headers["strict-transport-security"] == "max-age=600"
    assert headers["x-frame-options"] == "deny"


def test_plain_http_gets_nothing(protected: Protected) -> None:
    plain = protected.url.replace("https://", "http://") + "/metrics"
    command = ["curl", "--silent", "--max-time", "30", "--user", "alice:open sesame", plain]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert (done.returncode != 0, done.stdout) == (True, b"")


def test_old_tls_is_refused(protected: Protected) -> None:
    assert protected.curl("/metrics", "--tls-max", "1.1") == 0
    assert protected.curl("/metrics", "--tlsv1.2", "--tls-max", "1.2") == 401
    assert protected.curl("/metrics", "--tlsv1.3") == 401


def test_new_users_count_without_a_restart_and_a_broken_file_changes_nothing(protected: Protected) -> None:
    try:
        protected.set_users(bob="changed")
        assert protected.curl("/metrics", "--user", "alice:open sesame") == 401
        assert protected.curl("/metrics", "--user", "bob:changed") == 200
        for text in ("", "basic_auth_users: {bob: plain}\n"):
            protected.replace(text)
            assert protected.curl("/metrics") == 401
            assert protected.curl("/metrics", "--user", "bob:changed") == 200
        assert protected.exporter.log.count("the changed web configuration is not used") == 2
        assert healthcheck(protected)[0] == 0  # an invalid file must not end a working process
    finally:
        protected.set_users(alice="open sesame")
    assert protected.curl("/metrics", "--user", "alice:open sesame") == 200


def test_a_renewed_certificate_is_shown_without_a_restart(protected: Protected) -> None:
    host, _, port = protected.url.partition("//")[2].partition(":")

    def shown() -> str:
        return ssl.get_server_certificate((host, int(port)), timeout=30)

    before = shown()
    renewed = protected.authority.issue("renewed")
    for fresh, old in ((renewed.key, protected.pair.key), (renewed.cert, protected.pair.cert)):
        os.replace(fresh, old)
    assert shown() != before
    assert protected.curl("/metrics", "--user", "alice:open sesame") == 200


def test_the_health_check_needs_no_password(protected: Protected) -> None:
    assert healthcheck(protected) == (0, "")
    wait_until(lambda: healthcheck(protected, "--ready")[0] == 0, "readiness")


def test_a_client_certificate_is_asked_for_and_its_names_are_checked(tmp_path: Path) -> None:
    tls = (
        "  client_auth_type: RequireAndVerifyClientCert\n"
        "  client_ca_file: ca.pem\n"
        "  client_allowed_sans: [prometheus]\n"
    )
    protected = Protected(tmp_path, tls=tls)
    foreign = Authority(tmp_path, "foreign")
    with protected.exporter:
        right = protected.authority.issue("scraper", "prometheus")
        wrong_name = protected.authority.issue("other", "grafana")
        wrong_ca = foreign.issue("foreigner", "prometheus")
        user = ("--user", "alice:open sesame")
        assert protected.curl("/metrics", *user) == 0
        for pair, expected in ((right, 200), (wrong_name, 0), (wrong_ca, 0)):
            shown = ("--cert", str(pair.cert), "--key", str(pair.key))
            assert protected.curl("/metrics", *user, *shown) == expected
        assert healthcheck(protected) == (0, "")
        assert protected.exporter.stop() == 0


_UNPRIVILEGED = """
import encodings.idna, os, pwd, sys
from exporter import app, web
from exporter.cli import main
from exporter.config import load_config
app.poll_once(load_config({"--controller": "tcp://127.0.0.1:1"}, {}))  # loads all code: root alone may read it here
if os.getuid() == 0:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
sys.exit(main(["run", *sys.argv[1:]]))
"""


def test_it_needs_no_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = subprocess.Popen

    def unprivileged(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        at = command.index("run")
        started: subprocess.Popen[bytes] = real([sys.executable, "-c", _UNPRIVILEGED, *command[at + 1 :]], **options)
        return started

    monkeypatch.setattr(subprocess, "Popen", unprivileged)
    with ExporterProcess(*NOWHERE, forks=False) as exporter:
        uids = exporter.process.uids()
        assert 0 not in (uids.real, uids.effective, uids.saved)
        assert uids.effective == (os.getuid() or pwd.getpwnam("nobody").pw_uid)
        status = Path(f"/proc/{exporter.process.pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert exporter.wait_for(lambda seen: seen.value("dataplane_up") == 0, "a scrape")
        assert exporter.get("/readyz")[0] in {200, 503}
        assert exporter.stop() == 0
        assert "Traceback" not in exporter.log


def test_the_page_can_be_left_out() -> None:
    with ExporterProcess(*NOWHERE, "--web.disable-page") as exporter:
        status, body = exporter.get("/")
        assert (status, "<script" in body) == (200, False)
        assert exporter.get("/page/app.js")[0] == 404
        assert exporter.get("/metrics")[0] == 200
