"""The data plane on TransferQueue's public API.

Importing this package is cheap. Creating an object of its classes imports ``transfer_queue``, Ray and torch.
"""

from dataplane.adapters.transfer_queue.client import TQDataPlaneClient
from dataplane.adapters.transfer_queue.reader import TransferQueueMetadataReader

__all__ = ["TQDataPlaneClient", "TransferQueueMetadataReader"]
