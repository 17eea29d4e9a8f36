"""How a metric is declared, and the metrics that the instrumented client emits.

The exporter's catalogue (:mod:`exporter.catalogue.metrics`) adds the exporter's. No metric is declared elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from dataplane.errors import ERROR_TYPES, OTHER_ERROR_TYPE
from dataplane.labels import LAG_BOUNDS
from dataplane.operations import OPERATIONS
from dataplane.semconv import (
    ERROR_TYPE,
    MESSAGING_CLIENT_OPERATION_DURATION,
    MESSAGING_DESTINATION_NAME,
    MESSAGING_OPERATION_NAME,
    MESSAGING_SYSTEM,
    TRANSFER_QUEUE,
)

__all__ = [
    "CLIENT_METRICS",
    "CLIENT_OPERATIONS",
    "CONSUMING_OPERATIONS",
    "ERROR_TYPE_VALUES",
    "Kind",
    "Metric",
]

Kind = Literal["counter", "gauge", "histogram"]

ERROR_TYPE_VALUES: Final = (*ERROR_TYPES, OTHER_ERROR_TYPE)
"""The closed value set of the attribute ``error.type``."""

CLIENT_OPERATIONS: Final = tuple(OPERATIONS)
"""The closed value set of the client's operations: the names of its public methods."""

CONSUMING_OPERATIONS: Final = tuple(
    operation.name for operation in OPERATIONS.values() if operation.effect in ("claim", "read", "clear")
)
"""The operations that use keys which somebody produced, so that they have a lag."""


@dataclass(frozen=True)
class Metric:
    """The declaration of one metric.

    Attributes:
        name: OpenTelemetry name. The Prometheus name follows from name, unit and kind.
        kind: ``counter`` (monotonic), ``gauge`` or ``histogram`` (explicit buckets).
        unit: UCUM unit; empty for gauges that are 1 or 0 by definition.
        description: For operators: what it means, and when it is absent.
        attributes: Attribute name to its closed set of values, or to None where the values come from the data
            and are bounded in another way (partition names: :data:`~dataplane.labels.MAX_PARTITIONS` and
            :data:`~dataplane.labels.OTHER_PARTITION`).
        boundaries: Upper bounds of a histogram's buckets, in ``unit``.
        source: Who emits it: ``exporter`` or ``client``.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    attributes: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    boundaries: tuple[float, ...] = ()
    source: Literal["exporter", "client"] = "exporter"


_DURATION_BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip

CLIENT_OPERATION_DURATION = Metric(
    MESSAGING_CLIENT_OPERATION_DURATION,
    "histogram",
    "s",
    "Duration of one data plane call as seen by the caller. The count of the histogram is the number of calls.",
    {
        MESSAGING_SYSTEM: (TRANSFER_QUEUE,),
        MESSAGING_OPERATION_NAME: CLIENT_OPERATIONS,
        MESSAGING_DESTINATION_NAME: None,
        ERROR_TYPE: ERROR_TYPE_VALUES,
    },
    _DURATION_BOUNDS,
    "client",
)
CLIENT_ERRORS = Metric(
    "dataplane.client.errors",
    "counter",
    "{error}",
    "Data plane calls that raised an error, by operation, partition and error type.",
    {"operation": CLIENT_OPERATIONS, "partition": None, ERROR_TYPE: ERROR_TYPE_VALUES},
    source="client",
)
CLIENT_KEYS = Metric(
    "dataplane.client.keys",
    "counter",
    "{key}",
    "Keys that successful calls wrote, read or cleared.",
    {"operation": CLIENT_OPERATIONS, "partition": None, "direction": ("read", "write", "clear")},
    source="client",
)
CLIENT_IO = Metric(
    "dataplane.client.io",
    "counter",
    "By",
    "Tensor bytes that successful calls wrote or read.",
    {"operation": CLIENT_OPERATIONS, "partition": None, "direction": ("read", "write")},
    source="client",
)
CLIENT_CONSUMED_LAG = Metric(
    "dataplane.client.consumed.lag",
    "histogram",
    "{version}",
    "Lag of the keys that were claimed, read or cleared: weight versions behind the trainer. For cleared keys the "
    "trainer's version is the one at their last read, claim or listing. One sample per version and call.",
    {"operation": CONSUMING_OPERATIONS, "partition": None},
    LAG_BOUNDS,
    "client",
)

CLIENT_LINEAGE_MISSES = Metric(
    "dataplane.client.lineage.misses",
    "counter",
    "{key}",
    "Keys whose producer and weight version are unknown to this process. They have no span link and no lag.",
    {"operation": CONSUMING_OPERATIONS, "partition": None},
    source="client",
)
CLIENT_OBSERVER_FAILURES = Metric(
    "dataplane.client.observer.failures",
    "counter",
    "{failure}",
    "Failures of the telemetry itself (an event callback, an SDK). They never affect the observed calls.",
    source="client",
)

CLIENT_METRICS: Final = (
    CLIENT_OPERATION_DURATION,
    CLIENT_ERRORS,
    CLIENT_KEYS,
    CLIENT_IO,
    CLIENT_CONSUMED_LAG,
    CLIENT_LINEAGE_MISSES,
    CLIENT_OBSERVER_FAILURES,
)
