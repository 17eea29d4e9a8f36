"""The web configuration file: TLS, users and headers, in the format that Prometheus's exporters share.

A setting of that format that is not supported here is an error that names its key: missing protection must never go
unnoticed. No error repeats a value of ``basic_auth_users`` or the content of a private key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from exporter.config import ConfigError
from exporter.config.documents import Document, as_mapping, read_document, reject_key

__all__ = ["ClientAuth", "TlsSettings", "TlsVersion", "WebConfig", "read_web_config"]

ClientAuth = Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"]
TlsVersion = Literal["TLS12", "TLS13"]

MAX_COST: Final = 15
"""The highest bcrypt cost of a hash. Each step doubles the CPU time of a wrong password, which is 2 s here."""

_PAGE: Final = "docs/security.md"
_FLAG: Final = "--web.config.file"
_SECTIONS: Final = ("tls_server_config", "http_server_config", "basic_auth_users")
_TLS_KEYS: Final = (
    "cert_file",
    "key_file",
    "client_auth_type",
    "client_ca_file",
    "client_allowed_sans",
    "min_version",
    "max_version",
)
_UNSUPPORTED: Final[Mapping[str, str]] = {
    "rate_limit": "leave it out: the number of connections and of password checks is bounded already",
    "tls_server_config.cert": "put the certificate into a file and name it in cert_file",
    "tls_server_config.key": "put the key into a file and name it in key_file",
    "tls_server_config.client_ca": "put the certificates into a file and name it in client_ca_file",
    "tls_server_config.cipher_suites": "leave it out for OpenSSL's own choice, or set min_version: TLS13",
    "tls_server_config.curve_preferences": "leave it out for OpenSSL's own choice",
    "tls_server_config.prefer_server_cipher_suites": "leave it out: the client's order counts among strong suites",
}
_HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Content-Security-Policy": (),
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
}
"""The headers that may be set, with the allowed values of those that have only a few."""

_HASH: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The server's certificate, and whether clients must have one.

    Attributes:
        cert_file: The server's certificate and its chain, PEM.
        key_file: The private key, PEM, without a passphrase.
        client_auth: Whether clients must send a certificate.
        client_ca_file: The CAs of the clients' certificates, PEM; None when clients need no certificate.
        client_allowed_sans: A client's certificate must have one of these names; empty accepts any.
        min_version: The lowest TLS version accepted.
        max_version: The highest.
        document: The document with the settings, for errors that are found later.
    """

    cert_file: Path
    key_file: Path
    client_auth: ClientAuth
    client_ca_file: Path | None
    client_allowed_sans: tuple[str, ...]
    min_version: TlsVersion
    max_version: TlsVersion
    document: Document

    def origin(self, key: str) -> str:
        """Return how an error names one of these settings."""
        return self.document.origin("tls_server_config", key)


@dataclass(frozen=True, slots=True)
class WebConfig:
    """The content of a web configuration file.

    Attributes:
        tls: None for plain HTTP.
        users: The bcrypt hash of each user's password; empty when no login is needed.
        headers: Headers to add to every response.
    """

    tls: TlsSettings | None
    users: Mapping[str, bytes]
    headers: Mapping[str, str]


def read_web_config(file: Path) -> WebConfig:
    """Read and check *file*. The files that it names are not opened; relative paths start in its folder.

    Raises:
        ConfigError: The file cannot be read, a key is unknown or not supported, or its value is invalid.
    """
    document = read_document(file, _FLAG, quote=False)
    for name in document.tree:
        _check_key(document, name, known=_SECTIONS)
    tls = _read_tls(document) if document.tree.get("tls_server_config") is not None else None
    config = WebConfig(tls, _read_users(document), _read_headers(document))
    if config == WebConfig(None, {}, {}):
        remedy = f"give tls_server_config or basic_auth_users, or leave {_FLAG} out"
        raise ConfigError(str(file), "protects nothing", remedy)
    return config


def _check_key(document: Document, *path: str, known: tuple[str, ...]) -> None:
    remedy = _UNSUPPORTED.get(".".join(path))
    if remedy is not None:
        raise ConfigError(document.origin(*path), "is not supported", remedy)
    if path[-1] not in known:
        reject_key(document.origin(*path), path[-1], known, _PAGE)


def _section(document: Document, name: str) -> dict[str, Any]:
    return as_mapping(document.tree.get(name), document.origin(name), quote=False)


# TLS.


def _read_tls(document: Document) -> TlsSettings:
    section = _section(document, "tls_server_config")
    for name in section:
        _check_key(document, "tls_server_config", name, known=_TLS_KEYS)

    def origin(name: str) -> str:
        return document.origin("tls_server_config", name)

    def path(name: str) -> Path | None:
        value = section.get(name)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            raise ConfigError(origin(name), "is not the path of a file", "write it as text")
        return document.file.parent / value

    def choice(name: str, default: str, remedies: Mapping[str, str], *choices: str) -> Any:
        value = section.get(name)
        if value is None or value == "":
            return default
        if isinstance(value, str) and value in choices:
            return value
        if isinstance(value, str) and value in remedies:
            raise ConfigError(origin(name), f"{value} is not supported", remedies[value])
        raise ConfigError(origin(name), "is not known", f"write {' or '.join(choices)}")

    files = {name: path(name) for name in ("cert_file", "key_file", "client_ca_file")}
    cert_file, key_file = files["cert_file"], files["key_file"]
    if cert_file is None or key_file is None:
        missing = "cert_file" if cert_file is None else "key_file"
        raise ConfigError(origin(missing), "is missing", "give a certificate and its key, each in a PEM file")
    verify = "write RequireAndVerifyClientCert: a certificate without verification proves nothing"
    client_auth: ClientAuth = choice(
        "client_auth_type",
        "NoClientCert",
        {"RequestClientCert": verify, "RequireAnyClientCert": verify},
        "NoClientCert",
        "VerifyClientCertIfGiven",
        "RequireAndVerifyClientCert",
    )
    if client_auth != "NoClientCert" and files["client_ca_file"] is None:
        raise ConfigError(
            origin("client_ca_file"), f"is missing, which {client_auth} needs", "name a PEM file of the CAs to trust"
        )
    if client_auth == "NoClientCert" and files["client_ca_file"] is not None:
        remedy = "add client_auth_type: RequireAndVerifyClientCert or leave it out"
        raise ConfigError(origin("client_ca_file"), "is given, but no client is asked for a certificate", remedy)
    old = dict.fromkeys(("TLS10", "TLS11"), "write TLS12 or TLS13")
    min_version: TlsVersion = choice("min_version", "TLS12", old, "TLS12", "TLS13")
    max_version: TlsVersion = choice("max_version", "TLS13", old, "TLS12", "TLS13")
    if min_version > max_version:
        raise ConfigError(origin("max_version"), f"is below min_version {min_version}", "write TLS13 or leave it out")
    return TlsSettings(
        cert_file=cert_file,
        key_file=key_file,
        client_auth=client_auth,
        client_ca_file=files["client_ca_file"],
        client_allowed_sans=_read_sans(section.get("client_allowed_sans"), origin("client_allowed_sans"), client_auth),
        min_version=min_version,
        max_version=max_version,
        document=document,
    )


def _read_sans(value: object, origin: str, client_auth: ClientAuth) -> tuple[str, ...]:
    if value is None or value == []:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise ConfigError(origin, "is not a list of names", "write - NAME lines below it")
    if client_auth != "RequireAndVerifyClientCert":
        remedy = "add client_auth_type: RequireAndVerifyClientCert"
        raise ConfigError(origin, "is given, but clients need no certificate", remedy)
    return tuple(value)


# Users and headers.


def _read_users(document: Document) -> dict[str, bytes]:
    users = {}
    for name, value in _section(document, "basic_auth_users").items():
        origin = document.origin("basic_auth_users", name)
        match = _HASH.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ConfigError(origin, "is not a bcrypt hash", f"make one as {_PAGE} shows, and put it in single quotes")
        if not 4 <= int(match[1]) <= MAX_COST:
            raise ConfigError(origin, f"has a bcrypt cost of {match[1]}", f"hash with a cost of 10 to {MAX_COST}")
        if ":" in name or not name:
            raise ConfigError(origin, "cannot be a user name", "give one that is not empty and has no colon")
        users[name] = value.encode()
    return users


def _read_headers(document: Document) -> dict[str, str]:
    section = _section(document, "http_server_config")
    for name in section:
        _check_key(document, "http_server_config", name, known=("http2", "headers"))
    if section.get("http2") not in (None, False):
        origin = document.origin("http_server_config", "http2")
        raise ConfigError(origin, "is not supported", "write false or leave it out: one scrape is one request")
    given = as_mapping(section.get("headers"), document.origin("http_server_config", "headers"), quote=False)
    headers = {}
    for name, value in given.items():
        origin = document.origin("http_server_config", "headers", name)
        if name not in _HEADERS:
            reject_key(origin, name, _HEADERS, _PAGE)
        if value is None or value == "":
            continue
        if not isinstance(value, str) or not re.fullmatch(r"[\x20-\x7e]+", value):
            raise ConfigError(origin, "is not one line of ASCII text", "put it in quotes, on one line")
        if _HEADERS[name] and value not in _HEADERS[name]:
            raise ConfigError(origin, "cannot have this value", f"write {' or '.join(_HEADERS[name])}")
        headers[name] = value
    return headers
