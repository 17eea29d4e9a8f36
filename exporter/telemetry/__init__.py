"""Metrics, the same by pull and by push, and traces of the exporter's own polls."""

from exporter.telemetry.instruments import InstrumentRecorder
from exporter.telemetry.pipeline import Telemetry, check_environment

__all__ = ["InstrumentRecorder", "Telemetry", "check_environment"]
