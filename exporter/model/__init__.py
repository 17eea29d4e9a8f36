"""The state that the polls' results add up to, and the snapshot made from it. No threads of its own, no I/O.

The poller serialises the calls. Other threads read snapshots, which never change, and :mod:`.history`, which has a
lock.
"""
