"""The label under which each partition is counted. Bounded, whatever a job calls its partitions."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from dataplane.labels import OTHER_PARTITION, label_bytes
from dataplane.partitions import ByName, bounded_label, families
from exporter.config.model import Partition

__all__ = ["Labels"]

_MAX_FAMILIES: Final = 10_000
_BYTES_PER_LABEL: Final = 64
"""On average. A partition has up to 90 series, so that its label counts 90 times on a scrape."""


class Labels:
    """Gives partitions their labels. A partition keeps its label while it exists, unless it turns out to have a family.

    In order: the label that is configured; the name of a partition that the configuration names; the family
    (``train_*``) of names that differ in one number, once two of them were seen; the name itself; past the limits of
    their number and their bytes :data:`~dataplane.labels.OTHER_PARTITION`.

    Args:
        settings: Settings by partition name.
        max_partitions: How many labels there may be beside ``other``.
    """

    def __init__(self, settings: ByName[Partition], max_partitions: int) -> None:
        self._settings = settings
        self._max_partitions = max_partitions
        self._labels: dict[str, str] = {}  # of the partitions that exist, as are the next
        self._known: dict[str, str | tuple[str, ...]] = {}  # what each name says, read once
        self._first: dict[str, str] = {}  # family to the first partition that was seen of it
        self._shared: dict[str, None] = {}  # families of which two were seen

    def __getitem__(self, partition: str) -> str:
        """Return the label of a partition that exists."""
        return self._labels[partition]

    def assign(self, partitions: Iterable[str], in_use: Collection[str]) -> dict[str, str]:
        """Give all *partitions*, which are all that exist, their labels.

        Args:
            partitions: Their names.
            in_use: The labels that have counters.

        Returns:
            Labels that have become part of another one, by the old label.
        """
        known, self._known = self._known, {}
        for name in partitions:
            read = self._known[name] = known[name] if name in known else self._read(name)
            self._note(name, read)  # the first of a family is one only once the second was seen
        before, self._labels = self._labels, {}
        merged: dict[str, str] = {}
        used = set(in_use)
        for name, read in self._known.items():
            old, label = before.get(name), self._wanted(name, read)
            if old == OTHER_PARTITION or (old is None and label not in used and self._is_full(used, label)):
                label = OTHER_PARTITION
            elif old is not None and old != label:
                merged[old] = label
            used.add(label)
            self._labels[name] = label
        current = set(self._labels.values())
        for label in used - current - merged.keys():  # counters of partitions that are gone
            family = self._wanted(label, self._read(label))
            if family != label and family in current:
                merged[label] = family
        return merged

    def _is_full(self, used: Collection[str], label: str) -> bool:
        if len(used) - (OTHER_PARTITION in used) >= self._max_partitions:
            return True
        return sum(map(label_bytes, used)) + label_bytes(label) > max(_BYTES_PER_LABEL * self._max_partitions, 512)

    def _read(self, name: str) -> str | tuple[str, ...]:
        """Return the label that the configuration gives *name*, else its families."""
        settings = self._settings.get(name)
        if settings is not None and settings.label is not None:
            return bounded_label(settings.label)
        return bounded_label(name) if self._settings.names(name) else tuple(families(name))

    def _note(self, name: str, read: str | tuple[str, ...]) -> None:
        """Note *name* as a member of its families."""
        for family in () if isinstance(read, str) else read:
            if self._first.setdefault(family, name) != name:
                self._shared[family] = None
        for memory in (self._first, self._shared):
            while len(memory) > _MAX_FAMILIES:
                del memory[next(iter(memory))]

    def _wanted(self, name: str, read: str | tuple[str, ...]) -> str:
        if isinstance(read, str):
            return read
        return bounded_label(next((family for family in read if family in self._shared), name))
