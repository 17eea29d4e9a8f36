"""Addresses of samples, as they travel from one call to the next."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["KVBatchMeta"]


@dataclass
class KVBatchMeta:
    """Addresses of a batch of samples and what is known of them without reading a tensor.

    Attributes:
        partition_id: The partition that holds the samples.
        task_name: The consumer task that the batch was claimed for, None for a direct read or write.
        sample_ids: One key per sample.
        fields: Names of the fields that the samples have, None when unknown.
        sequence_lengths: Tokens per sample, aligned with ``sample_ids``, None when unknown.
        extra_info: Anything else that travels with the batch.
        tags: One tag per sample, aligned with ``sample_ids``, None when unknown.

    Raises:
        ValueError: ``tags`` or ``sequence_lengths`` and ``sample_ids`` differ in length.
    """

    partition_id: str
    task_name: str | None
    sample_ids: list[str]
    fields: list[str] | None = None
    sequence_lengths: list[int] | None = None
    extra_info: dict[str, Any] = field(default_factory=dict)
    tags: list[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        for name, column in (("tags", self.tags), ("sequence_lengths", self.sequence_lengths)):
            if column is not None and len(column) != len(self.sample_ids):
                raise ValueError(
                    f"KVBatchMeta: {len(column)} {name} do not align 1:1 with {len(self.sample_ids)} sample_ids"
                )

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.sample_ids)

    def subset(self, indices: Sequence[int]) -> KVBatchMeta:
        """Return the samples at *indices*, in that order. Its tags are copies, as in every batch made from others."""
        lengths, tags = self.sequence_lengths, self.tags
        return replace(
            self,
            sample_ids=[self.sample_ids[i] for i in indices],
            sequence_lengths=None if lengths is None else [lengths[i] for i in indices],
            extra_info=dict(self.extra_info),
            tags=None if tags is None else [dict(tags[i]) for i in indices],
        )

    def slice(self, start: int, stop: int) -> KVBatchMeta:
        """Return the samples of the half-open range ``[start, stop)``, cut to the batch as lists are."""
        return self.subset(range(*slice(start, stop).indices(self.size)))

    def concat(self, *others: KVBatchMeta) -> KVBatchMeta:
        """Return this batch followed by *others*.

        A column (tags, sequence lengths) that one of the batches lacks is dropped, and only fields that all
        of them have are kept.

        Raises:
            ValueError: The batches lie in different partitions.
        """
        batches = (self, *others)
        partitions = {batch.partition_id for batch in batches}
        if len(partitions) > 1:
            raise ValueError(f"KVBatchMeta.concat: the partition_ids must match, not be {sorted(partitions)}")
        lengths: list[int] | None = []
        tags: list[dict[str, Any]] | None = []
        for batch in batches:
            lengths = None if lengths is None or batch.sequence_lengths is None else lengths + batch.sequence_lengths
            tags = None if tags is None or batch.tags is None else tags + [dict(tag) for tag in batch.tags]
        fields = self.fields
        for batch in others:
            other = batch.fields
            fields = None if fields is None or other is None else [name for name in fields if name in other]
        return replace(
            self,
            sample_ids=[key for batch in batches for key in batch.sample_ids],
            fields=fields,
            sequence_lengths=lengths,
            extra_info=dict(self.extra_info),
            tags=tags,
        )

    def drop(self, indices: Sequence[int]) -> KVBatchMeta | None:
        """Return the samples that are not at *indices*, or None when none is left."""
        dropped = {index + self.size if index < 0 else index for index in indices}
        kept = [index for index in range(self.size) if index not in dropped]
        return self.subset(kept) if kept else None

    def with_fields(self, field_names: Sequence[str]) -> KVBatchMeta:
        """Return a copy whose ``fields`` also name *field_names*, each once, in order."""
        copy = self.subset(range(self.size))
        copy.fields = list(dict.fromkeys([*(self.fields or []), *field_names]))
        return copy

    def stamp_tags(self, scalars: Mapping[str, Collection[Any]]) -> None:
        """Write one value per sample into each sample's tag, in place.

        Args:
            scalars: Tag name to a column of ``size`` values (list, array or tensor). Those of arrays and tensors
                become Python's own, which every reader of the tags understands.

        Raises:
            ValueError: A column has another length; no tag is changed then.
        """
        for name, values in scalars.items():
            if len(values) != self.size:
                raise ValueError(f"stamp_tags: {len(values)} values of {name!r} for {self.size} samples")
        columns = {name: [_plain(value) for value in values] for name, values in scalars.items()}
        if self.tags is None:
            self.tags = [{} for _ in range(self.size)]
        for name, column in columns.items():
            for tag, value in zip(self.tags, column, strict=True):
                tag[name] = value


def _plain(value: Any) -> Any:
    """Return a value of NumPy or torch as Python's own, any other as it is."""
    return value.tolist() if hasattr(value, "tolist") else value
