"""Counts what a connection has received, also one that a library owns."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

__all__ = ["ReceivedBytes"]

# tcpi_bytes_received in Linux's struct tcp_info, since Linux 4.1.
_OFFSET: Final = 128
_COUNT: Final = struct.Struct("=Q")


class ReceivedBytes:
    """The bytes that a TCP connection has received.

    Args:
        descriptor: Its file descriptor. It stays its owner's, who may close it at any time: 0 bytes are counted then.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def count(self) -> int:
        """Return the number of bytes so far; 0 where the system does not tell (it is not Linux)."""
        if sys.platform != "linux":
            return 0
        try:
            borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=self._descriptor)
        except OSError:
            return 0
        try:
            info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _OFFSET + _COUNT.size)
        except OSError:
            return 0
        finally:
            borrowed.detach()
        return _COUNT.unpack_from(info, _OFFSET)[0] if len(info) >= _OFFSET + _COUNT.size else 0
