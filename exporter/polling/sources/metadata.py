"""What lies in the partitions?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from opentelemetry.trace import Tracer

from dataplane.errors import DataPlaneError, DataPlaneTimeout, DataPlaneUnavailable, error_type
from dataplane.groups import DataPlaneGroupMeta
from dataplane.interfaces import PUBLISHED_VERSION_KEY, RESERVED_PARTITION, MetadataReader
from exporter.clock import Clock
from exporter.model.results import MetadataPoll, PartitionFailure, PartitionListing, Result
from exporter.polling.sources.base import call_span, exceeded, poll

__all__ = ["MetadataSource"]


class MetadataSource:
    """Lists the partitions and their groups.

    Args:
        reader: The reader to ask; its optional attribute ``controller_seconds`` counts the time that the
            controller spent on it. Without it, the time of whole calls stands in: an upper bound.
        held: Returns the partitions that must not be listed now.
        tracer: Makes the spans.
        clock: Measures durations.
    """

    def __init__(
        self, reader: MetadataReader, *, held: Callable[[], Collection[str]], tracer: Tracer, clock: Clock
    ) -> None:
        self._reader = reader
        self._held = held
        self._tracer = tracer
        self._clock = clock

    def poll(self) -> Result[MetadataPoll]:
        """Ask once. Raises nothing; the first call that passes the reader's deadline ends the round."""
        return poll("metadata", "list_partitions", self._round, tracer=self._tracer, clock=self._clock)

    def _round(self) -> MetadataPoll:
        started = self._controller_seconds()
        with call_span(self._tracer, "list_partitions"):
            names = self._reader.list_partitions()
        held = self._held()
        listings: list[PartitionListing] = []
        failures: list[PartitionFailure] = []
        published: int | None = None
        for partition in names:
            if partition in held:
                continue
            before, before_mono = self._controller_seconds(), self._clock.monotonic()
            try:
                groups = self._list(partition)
            except DataPlaneUnavailable:
                raise
            except DataPlaneError as error:
                waited = self._clock.monotonic() - before_mono
                failures.append(PartitionFailure(partition, error_type(error), str(error), waited, exceeded(error)))
                if isinstance(error, DataPlaneTimeout):
                    break  # the controller is in trouble, or busy with this: asking on would only add to it
                continue
            if partition == RESERVED_PARTITION:
                published = _published_version(groups)
            else:
                listings.append(PartitionListing(partition, groups, self._controller_seconds() - before))
        return MetadataPoll(
            tuple(name for name in names if name != RESERVED_PARTITION),
            tuple(listings),
            tuple(failures),
            published,
            max(self._controller_seconds() - started, sum(failure.controller_s for failure in failures)),
            getattr(self._reader, "last_sender_id", None),
        )

    def _list(self, partition: str) -> list[DataPlaneGroupMeta]:
        with call_span(self._tracer, "list_metadata", partition):
            return self._reader.list_metadata(partition)

    def _controller_seconds(self) -> float:
        seconds = getattr(self._reader, "controller_seconds", None)
        return self._clock.monotonic() if seconds is None else seconds


def _published_version(groups: Sequence[DataPlaneGroupMeta]) -> int | None:
    return next((group.weight_version for group in groups if PUBLISHED_VERSION_KEY in group.keys), None)
