"""Clients and readers of a data plane: in memory, on TransferQueue's public API, and on its own protocol."""
