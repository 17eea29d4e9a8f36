"""Renders samples, tasks, and what TransferQueue's own metrics tell of the controller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.catalogue import metrics as catalogue
from exporter.model.snapshot import Snapshot

if TYPE_CHECKING:  # render imports this module
    from exporter.telemetry.render import Sheet

__all__ = ["render_tasks"]


def render_tasks(sheet: Sheet, snapshot: Snapshot) -> None:
    """Add the points of samples, tasks and the controller."""
    listed = {state.partition for state in snapshot.partitions}
    for partition in snapshot.samples:
        sheet.add(catalogue.PARTITION_SAMPLES, partition.samples, partition=partition.partition)
        if partition.partition not in listed:  # samples without keys form no groups: what a task can take are samples
            sheet.add(catalogue.PARTITION_DEPTH, partition.waiting, partition=partition.partition)
    for task in snapshot.tasks:
        sheet.add(catalogue.PARTITION_TASK_CONSUMED, task.consumed_ratio, partition=task.partition, task=task.task)
        sheet.add(catalogue.PARTITION_TASK_PRODUCED, task.produced_ratio, partition=task.partition, task=task.task)
    controller = snapshot.controller
    if controller is None:
        return
    sheet.add(catalogue.CONTROLLER_MEMORY, controller.memory_bytes)
    for one in controller.requests:
        sheet.add(catalogue.CONTROLLER_REQUESTS_ARRIVED, one.arrived, foreign=True, operation=one.operation)
        sheet.add(catalogue.CONTROLLER_REQUESTS_FAILED, one.failed, foreign=True, operation=one.operation)
        if one.duration is not None:
            metric = catalogue.CONTROLLER_REQUESTS_DURATION
            sheet.add_histogram(metric, one.duration, foreign=True, operation=one.operation)
