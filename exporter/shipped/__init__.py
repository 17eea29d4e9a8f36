"""Dashboards, Prometheus rules and an Alertmanager route, for the commands that write them.

The files are those of ``dashboards/``; the links in this folder put them into the wheel.
"""
