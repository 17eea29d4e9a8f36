"""Host names, resolved within a deadline."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from typing import Any, Final

__all__ = ["Resolver"]

_KEPT_S: Final = 10.0


class Resolver:
    """Turns a host into a numeric address. Thread-safe.

    The system's resolver cannot be interrupted and may take half a minute when no name server answers. So it runs on a
    thread of its own, and a caller waits within its own deadline. There is at most one such thread at a time; it ends
    when the system gives up.

    Args:
        host: A host name, or an IPv4 or IPv6 address, which needs no look-up and no thread.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self._lock = threading.Lock()
        self._look_up: _LookUp | None = None
        # A name means an IPv4 address, as in ZMQ.
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._numeric = _numeric(host, self._family)

    def resolve(self, wait_s: float) -> str | None:
        """Return the numeric address, None when it is not known within *wait_s* seconds: then try again.

        Raises:
            OSError: There is no such host, or the system's resolver failed.
        """
        if self._numeric is not None:
            return self._numeric
        with self._lock:
            look_up = self._look_up
            if look_up is None or look_up.is_old():
                look_up = self._look_up = _LookUp(self.host, self._family)
        if not look_up.done.wait(max(wait_s, 0.0)):
            return None
        with self._lock:
            if self._look_up is look_up:
                self._look_up = None  # the next caller needs a fresh answer
        if look_up.error is not None:
            raise look_up.error
        return look_up.address


class _LookUp:
    """One call of the system's resolver, on a thread of its own."""

    def __init__(self, host: str, family: socket.AddressFamily) -> None:
        self.address: str | None = None
        self.error: OSError | None = None
        self.done = threading.Event()
        self._host = host
        self._family = family
        self._ended_at: float | None = None
        threading.Thread(target=self._run, name="dataplane-resolver", daemon=True).start()

    def is_old(self) -> bool:
        """Return whether the answer is too old to use, since no caller waited for it."""
        return self._ended_at is not None and time.monotonic() - self._ended_at > _KEPT_S

    def _run(self) -> None:
        try:
            self.address = _address(socket.getaddrinfo(self._host, None, self._family, socket.SOCK_STREAM))
        except UnicodeError as error:  # an invalid label
            self.error = socket.gaierror(socket.EAI_NONAME, f"no valid host name: {error}")
        except OSError as error:
            self.error = error
        finally:
            self._ended_at = time.monotonic()
            self.done.set()


def _numeric(host: str, family: socket.AddressFamily) -> str | None:
    try:
        return _address(socket.getaddrinfo(host, None, family, socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    except (OSError, UnicodeError):
        return None


def _address(found: Sequence[tuple[Any, ...]]) -> str:
    """Return the first address, an IPv6 one with its zone (``fe80::1%eth0``)."""
    target = found[0][-1]
    return socket.getnameinfo(target, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
