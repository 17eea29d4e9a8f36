"""The server's side of TLS: the context, made from files, and the check of client certificates."""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from dataplane.files import read_regular
from exporter.config import ConfigError
from exporter.web.web_config import TlsSettings

__all__ = ["has_allowed_name", "server_context"]

_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return a context with the certificate, key and CAs that *settings* name, read now.

    Args:
        settings: The TLS settings of the web configuration.

    Raises:
        ConfigError: A file cannot be read or has the wrong content, or the key does not match the certificate.
    """
    _load_certificates(
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # discarded: the server's own certificate is no trusted CA
        settings.cert_file,
        settings.origin("cert_file"),
        "give the certificate and its chain in PEM",
    )
    _check_readable(settings.key_file, settings.origin("key_file"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    context.maximum_version = _VERSIONS[settings.max_version]
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(settings.cert_file, settings.key_file, password=_no_passphrase)
    except _EncryptedKeyError:
        remedy = "give one without: openssl pkey -in KEY -out PLAIN"
        raise ConfigError(settings.origin("key_file"), "has a passphrase", remedy) from None
    except ssl.SSLError as error:
        raise _unusable(settings, error) from None
    except OSError as error:
        raise ConfigError(settings.origin("key_file"), f"cannot be read ({error.strerror})", "try again") from error
    context.verify_mode = _VERIFY[settings.client_auth]
    if settings.client_ca_file is not None:
        remedy = "name a PEM file of the CAs to trust"
        _load_certificates(context, settings.client_ca_file, settings.origin("client_ca_file"), remedy)
    return context


def has_allowed_name(certificate: dict[str, Any] | None, allowed: Collection[str]) -> bool:
    """Return whether a client's verified certificate has one of the *allowed* subject alternative names.

    Args:
        certificate: The result of :meth:`ssl.SSLSocket.getpeercert`.
        allowed: DNS names, IP addresses, mail addresses and URIs; empty accepts any certificate.
    """
    if not allowed:
        return True
    names = {_canonical(value) for _, value in (certificate or {}).get("subjectAltName", ())}
    return not names.isdisjoint(_canonical(name) for name in allowed)


def _canonical(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name.strip()))
    except ValueError:
        return name


class _EncryptedKeyError(Exception):
    pass


def _no_passphrase() -> str:
    # Without this, OpenSSL asks for a passphrase on the terminal and waits.
    raise _EncryptedKeyError


def _load_certificates(context: ssl.SSLContext, file: Path, origin: str, remedy: str) -> None:
    _check_readable(file, origin)
    try:
        context.load_verify_locations(file)
    except (ssl.SSLError, OSError):
        raise ConfigError(origin, f"{file} holds no certificate", remedy) from None


def _check_readable(file: Path, origin: str) -> None:
    try:
        read_regular(file)
    except FileNotFoundError:
        raise ConfigError(origin, f"{file} does not exist", "name a file, relative to this one or absolute") from None
    except OSError as error:
        problem = f"{file} cannot be read ({error.strerror})"
        raise ConfigError(origin, problem, "let the exporter's user read it") from error


def _unusable(settings: TlsSettings, error: ssl.SSLError) -> ConfigError:
    reason = error.reason or ""
    if reason == "KEY_VALUES_MISMATCH":
        problem = f"{settings.key_file} is not the key of the certificate {settings.cert_file}"
        return ConfigError(settings.origin("key_file"), problem, "give the key that the certificate was made for")
    if reason.endswith(("TOO_SMALL", "TOO_WEAK")):
        problem = f"{settings.cert_file} is too weak ({reason.replace('_', ' ').lower()})"
        return ConfigError(settings.origin("cert_file"), problem, "use RSA of 2048 bits or more, or an elliptic curve")
    problem = f"{settings.key_file} holds no private key for {settings.cert_file}"
    return ConfigError(settings.origin("key_file"), problem, "give an unencrypted key in PEM")
