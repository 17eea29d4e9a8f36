"""Polling: the poller, its sources, and the readers that they use."""
