"""The state that the polls' results add up to, and the snapshot made from it. No threads, no I/O."""
