"""Grafana dashboards, Prometheus rules and an Alertmanager route for what the exporter and the client emit.

The files are data; ``tq-exporter dashboards`` and ``tq-exporter rules`` copy them to a folder. The modules build the
dashboards; they need the development tools and are not installed.
"""
