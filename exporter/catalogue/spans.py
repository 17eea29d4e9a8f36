"""Names of the exporter's own spans and of what they carry."""

from __future__ import annotations

from typing import Final

__all__ = ["NOTABLE", "POLL"]

POLL: Final = "tq_exporter.poll"
"""The span of one poll of a source: the root of a trace. Below it is a span for each call to the data plane."""

NOTABLE: Final = "tq_exporter.notable"
"""The attribute of a poll's span that says why the poll is worth a look: ``failed``, ``slow`` or ``changed``."""
