"""The engines, and the image that they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engines.containers.base_image import PYTHON_IMAGE, make_tree
from tests.engines.containers.docker import Docker, build_arguments
from tests.engines.containers.podman import Podman
from tests.engines.machine import require
from tests.support.cluster import TQCluster

IMAGE = "registry.example/tq-exporter:0.1.0"


@pytest.fixture(scope="session")
def base_tree() -> Path:
    """A Debian with Python, the stand-in for the base of the images, and with systemd, as a tar archive."""
    require("mmdebstrap")
    return make_tree("debian", "python3", "python3-venv", "python3-pip", "curl", "dbus", "systemd", "systemd-sysv")


@pytest.fixture(scope="session")
def docker(folder: Path, base_tree: Path) -> Iterator[Docker]:
    """A Docker that has the image with Python."""
    require("dockerd", "docker", "runc", "setpriv")
    with Docker.started(folder / "docker") as docker:
        path = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        docker("import", "--change", path, "--change", 'CMD ["python3"]', str(base_tree), PYTHON_IMAGE)
        yield docker


@pytest.fixture(scope="session")
def image(docker: Docker) -> str:
    """The image ``exporter``, built with BuildKit."""
    docker("build", *build_arguments("exporter", IMAGE), env={"DOCKER_BUILDKIT": "1"})
    return IMAGE


@pytest.fixture(scope="session")
def podman(folder: Path) -> Iterator[Podman]:
    """An empty podman."""
    require("podman", "runc")
    with Podman.made(folder / "podman") as podman:
        yield podman


@contextmanager
def publishing(cluster: TQCluster, path: Path) -> Iterator[Path]:
    """Put 4 rows into ``train``, and keep the cluster's discovery record at *path* up to date."""
    cluster.put("train", [f"g{number}_g0" for number in range(4)], tags=[{"weight_version": 1}] * 4)
    cluster.run("import dataplane\ntq.publisher = dataplane.publish_endpoint(path, interval_s=0.2)", path=str(path))
    try:
        yield path
    finally:
        cluster.run("tq.publisher.close()")


@pytest.fixture
def record(cluster: TQCluster, tmp_path: Path) -> Iterator[Path]:
    """The discovery record of a real TransferQueue, in a folder that any user may read."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "discovery"
    folder.mkdir(mode=0o755)
    with publishing(cluster, folder / "endpoint.json") as path:
        yield path
