"""Judges a data plane: every condition is defined here, once, and every output shows the result."""

from exporter.conditions.base import Limits
from exporter.conditions.judge import Judge
from exporter.conditions.registry import CONDITIONS

__all__ = ["CONDITIONS", "Judge", "Limits"]
