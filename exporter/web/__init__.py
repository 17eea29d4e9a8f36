"""The HTTP server: metrics, the live page, the JSON API, health and service discovery.

No request causes I/O to TransferQueue.
"""

from exporter.web.guard import Guard
from exporter.web.limits import MAX_CONNECTIONS
from exporter.web.server import ListenError, WebServer

__all__ = ["MAX_CONNECTIONS", "Guard", "ListenError", "WebServer"]
