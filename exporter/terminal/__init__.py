"""What the exporter shows on a terminal: tables, the page of ``top``, groups, findings, and one-line states."""
