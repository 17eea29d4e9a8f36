"""The server's side of TLS: a context made from files, and whom it lets in."""

from __future__ import annotations

import calendar
import ipaddress
import logging
import ssl
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from exporter.config import ConfigError
from exporter.web.web_config import TlsSettings

__all__ = ["has_allowed_name", "server_context"]

logger = logging.getLogger(__name__)

_SOON_S: Final = 7 * 86400.0
_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


def server_context(settings: TlsSettings, *, now: float | None = None) -> ssl.SSLContext:
    """Return a context with the certificate, key and CAs that *settings* name, as the files are now.

    A certificate that has expired, or will within a week, is used and warned of: clients see it and say so.

    Args:
        settings: What the web configuration says.
        now: Seconds since the epoch, by default the present.

    Raises:
        ConfigError: A file cannot be read or holds something else, or the key is another certificate's.
    """
    certificate = _read(settings.cert_file, settings.origin("cert_file"))
    _read(settings.key_file, settings.origin("key_file"))
    expires = _expiry(certificate, settings.origin("cert_file"), settings.cert_file)
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
        origin = settings.origin("client_ca_file")
        _read(settings.client_ca_file, origin)
        try:
            context.load_verify_locations(settings.client_ca_file)
        except (ssl.SSLError, OSError):
            problem = f"{settings.client_ca_file} holds no certificate"
            raise ConfigError(origin, problem, "name a PEM file of the CAs to trust") from None
    _warn_of_expiry(settings.cert_file, expires, time.time() if now is None else now)
    return context


def has_allowed_name(certificate: dict[str, Any] | None, allowed: Collection[str]) -> bool:
    """Return whether a client's verified certificate has one of the *allowed* subject alternative names.

    Args:
        certificate: What :meth:`ssl.SSLSocket.getpeercert` gave.
        allowed: DNS names, IP addresses, mail addresses and URIs; empty when any certificate will do.
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
    # Without this OpenSSL asks for one on the terminal, and waits.
    raise _EncryptedKeyError


def _read(file: Path, origin: str) -> bytes:
    try:
        return file.read_bytes()
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


# When a certificate ends. The standard library tells it only of certificates that it has verified.


def _expiry(pem: bytes, origin: str, file: Path) -> float:
    """Return when the first certificate in *pem* ends, in seconds since the epoch."""
    start, end = pem.find(b"-----BEGIN CERTIFICATE-----"), pem.find(b"-----END CERTIFICATE-----")
    try:
        if not 0 <= start < end:
            raise ValueError("no certificate")
        block = pem[start:end].decode("ascii") + "-----END CERTIFICATE-----"
        return _not_after(ssl.PEM_cert_to_DER_cert(block))
    except (ValueError, IndexError):
        problem = f"{file} holds no certificate"
        raise ConfigError(origin, problem, "give the certificate and its chain in PEM") from None


def _not_after(der: bytes) -> float:
    """Return the end of a certificate's validity (RFC 5280, 4.1): certificate, body, fields, validity, second time."""
    body = _children(_children(der)[0][1])[0][1]
    fields = _children(body)
    first = 1 if fields[0][0] == 0xA0 else 0  # the version is there or not; serial, algorithm and issuer follow
    tag, value = _children(fields[first + 3][1])[1]
    text = value.decode("ascii")
    if tag == 0x17:  # UTCTime has two digits of the year
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    return float(calendar.timegm(time.strptime(text, "%Y%m%d%H%M%SZ")))


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of each DER element in *data*."""
    found = []
    at = 0
    while at < len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            length, at = int.from_bytes(data[at : at + count], "big"), at + count
        found.append((tag, data[at : at + length]))
        at += length
    return found


def _warn_of_expiry(file: Path, expires: float, now: float) -> None:
    day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(expires))
    if expires <= now:
        logger.warning("the certificate %s has expired (%s): clients refuse it until it is renewed", file, day)
    elif expires <= now + _SOON_S:
        logger.warning("the certificate %s expires soon (%s): renew it", file, day)
