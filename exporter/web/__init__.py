"""The HTTP side: metrics, health, and the snapshot as JSON. A request causes no I/O to TransferQueue."""

from exporter.web.guard import Guard
from exporter.web.limits import MAX_CONNECTIONS
from exporter.web.server import ListenError, WebServer

__all__ = ["MAX_CONNECTIONS", "Guard", "ListenError", "WebServer"]
