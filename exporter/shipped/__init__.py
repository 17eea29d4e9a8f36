"""Dashboards, Prometheus rules and an Alertmanager route, as the commands write them.

The files are those of ``dashboards/``; the links in this folder put them into the wheel.
"""
