"""The protection in force: the web configuration and the files that it names, read again when one of them changes."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from exporter.config import ConfigError
from exporter.web.tls import server_context
from exporter.web.web_config import WebConfig, read_web_config

__all__ = ["Guard", "Protection"]

logger = logging.getLogger(__name__)

_Signature = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Protection:
    """The protection that applies to one connection.

    Attributes:
        tls: The TLS context; None for plain HTTP.
        client_allowed_sans: A client's certificate must have one of these names; empty accepts any.
        users: The bcrypt hash of each user's password; empty when no login is needed.
        headers: Headers to add to every response.
    """

    tls: ssl.SSLContext | None = None
    client_allowed_sans: tuple[str, ...] = ()
    users: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


_NONE: Final = Protection()


class Guard:
    """Keeps the protection that *file* describes up to date.

    An invalid change is logged once, and the previous protection stays in force. The same goes for a change that would
    remove TLS or the passwords: a file may be empty for a moment while it is written, and that must not drop
    protection.

    Args:
        file: The web configuration; None for no protection.

    Raises:
        ConfigError: The file, or one that it names, is invalid.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._reading = threading.Lock()
        self._protection = _NONE
        self._seen: dict[Path, _Signature | None] = {}
        if file is None:
            return
        self._protection = self._load(file)
        if self._protection.users and self._protection.tls is None:
            logger.warning("%s asks for passwords without TLS: they cross the network in clear text", file)

    @property
    def has_file(self) -> bool:
        """Whether :meth:`current` reads files."""
        return self._file is not None

    def current(self) -> Protection:
        """Return the protection for a new connection. Never fails, and does not wait while another thread reads."""
        # When the files' disk hangs, one connection hangs with it; the others use the last known protection.
        if self._file is not None and self._reading.acquire(blocking=False):
            try:
                self._refresh(self._file)
            finally:
                self._reading.release()
        return self._protection

    def reload(self) -> None:
        """Read the files again, also if they seem unchanged. Never fails; waits as long as the disk does."""
        if self._file is not None:
            with self._reading:
                self._refresh(self._file, asked=True)

    def _refresh(self, file: Path, *, asked: bool = False) -> None:
        if not asked and all(_sign(path) == seen for path, seen in self._seen.items()):
            return
        try:
            fresh = self._load(file)
            for had, has, key in (
                (self._protection.tls, fresh.tls, "tls_server_config"),
                (self._protection.users, fresh.users, "basic_auth_users"),
            ):
                if had and not has:
                    raise ConfigError(f"{file}: {key}", "is gone", "restart the exporter to run without it")
        except ConfigError as error:
            logger.error("the changed web configuration is not used; the previous one stays in force: %s", error)
            return
        self._protection = fresh
        logger.info("the web configuration %s and is in force", "was read again" if asked else "has changed")

    def _load(self, file: Path) -> Protection:
        # Signed before they are read, so that a change during the read is noticed the next time.
        seen = {file: _sign(file)}
        try:
            config = read_web_config(file)
            seen |= {path: _sign(path) for path in _files_of(config)}
            return Protection(
                tls=None if config.tls is None else server_context(config.tls),
                client_allowed_sans=() if config.tls is None else config.tls.client_allowed_sans,
                users=MappingProxyType(dict(config.users)),
                headers=MappingProxyType(dict(config.headers)),
            )
        finally:
            self._seen = seen


def _files_of(config: WebConfig) -> Iterable[Path]:
    if config.tls is None:
        return ()
    files = (config.tls.cert_file, config.tls.key_file, config.tls.client_ca_file)
    return (file for file in files if file is not None)


def _sign(file: Path) -> _Signature | None:
    """Return a value that changes with *file*, also when Kubernetes replaces a link to it; None without a file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
