"""Tests with real container engines, Slurm and systemd. They need root: ``make engines``, not ``make test``."""
