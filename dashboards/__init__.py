"""Grafana dashboards, Prometheus rules and an Alertmanager route for what the exporter and the client emit.

The files are data: ``tq-exporter dashboards`` and ``tq-exporter rules`` write them to a folder. The modules here build
the dashboards and need the development tools.
"""
