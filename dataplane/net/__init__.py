"""The network below the adapters: resolving host names and probing connections, each within a deadline."""
