"""The Dockerfile, built by each builder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.engines.containers.base_image import PYTHON_IMAGE
from tests.engines.containers.docker import Docker, build_arguments, commit
from tests.engines.containers.podman import Podman

_LEFT_OUT = """
import importlib.util, os
for name in ("ray", "torch", "transfer_queue", "tensordict", "numpy", "pip", "setuptools"):
    assert importlib.util.find_spec(name) is None, name
assert (os.getuid(), os.getgid()) == (65532, 65532)
"""


def test_buildkit_makes_an_image_that_knows_its_commit_and_has_no_more_than_it_needs(
    docker: Docker, image: str, record_property: Callable[[str, object], None]
) -> None:
    assert f"(commit {commit()}, " in docker("run", "--rm", "--network", "none", image, "--version")
    described = docker.inspect(image)
    assert described["Config"]["Labels"]["org.opencontainers.image.revision"] == commit()
    assert not [variable for variable in described["Config"]["Env"] if variable.startswith("TQ_EXPORTER_")]
    docker("run", "--rm", "--network", "none", "--entrypoint", "python", image, "-c", _LEFT_OUT)
    own = (described["Size"] - docker.inspect(PYTHON_IMAGE)["Size"]) / 1e6
    record_property("size of the image beyond its base, MB", round(own))
    assert own < 65


def test_the_default_is_the_image_without_ray(docker: Docker, image: str) -> None:
    options = build_arguments("default", "default")
    docker("build", *options, env={"DOCKER_BUILDKIT": "1"})
    assert docker.inspect("default")["RootFS"] == docker.inspect(image)["RootFS"]


def test_the_classic_builder_builds_the_image_and_the_one_on_a_training_image(docker: Docker) -> None:
    for target in ("exporter", "on-training"):
        docker("build", *build_arguments(target, f"classic-{target}"), env={"DOCKER_BUILDKIT": "0"})
        said = docker("run", "--rm", "--network", "none", "--read-only", f"classic-{target}", "--version")
        assert f"(commit {commit()}, " in said
    assert docker.inspect("classic-on-training")["Config"]["User"] == "65532:65532"


def test_podman_builds_it(podman: Podman, base_tree: Path) -> None:
    podman("import", "--quiet", base_tree, f"localhost/{PYTHON_IMAGE}")
    podman("build", "--quiet", *build_arguments("exporter", "localhost/built"), timeout_s=800)
    assert f"(commit {commit()}, " in podman("run", "--rm", "--network", "none", "localhost/built", "--version")
