"""Renders what the storage units report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.catalogue import metrics as catalogue
from exporter.model.snapshot import Snapshot, StorageState

if TYPE_CHECKING:  # render imports this module
    from exporter.telemetry.render import Sheet

__all__ = ["render_storage"]


def render_storage(sheet: Sheet, snapshot: Snapshot) -> None:
    """Add the points of the storage units. One that did not answer has no figures."""
    sheet.add(catalogue.STORAGE_KEYS_UNLISTED, snapshot.unlisted_keys)
    for unit in snapshot.storage:
        _unit(sheet, unit)
    store = snapshot.store
    if store is None:
        return
    sheet.add(catalogue.STORAGE_OBJECTS, store.objects)
    sheet.add(catalogue.STORAGE_CLIENTS, store.clients)
    for metric, count in (
        (catalogue.STORAGE_EVICTED_OBJECTS, store.evicted_objects),
        (catalogue.STORAGE_EVICTED_SIZE, store.evicted_bytes),
        (catalogue.STORAGE_ALLOCATION_FAILURES, store.allocation_failures),
        (catalogue.STORAGE_LOOKUP_MISSES, store.lookup_misses),
    ):
        sheet.add(metric, count, foreign=True)


def _unit(sheet: Sheet, unit: StorageState) -> None:
    index = str(unit.index)
    sheet.add(catalogue.STORAGE_INFO, 1, storage_unit=index, unit_id=unit.unit_id)
    sheet.add(catalogue.STORAGE_UP, unit.up, storage_unit=index)
    for metric, value in (
        (catalogue.STORAGE_CAPACITY, unit.capacity),
        (catalogue.STORAGE_KEYS, unit.keys),
        (catalogue.STORAGE_MEMORY, unit.memory_bytes),
        (catalogue.STORAGE_MEMORY_LIMIT, unit.memory_limit_bytes),
        (catalogue.STORAGE_SSD_SIZE, unit.ssd_bytes),
        (catalogue.STORAGE_SSD_VALUES, unit.ssd_values),
        (catalogue.STORAGE_SSD_FALLBACKS, unit.ssd_fallbacks),
        (catalogue.STORAGE_ACCEPT_QUEUE_PEAK, unit.accept_queue_peak_ratio),
        (catalogue.STORAGE_SOCKET_DROPS, unit.socket_drops),
    ):
        sheet.add(metric, value, storage_unit=index)
    sheet.add(catalogue.STORAGE_UTILIZATION, unit.fill, storage_unit=index)
    for one in unit.requests:
        for metric, count in (
            (catalogue.STORAGE_REQUESTS_ARRIVED, one.arrived),
            (catalogue.STORAGE_REQUESTS_COMPLETED, one.completed),
            (catalogue.STORAGE_REQUESTS_DURATION, one.duration),
        ):
            sheet.add(metric, count, foreign=True, storage_unit=index, operation=one.operation)
