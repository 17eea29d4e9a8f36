"""What ``tq-exporter once`` and the demo print."""
