"""In front of psutil where memory is measured: the wheel does not bring it, and OpenTelemetry's SDK loads it, 1 MB."""

raise ImportError("not installed with the wheel")
