"""Grafana dashboards, Prometheus rules and an Alertmanager route for what the exporter and the client emit.

The files are data: ``tq-exporter dashboards`` and ``tq-exporter rules`` write them where they are wanted. The modules
that build the dashboards need the development tools; those that the commands use need nothing beyond the exporter.
"""
