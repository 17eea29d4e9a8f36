"""Every condition, in the order in which outputs show them: causes before what follows from them."""

from __future__ import annotations

from typing import Final

from exporter.conditions import data_plane, generation, own, queue, storage, training
from exporter.conditions.base import Rule

__all__ = ["CONDITIONS", "STUCK"]

CONDITIONS: Final[tuple[Rule, ...]] = (
    data_plane.lost,
    data_plane.unavailable,
    data_plane.timeouts,
    data_plane.unreachable,
    data_plane.starting,
    storage.unit_lost,
    storage.evicting,
    queue.metadata_failing,
    # A trainer that stopped fills the queue, and a full queue stops generation.
    training.queue_stalled,
    training.training_quiet,
    training.task_stalled,
    storage.full,
    storage.allocations_failing,
    generation.no_group_completed,
    generation.trainer_starved,
    generation.trainer_waiting,
    generation.task_starved,
    storage.unit_silent,
    queue.partition_unreadable,
    data_plane.controller_restarting,
    storage.near_capacity,
    storage.full_soon,
    storage.full_repeatedly,
    storage.unit_flapping,
    storage.leaking,
    generation.groups_given_up,
    training.version_stuck,
    training.rollouts_behind,
    training.version_stepped_back,
    training.lag_unusual,
    training.staleness_above_window,
    queue.groups_orphaned,
    generation.incomplete_orphaned,
    generation.uncommitted_leaking,
    queue.rows_malformed,
    data_plane.ping_slow,
    own.over_budget,
    generation.step_incomplete,
    training.task_behind,
    generation.arrivals_quiet,
    own.polls_stretched,
    training.flows,
)

STUCK: Final[tuple[Rule, ...]] = (
    queue.groups_orphaned,
    generation.incomplete_orphaned,
    generation.uncommitted_leaking,
)
"""The conditions about groups that no process will finish or remove."""
