"""What the exporter tells the world: metrics by pull and push from one model, and traces of its own work."""

from exporter.telemetry.instruments import Recorder
from exporter.telemetry.pipeline import Telemetry, check_environment

__all__ = ["Recorder", "Telemetry", "check_environment"]
