"""The names of OpenTelemetry's semantic conventions that are emitted here, and the schema that they belong to.

The messaging conventions are not stable yet, so their names are in a package whose path says so and may change. It is
imported here and nowhere else; the tests hold the names themselves.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.semconv._incubating.attributes.messaging_attributes import (
    MESSAGING_BATCH_MESSAGE_COUNT,
    MESSAGING_DESTINATION_NAME,
    MESSAGING_OPERATION_NAME,
    MESSAGING_OPERATION_TYPE,
    MESSAGING_SYSTEM,
)
from opentelemetry.semconv._incubating.metrics.messaging_metrics import MESSAGING_CLIENT_OPERATION_DURATION
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.server_attributes import SERVER_ADDRESS, SERVER_PORT
from opentelemetry.semconv.schemas import Schemas

__all__ = [
    "ERROR_TYPE",
    "MESSAGING_BATCH_MESSAGE_COUNT",
    "MESSAGING_CLIENT_OPERATION_DURATION",
    "MESSAGING_DESTINATION_NAME",
    "MESSAGING_OPERATION_NAME",
    "MESSAGING_OPERATION_TYPE",
    "MESSAGING_SYSTEM",
    "SCHEMA_URL",
    "SERVER_ADDRESS",
    "SERVER_PORT",
    "TRANSFER_QUEUE",
]

SCHEMA_URL: Final = Schemas.V1_40_0.value
"""The version of the conventions that the names and their meanings were taken from: the schema URL of every scope."""

TRANSFER_QUEUE: Final = "transfer_queue"
"""The value of ``messaging.system``."""
