"""The terminal output of ``tq-exporter once`` and the demo."""
