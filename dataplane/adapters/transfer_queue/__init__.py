"""The data plane on TransferQueue's public API.

Importing this package is cheap. Creating an object of its classes imports ``transfer_queue``, Ray and torch.
"""

from dataplane.adapters.transfer_queue.client import TransferQueueDataPlaneClient
from dataplane.adapters.transfer_queue.reader import TransferQueueMetadataReader

__all__ = ["TransferQueueDataPlaneClient", "TransferQueueMetadataReader"]
