"""The pod of every example of the chart, played by podman beside a real TransferQueue.

Podman is no Kubernetes: it has no fsGroup, and no Service. What it does run is the container as the chart describes it.
"""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from exporter.demo.stack import free_port
from tests.engines.containers.conftest import IMAGE
from tests.engines.containers.docker import Docker
from tests.engines.containers.podman import Pod, Podman
from tests.helm.helm import CI_VALUES, Stage, install, steps
from tests.helm.test_sidecar import umbrella
from tests.support.certificates import Authority

_OURS = {"repository": IMAGE.partition(":")[0]}
# The image without Ray.
_NOWHERE = {"controller": "tcp://127.0.0.1:1"}
_COPIES = "cd /run/tq-exporter; while cp /source/endpoint.json new && mv new endpoint.json; do sleep 0.2; done"
_SEES = """
import sys, urllib.request
text = urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/metrics", timeout=10).read().decode()
sys.exit('dataplane_partition_keys{partition="train"} 4' not in text)
"""


def of(name: str, **changes: Any) -> dict[str, Any]:
    """Return the values of an example, with our image and *changes* of its configuration."""
    values = CI_VALUES[name]
    return {**values, "image": _OURS, "config": {**values["config"], **changes}}


@pytest.fixture(scope="module")
def port() -> int:
    """The port of the pods that use this machine's network, where TransferQueue listens."""
    return free_port()


@pytest.fixture(scope="module")
def stages(port: int, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Stage]:
    """The objects of every example."""
    listen = f"127.0.0.1:{port}"
    releases = {
        "default": steps("default", of("default", discovery=_NOWHERE)),
        "file": steps("file", of("file", listen=listen)),
        "full": steps("full", of("full", discovery=_NOWHERE)),
        "sidecar": steps(
            "sidecar",
            {"tq-exporter": of("sidecar", listen=listen)},
            chart=umbrella(tmp_path_factory.mktemp("umbrella")),
        ),
    }
    assert releases.keys() == CI_VALUES.keys()
    return {name: stages[0] for name, stages in zip(releases, install(*releases.values()), strict=True)}


@pytest.fixture(scope="module")
def podman_with_image(docker: Docker, podman: Podman, image: str, folder: Path) -> Podman:
    docker("save", "--output", f"{folder}/image.tar", image)
    podman("load", "--input", f"{folder}/image.tar")
    return podman


def played(stage: Stage, *further: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the objects that podman knows."""
    kinds = ("ConfigMap", "Deployment", "Pod")
    dashboards = "grafana_dashboard"
    own = [one for one in stage.objects if one["kind"] in kinds and dashboards not in one["metadata"].get("labels", {})]
    return [*further, *own]


def pod_of(item: dict[str, Any]) -> dict[str, Any]:
    """Return the specification of an object's pod, empty if it has none."""
    spec: dict[str, Any] = item.get("spec", {})
    return dict(spec.get("template", {}).get("spec", spec))


def check_rights(pod: Pod) -> None:
    assert pod.status("Uid").split() == ["65532"] * 4
    assert pod.status("CapBnd").strip("0") == ""
    assert (pod.status("NoNewPrivs"), pod.status("Seccomp")) == ("1", "2")
    assert not pod.execute("touch", "/x")
    assert pod.execute("touch", "/tmp/x")
    assert pod.inspect(".HostConfig.Memory") == str(768 * 2**20)


def check_health(pod: Pod) -> None:
    pod.wait_for(lambda: pod.execute("tq-exporter", "healthcheck", "--ready"), "readiness")
    assert pod.execute("tq-exporter", "healthcheck")


def on_this_machine(spec: dict[str, Any]) -> None:
    """Let a pod use this machine's network, where podman 4.3 takes no ports."""
    spec["hostNetwork"] = True
    for container in spec["containers"]:
        container.pop("ports", None)


def test_the_default(stages: dict[str, Stage], podman_with_image: Podman) -> None:
    with podman_with_image.playing(played(stages["default"]), "tq-exporter") as pod:
        check_health(pod)
        check_rights(pod)


def test_the_exporter_that_follows_a_file(
    stages: dict[str, Stage], podman_with_image: Podman, record: Path, port: int
) -> None:
    device = f"device={record.parent}"
    podman_with_image("volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", device, "runs")
    objects = played(stages["file"])
    on_this_machine(objects[-1]["spec"]["template"]["spec"])
    with podman_with_image.playing(objects, "tq-exporter") as pod:
        check_health(pod)
        check_rights(pod)
        pod.wait_for(lambda: pod.execute("python", "-c", _SEES, str(port)), "the rows of a real TransferQueue")


def encoded(data: dict[str, str]) -> dict[str, str]:
    """Return the data of a Secret."""
    return {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}


def test_everything_with_certificates_and_passwords(
    stages: dict[str, Stage], podman_with_image: Podman, tmp_path: Path
) -> None:
    pair = Authority(tmp_path).issue("server")
    hashed = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)).decode()
    web = (
        "tls_server_config: {cert_file: tls.crt, key_file: tls.key, client_ca_file: ca.crt,\n"
        f"  client_auth_type: RequireAndVerifyClientCert}}\nbasic_auth_users: {{alice: '{hashed}'}}\n"
    )
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "web-config.yml").write_text(web)
    for name, file in {"tls.crt": pair.cert, "tls.key": pair.key, "ca.crt": tmp_path / "ca.pem"}.items():
        shutil.copy(file, secret / name)
    for file in (tmp_path, secret, *secret.iterdir()):
        file.chmod(0o755)
    shared = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": {"SHARED": "yes"}}
    objects = played(stages["full"], shared)
    # Podman 4.3 does not decode what it mounts of a Secret.
    [volume] = [volume for volume in pod_of(objects[-1])["volumes"] if volume.pop("secret", None)]
    volume["hostPath"] = {"path": str(secret), "type": "Directory"}
    # Podman 4.3 reads variables from secrets of its own form only.
    for name, values in {"ray-auth": {"auth_token": "x"}, "otlp": {"headers": "a=b"}}.items():
        (tmp_path / name).write_text(json.dumps(encoded(values)))
        podman_with_image("secret", "create", name, tmp_path / name)
    with podman_with_image.playing(objects, "tq-exporter") as pod:
        check_health(pod)
        check_rights(pod)
        assert "serving metrics on https://[::]:9465/metrics" in pod.log
        assert podman_with_image.succeeds("healthcheck", "run", pod.name), "the liveness probe"
        assert pod.output("printenv", "SHARED", "OTEL_EXPORTER_OTLP_HEADERS").split() == ["yes", "a=b"]


def test_the_sidecar_of_a_ray_head(
    stages: dict[str, Stage], podman_with_image: Podman, record: Path, port: int
) -> None:
    """In place of the training container runs one that copies the record of a real TransferQueue."""
    objects = played(stages["sidecar"])
    [item] = [one for one in objects if one["kind"] == "Pod"]
    del item["metadata"]["annotations"]  # podman takes no checksum there
    spec = item["spec"]
    head = spec["containers"][0]
    head |= {"image": IMAGE, "command": ["sh", "-c", _COPIES], "securityContext": {"runAsUser": 0}}
    head["volumeMounts"].append({"name": "source", "mountPath": "/source"})
    spec["volumes"].append({"name": "source", "hostPath": {"path": str(record.parent), "type": "Directory"}})
    on_this_machine(spec)
    with podman_with_image.playing(objects, "tq-exporter") as pod:
        check_health(pod)
        check_rights(pod)
        pod.wait_for(lambda: pod.execute("python", "-c", _SEES, str(port)), "the rows of a real TransferQueue")
