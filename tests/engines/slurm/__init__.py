"""The documented batch script on a real Slurm."""
