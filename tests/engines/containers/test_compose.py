"""docker-compose.yaml with a real Prometheus and a real Alertmanager, in images made here from Debian's packages.

Docker runs in a network namespace of its own, where the ports of the file are free. There is no image of Grafana here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engines.containers.base_image import PYTHON_IMAGE
from tests.engines.containers.docker import Docker
from tests.engines.machine import ROOT, require, run
from tests.support.waiting import wait_until

_SERVICES = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
_ASK = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
_IMAGE = """
FROM {base}
COPY {program} /bin/{name}
# Debian's builds have some of their files here.
COPY share /usr/share/prometheus
# The second folder is where Debian's builds write by default.
RUN mkdir -p /{name} /var/lib/prometheus && chown -R 65534:65534 /{name} /var/lib/prometheus
USER 65534:65534
WORKDIR /{name}
ENTRYPOINT ["/bin/{name}"]
"""


@pytest.fixture(scope="module")
def isolated(docker: Docker, image: str, folder: Path) -> Iterator[Docker]:
    """A Docker whose host network is a loopback interface of its own, with the images that the file names."""
    require("docker-compose", "ip", "prometheus", "prometheus-alertmanager")
    names = {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}
    for name, program in names.items():
        context = folder / f"image-{name}"
        context.mkdir()
        found = shutil.which(program)
        assert found is not None
        shutil.copy(found, context)
        shutil.copytree("/usr/share/prometheus", context / "share")
        text = _IMAGE.format(base=PYTHON_IMAGE, program=program, name=name)
        (context / "Dockerfile").write_text(text)
        docker("build", "--network", "host", "--tag", _SERVICES[name]["image"], str(context))
    tags = [image, *(_SERVICES[name]["image"] for name in names)]
    docker("save", "--output", f"{folder}/compose.tar", *tags)
    alone = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    with Docker.started(folder / "docker2", *alone) as second:
        second("load", "--input", f"{folder}/compose.tar")
        yield second


def test_prometheus_scrapes_the_exporter_evaluates_the_rules_and_knows_the_alertmanager(
    isolated: Docker, image: str
) -> None:
    command = ("run", "--listen", "127.0.0.1:9464", "--controller", "tcp://127.0.0.1:1")
    compose = ("docker-compose", "--file", ROOT / "docker-compose.yaml", "--project-name", "tq")
    with isolated.running(image, *command) as exporter:

        def ask(address: str) -> Any:
            return json.loads(isolated("exec", exporter.name, "python", "-c", _ASK, f"http://127.0.0.1:{address}"))

        def answers(address: str) -> bool:
            return isolated.succeeds("exec", exporter.name, "python", "-c", _ASK, f"http://127.0.0.1:{address}")

        try:
            run(*compose, "up", "--detach", "prometheus", "alertmanager", env=isolated.env)
            try:
                wait_until(lambda: answers("9090/-/ready") and answers("9093/-/ready"), "Prometheus and Alertmanager")
            except AssertionError as error:
                raise AssertionError(f"{error}\n{run(*compose, 'logs', '--tail', '8', env=isolated.env)}") from None
            query = "9090/api/v1/query?query=dataplane_discovery_state{run='local',job='tq-exporter'}"
            wait_until(lambda: ask(query)["data"]["result"], "the first scrape")
            groups = ask("9090/api/v1/rules")["data"]["groups"]
            names = {path.name for path in (ROOT / "dashboards" / "prometheus").glob("*.yaml")}
            assert {Path(group["file"]).name for group in groups} == names
            managers = ask("9090/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
            assert [manager["url"] for manager in managers] == ["http://127.0.0.1:9093/api/v2/alerts"]
            assert ask("9093/api/v2/status")["config"]["original"]
        finally:
            run(*compose, "down", env=isolated.env)
