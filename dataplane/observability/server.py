"""Where the controller is, for spans: what the client in use knows of it, without a question to anybody."""

from __future__ import annotations

import sys
from typing import Any, Final

from dataplane.semconv import SERVER_ADDRESS, SERVER_PORT

__all__ = ["server_attributes"]

_SOCKET: Final = "request_handle_socket"


def server_attributes(inner: object) -> dict[str, str | int]:
    """Return ``server.address`` and ``server.port`` of the controller that *inner* talks to; empty when unknown.

    Args:
        inner: The client that makes the call. None for TransferQueue's functions, which use the process's own client;
            so do other frameworks' clients.
    """
    client: Any = None
    if type(inner).__module__.startswith("dataplane."):
        client = getattr(getattr(inner, "_attachment", None), "client", None)
    else:
        client = getattr(sys.modules.get("transfer_queue.interface"), "_TQ_CLIENT", None)
    info = getattr(client, "_controller", None)
    address: Any = getattr(info, "ip", None)
    port: Any = (getattr(info, "ports", None) or {}).get(_SOCKET)
    if type(address) is not str or not str(port).isdecimal():
        return {}
    return {SERVER_ADDRESS: address.strip("[]"), SERVER_PORT: int(port)}
