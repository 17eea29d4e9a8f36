"""Metrics, the same ones by pull and push, and traces of the exporter's own work."""

from exporter.telemetry.instruments import InstrumentRecorder
from exporter.telemetry.pipeline import Telemetry, check_environment

__all__ = ["InstrumentRecorder", "Telemetry", "check_environment"]
