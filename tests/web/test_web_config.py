"""The web configuration file: accepted content, and the one-line message of each error."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.config import ConfigError
from exporter.web import Guard
from exporter.web.tls import has_allowed_name
from exporter.web.web_config import read_web_config
from tests.support.certificates import Authority, Pair

INVALID = sorted((Path(__file__).parent / "config").glob("invalid-*.yml"))
HASH = "$2b$04$dfSWiGIhKaGuz7qF8Fd0LeTKT4OrWy7hG7TSvVUcTGFyA77iWbpoK"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


def write(folder: Path, pair: Pair, further: str = "") -> Path:
    path = folder / "web.yml"
    path.write_text(f"tls_server_config:\n  cert_file: {pair.cert}\n  key_file: {pair.key}\n{further}")
    return path


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_each_rejection_says_where_what_and_what_to_do(path: Path) -> None:
    expected = path.read_text(encoding="utf-8").rstrip().rpartition("# expect: ")[2]
    with pytest.raises(ConfigError) as caught:
        read_web_config(path)
    line = str(caught.value)
    assert expected in line
    assert line.startswith(str(path))
    assert "\n" not in line
    assert "secret" not in line
    assert HASH[:20] not in line


def test_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "web.yml"
    path.write_text(
        "tls_server_config:\n"
        "  cert_file: pki/server.crt\n"
        "  key_file: /run/server.key\n"
        "  client_auth_type: RequireAndVerifyClientCert\n"
        "  client_ca_file: ca.pem\n"
        "  client_allowed_sans: [prometheus, 10.0.0.1]\n"
        "  min_version: TLS13\n"
        "http_server_config:\n"
        "  http2: false\n"
        "  headers: {Strict-Transport-Security: max-age=31536000, X-Frame-Options: deny, X-XSS-Protection: ''}\n"
        f"basic_auth_users: {{alice: '{HASH}', bob: '{HASH.replace('$2b$', '$2y$')}'}}\n"
    )
    config = read_web_config(path)
    assert config.tls is not None
    assert config.tls.cert_file == tmp_path / "pki" / "server.crt"
    assert config.tls.key_file == Path("/run/server.key")
    assert config.tls.client_ca_file == tmp_path / "ca.pem"
    assert config.tls.client_allowed_sans == ("prometheus", "10.0.0.1")
    assert (config.tls.min_version, config.tls.max_version) == ("TLS13", "TLS13")
    assert config.headers == {"Strict-Transport-Security": "max-age=31536000", "X-Frame-Options": "deny"}
    assert set(config.users) == {"alice", "bob"}


def break_missing_cert(authority: Authority, pair: Pair) -> None:
    pair.cert.unlink()


def break_cert(authority: Authority, pair: Pair) -> None:
    pair.cert.write_text("-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n")


def break_empty_cert(authority: Authority, pair: Pair) -> None:
    pair.cert.write_text("")


def break_missing_key(authority: Authority, pair: Pair) -> None:
    pair.key.unlink()


def break_key(authority: Authority, pair: Pair) -> None:
    pair.key.write_text("no key\n")


def break_pair(authority: Authority, pair: Pair) -> None:
    pair.key.write_bytes(authority.issue("other").key.read_bytes())


def break_passphrase(authority: Authority, pair: Pair) -> None:
    locked = authority.issue("locked", passphrase=b"hunter22")
    pair.cert.write_bytes(locked.cert.read_bytes())
    pair.key.write_bytes(locked.key.read_bytes())


def break_folder(authority: Authority, pair: Pair) -> None:
    pair.key.unlink()
    pair.key.mkdir()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (break_missing_cert, r"cert_file: .*broken\.crt does not exist; name a file"),
        (break_cert, r"cert_file: .*broken\.crt holds no certificate; give the certificate and its chain in PEM"),
        (break_empty_cert, r"cert_file: .*broken\.crt holds no certificate; give the certificate and its chain in PEM"),
        (break_missing_key, r"key_file: .*broken\.key does not exist; name a file"),
        (break_key, r"key_file: .*broken\.key holds no private key for .*; give an unencrypted key in PEM"),
        (break_pair, r"key_file: .*broken\.key is not the key of the certificate .*; give the key that"),
        (break_passphrase, r"key_file: has a passphrase; give one without: openssl pkey"),
        (break_folder, r"key_file: .*broken\.key cannot be read \(Is a directory\); let the exporter's user read it"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, harm: Callable[[Authority, Pair], None], said: str
) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("broken")
    harm(authority, pair)
    path = write(tmp_path, pair)
    with pytest.raises(ConfigError, match=said) as caught:
        Guard(path)
    assert str(caught.value).startswith(f"{path}:")


@pytest.mark.parametrize("command", ["check-config", "run"])
def test_a_mistake_is_one_line_and_exit_code_2_before_anything_starts(tmp_path: Path, command: str) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("broken")
    break_pair(authority, pair)
    path = write(tmp_path, pair)
    flags = ["--listen", "127.0.0.1:0", "--controller", "tcp://127.0.0.1:1", "--web.config.file", str(path)]
    done = subprocess.run(
        [sys.executable, "-m", "exporter.cli", command, *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"tq-exporter: {path}:3: tls_server_config.key_file: ")
    assert done.stderr.endswith("; give the key that the certificate was made for\n")
    assert done.stderr.count("\n") == 1


def test_a_ca_file_without_a_certificate_is_named(tmp_path: Path) -> None:
    pair = Authority(tmp_path).issue("server")
    (tmp_path / "none.pem").write_text("none\n")
    further = "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: none.pem\n"
    with pytest.raises(ConfigError, match=r"client_ca_file: .*none\.pem holds no certificate; name a PEM file"):
        Guard(write(tmp_path, pair, further))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yml: there is no such file; .* --web\.config\.file"):
        Guard(tmp_path / "no.yml")


def test_passwords_without_tls_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "web.yml"
    path.write_text(f"basic_auth_users: {{alice: '{HASH}'}}\n")
    Guard(path)
    assert "asks for passwords without TLS" in caplog.text
    assert HASH not in caplog.text


@pytest.mark.parametrize(
    ("allowed", "let_in"),
    [
        ((), True),
        (("prometheus",), True),
        (("::1",), True),
        (("0:0:0:0:0:0:0:1",), True),
        (("prometheu",), False),
        (("*",), False),
    ],
)
def test_a_clients_names_are_compared_exactly(allowed: tuple[str, ...], let_in: bool) -> None:
    certificate = {"subjectAltName": (("DNS", "prometheus"), ("IP Address", "0:0:0:0:0:0:0:1"))}
    assert has_allowed_name(certificate, allowed) is let_in
    assert has_allowed_name({}, allowed) is (not allowed)
    assert has_allowed_name(None, allowed) is (not allowed)
