"""The network below the adapters: addresses, names and connections, with a deadline on each."""
