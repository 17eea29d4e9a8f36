"""Reads a running exporter over HTTP or HTTPS, within a deadline and a bound.

It uses no proxy and follows no redirect: an exporter is reached as its scraper reaches it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, Literal, TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit

import msgspec

from dataplane.net.addresses import is_host_name, is_ip, join_host_port
from dataplane.net.resolver import Resolver

__all__ = ["DEFAULT_PORT", "Address", "ClientTls", "Kind", "Remote", "RemoteError", "parse_url"]

T = TypeVar("T")

Kind = Literal[
    "refused",
    "unknown_host",
    "unreachable",
    "timeout",
    "tls",
    "unauthorized",
    "forbidden",
    "not_found",
    "not_an_exporter",
    "too_large",
    "failed",
]

DEFAULT_PORT: Final = 9464
"""The port of an exporter that is given without a scheme and a port."""

MAX_BYTES: Final = 32 * 2**20
_OURS: Final = "tq-exporter"
_MAX_REASON: Final = 300


class RemoteError(Exception):
    """A running exporter cannot be read. ``str()`` is one line: which one, why, and what to do.

    Attributes:
        kind: What is the matter.
        status: The status of its answer, None without one.
    """

    def __init__(self, kind: Kind, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.kind = kind
        self.status = status


@dataclass(frozen=True, slots=True)
class Address:
    """Where an exporter listens.

    Attributes:
        host: A host name or an IP address, without brackets.
        port: Its port.
        tls: Whether it speaks HTTPS.
        path: What is before the exporter's own paths, behind a proxy: empty, or begins with ``/``.
        user: The user name in the URL, None without one.
    """

    host: str
    port: int
    tls: bool = False
    path: str = ""
    user: str | None = None

    def __str__(self) -> str:
        return f"{'https' if self.tls else 'http'}://{join_host_port(self.host, self.port)}{self.path}"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Files in PEM of the client's side of TLS.

    Attributes:
        ca_file: The CAs to trust, None for those of the system.
        cert_file: The client's certificate, with its key unless *key_file* has it.
        key_file: Its key.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return a context that checks the exporter's certificate; raises OSError for a file that cannot be used."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.cert_file is not None:
            context.load_cert_chain(self.cert_file, self.key_file, password=lambda: "")
        return context


def parse_url(text: str) -> Address:
    """Return the address in ``http://[USER@]HOST[:PORT][/PATH]``, ``https://…``, ``HOST:PORT`` or ``HOST``.

    Raises:
        ValueError: *text* is none, or has a password. The message never repeats one.
    """
    bare = "://" not in text
    parts = urlsplit(f"http://{text}" if bare else text)
    try:
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("its port is not a number from 1 to 65535") from None
    if parts.scheme not in ("http", "https"):
        raise ValueError("its scheme is not http or https")
    if parts.password is not None:
        raise ValueError("it has a password, which every user of this machine can read there")
    if not (is_host_name(host) or is_ip(host)) or port == 0 or parts.query or parts.fragment:
        raise ValueError("it is not of the form http://HOST:PORT")
    tls = parts.scheme == "https"
    if port is None:
        port = DEFAULT_PORT if bare else 443 if tls else 80
    user = None if parts.username is None else unquote(parts.username)
    return Address(host, port, tls, quote(parts.path.rstrip("/"), safe="/%"), user)


class Remote:
    """A running exporter. Thread-safe.

    Args:
        address: Where it listens.
        user: The user name of its basic authentication, None for the one in the address.
        password: The password.
        tls: The files for HTTPS.
        connect_timeout_s: Seconds that the connection may take, TLS included.
        timeout_s: Seconds that a reading may take, from the look-up of the name to the last byte.
        max_bytes: A longer answer is refused; so is one that is longer after decompression.
    """

    def __init__(
        self,
        address: Address,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: ClientTls | None = None,
        connect_timeout_s: float = 5.0,
        timeout_s: float = 15.0,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.address = address
        self._user = address.user if user is None else user
        self._password = password
        self._tls = tls or ClientTls()
        self._connect_timeout_s = min(connect_timeout_s, timeout_s)
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._resolver = Resolver(address.host)

    def __str__(self) -> str:
        return str(self.address)

    def read_json(self, path: str, kind: type[T], query: Mapping[str, object] | None = None) -> T:
        """Return the JSON document at *path* as a *kind*; see :meth:`read`."""
        body = self.read(path, query)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            is_json = body.lstrip()[:1] in (b"{", b"[")
            why = f"its {path} cannot be read, is it of another version? {error}" if is_json else f"{path} is not JSON"
            raise self._error("not_an_exporter", f"is not an exporter of this version: {why}") from error

    def read(self, path: str, query: Mapping[str, object] | None = None) -> bytes:
        """Return the body at *path*, such as ``/api/v1/snapshot``.

        Args:
            path: The path, which begins with ``/``.
            query: Parameters; those that are None are left out.

        Raises:
            RemoteError: It cannot be read.
        """
        given = {name: value for name, value in (query or {}).items() if value is not None}
        target = self.address.path + path + (f"?{urlencode(given, doseq=True)}" if given else "")
        call = _Call()
        try:
            answer, body = self._fetch(target, call)
        except RemoteError:
            raise
        except (OSError, http.client.HTTPException, zlib.error, ValueError) as error:
            raise self._explain(error, late=call.expired.is_set()) from error
        if answer.status != HTTPStatus.OK:
            raise self._refusal(path, answer, body)
        return body

    def _fetch(self, target: str, call: _Call) -> tuple[http.client.HTTPResponse, bytes]:
        ends_at = time.monotonic() + self._timeout_s
        address = self._resolver.resolve(self._connect_timeout_s)
        if address is None:
            raise self._error("timeout", "is not known yet: the name servers do not answer")
        context = self._tls.context() if self.address.tls else None
        connection = _Connection(self.address, address, self._connect_timeout_s, context, call)
        # A socket's timeout is that of one receive: a peer that sends a byte at a time would never exceed it.
        timer = threading.Timer(max(ends_at - time.monotonic(), 0.0), call.expire)
        timer.daemon = True
        timer.start()
        try:
            connection.connect()
            connection.sock.settimeout(self._timeout_s)
            connection.request("GET", target, headers=self._headers())
            with connection.getresponse() as answer:
                body = answer.read(self._max_bytes + 1)
                cut = bool(answer.length)
        finally:
            timer.cancel()
            connection.close()
        if call.expired.is_set():
            raise TimeoutError
        if len(body) <= self._max_bytes and answer.headers.get("Content-Encoding") == "gzip":
            unpacker = zlib.decompressobj(wbits=31)
            body = unpacker.decompress(body, self._max_bytes + 1)
            cut = cut or not (unpacker.eof or len(body) > self._max_bytes)
        if len(body) > self._max_bytes:
            raise self._error("too_large", f"answers with more than {self._max_bytes / 2**20:g} MiB, which is refused")
        if cut:
            raise self._error("failed", "sent an answer that is cut short")
        return answer, body

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "gzip", "User-Agent": _OURS, "Connection": "close"}
        if self._user is not None:
            pair = base64.b64encode(f"{self._user}:{self._password or ''}".encode()).decode()
            headers["Authorization"] = f"Basic {pair}"
        return headers

    def _error(self, kind: Kind, text: str, status: int | None = None) -> RemoteError:
        return RemoteError(kind, f"{self.address} {text}", status)

    def _explain(self, error: Exception, *, late: bool) -> RemoteError:
        """Return what a failure to get an answer means."""
        if late or isinstance(error, TimeoutError):
            return self._error("timeout", f"does not answer within {self._timeout_s:g} s")
        if isinstance(error, socket.gaierror):
            said = f"cannot be reached: no such host as {self.address.host!r}: {error.strerror or error}"
            return self._error("unknown_host", said)
        if isinstance(error, ssl.SSLError):
            return self._error("tls", _tls_problem(error))
        if isinstance(error, ConnectionRefusedError):
            return self._error("refused", "refuses connections: nothing listens there; is the port right?")
        if isinstance(error, (http.client.HTTPException, ConnectionResetError)):
            if self.address.tls and isinstance(error, ConnectionResetError) and self._tls.cert_file is None:
                return self._error("tls", "ends the connection: if it asks for a client's certificate, give --cert")
            hint = "" if self.address.tls else "; if it speaks TLS, write https://"
            return self._error("not_an_exporter", f"does not answer in HTTP ({type(error).__name__}){hint}")
        if isinstance(error, OSError):
            named = f"{error.filename}: " if error.filename else ""
            return self._error("unreachable", f"cannot be reached: {named}{error.strerror or error}")
        return self._error("failed", f"sent an answer that cannot be read: {error}"[:_MAX_REASON])

    def _refusal(self, path: str, answer: http.client.HTTPResponse, body: bytes) -> RemoteError:
        """Return what an answer other than 200 means, with the exporter's own reason."""
        status = answer.status
        ours = answer.headers.get("Server") == _OURS
        is_text = (answer.headers.get("Content-Type") or "").startswith("text/plain")
        said = " ".join(body.decode(errors="replace").split())[:_MAX_REASON] if is_text else ""
        reason = said if said and said.lower() != (answer.reason or "").lower() else ""
        if status == HTTPStatus.UNAUTHORIZED:
            if self._user is None:
                return self._error("unauthorized", "asks for a user name and a password (401): give --user", status)
            return self._error("unauthorized", "refuses this user name and password (401)", status)
        if status == HTTPStatus.FORBIDDEN:
            return self._error("forbidden", f"forbids {path} (403){reason and ': '}{reason}", status)
        if status == HTTPStatus.NOT_FOUND:
            why = reason or ("it is switched off there, or its version has none" if ours else "is it an exporter?")
            return self._error("not_found", f"has no {path} (404): {why}", status)
        if 300 <= status < 400:
            to = (answer.headers.get("Location") or "")[:_MAX_REASON]
            return self._error(
                "not_an_exporter", f"redirects to {to} ({status}): if that is the exporter, give it", status
            )
        return self._error("failed", f"answers {status} {answer.reason} to {path}{reason and ': '}{reason}", status)


class _Call:
    """One reading, which another thread may end."""

    def __init__(self) -> None:
        self.expired = threading.Event()
        self.sock: socket.socket | None = None

    def expire(self) -> None:
        """Make every wait for the peer end."""
        self.expired.set()
        if self.sock is not None:
            with contextlib.suppress(OSError):  # it is closed already
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)  # not TLS's own, which takes its state away


class _Connection(http.client.HTTPConnection):
    """A connection to a numeric address, with the host's name for TLS and for ``Host``."""

    def __init__(
        self, to: Address, address: str, timeout_s: float, context: ssl.SSLContext | None, call: _Call
    ) -> None:
        super().__init__(to.host, to.port, timeout=timeout_s)
        self._to = (address, to.port)
        self._context = context
        self._call = call

    def connect(self) -> None:
        self.sock: Any = socket.create_connection(self._to, self.timeout)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host, do_handshake_on_connect=False)
        self._call.sock = self.sock
        if self._call.expired.is_set():  # before there was a socket to end
            raise TimeoutError
        if self._context is not None:
            self.sock.do_handshake()


def _tls_problem(error: ssl.SSLError) -> str:
    reason = error.reason or str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"has a certificate that is not trusted ({error.verify_message}): give its authority with --ca-file"
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
        return "does not speak TLS: write http://"
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return "asks for a client's certificate: give --cert and --key"
    return f"cannot be read over TLS: {reason.replace('_', ' ').lower()}"
