"""The images and the chart's pods, in Docker and podman."""
