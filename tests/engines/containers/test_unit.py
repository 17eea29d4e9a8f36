"""The shipped unit under a real systemd, beside a real TransferQueue."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.demo.stack import free_port
from tests.engines.containers.conftest import publishing
from tests.engines.containers.podman import Podman
from tests.engines.containers.systemd import Machine
from tests.engines.machine import ROOT
from tests.support.cluster import TQCluster

_TRAINING = Path(__file__).with_name("training.py")
_ON_A_NODE = "[Service]\nDynamicUser=no\nUser=ray\nPrivateTmp=no\nReadWritePaths=/tmp\n"
"""What docs/deploy.md adds to the unit on a node of Ray."""
_SEES = r"""curl -fs http://127.0.0.1:{port}/metrics | grep -q '^dataplane_partition_keys{{partition="train"}} 4'"""


@pytest.fixture(scope="module")
def discovery(folder: Path) -> Path:
    """The folder that the machine sees as ``/discovery``."""
    path = folder / "unit"
    path.mkdir()
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def machine(podman: Podman, base_tree: Path, discovery: Path) -> Iterator[Machine]:
    with Machine.booted(podman, base_tree, discovery) as machine:
        yield machine


def exposure_of(machine: Machine) -> float:
    """Return how exposed systemd finds the unit, from 0 to 10."""
    said = machine.sh("systemd-analyze security --no-pager tq-exporter | tail -1")
    found = re.search(r"tq-exporter\.service: ([\d.]+)", said)
    assert found is not None, said
    return float(found[1])


def configure(machine: Machine, discovery: str) -> int:
    """Write the configuration and start the unit anew; return the port."""
    port = free_port()
    machine.write("/etc/tq-exporter/exporter.yaml", f"listen: 127.0.0.1:{port}\ndiscovery: {{{discovery}}}\n")
    machine.sh("systemctl reset-failed tq-exporter || true; systemctl restart tq-exporter || true")
    return port


def test_a_wrong_configuration_is_not_tried_again(machine: Machine) -> None:
    configure(machine, "controler: 'tcp://127.0.0.1:1'")
    machine.wait_for("systemctl is-failed tq-exporter")
    assert (machine.show("ExecMainStatus"), machine.show("NRestarts")) == ("2", "0")
    assert "controler" in machine.sh("journalctl --no-pager --unit tq-exporter")


def test_it_reads_a_transfer_queue_by_file_without_any_right(
    machine: Machine, cluster: TQCluster, discovery: Path, record_property: Callable[[str, object], None]
) -> None:
    with publishing(cluster, discovery / "endpoint.json"):
        port = configure(machine, "file: /discovery/endpoint.json")
        machine.wait_for(_SEES.format(port=port))
        status = machine.sh(f"cat /proc/{machine.show('MainPID')}/status")
        fields = dict(line.split(":", 1) for line in status.splitlines())
        assert "0" not in fields["Uid"].split()
        assert fields["CapBnd"].strip().strip("0") == ""
        machine.sh(f"kill -KILL {machine.show('MainPID')}")
        machine.wait_for("[ $(systemctl show --property NRestarts --value tq-exporter) = 1 ]")
        machine.wait_for(_SEES.format(port=port))
        machine.sh("systemctl stop tq-exporter")
        assert machine.show("Result") == "success"
    exposure = exposure_of(machine)
    record_property("systemd's exposure of the unit", exposure)
    assert exposure <= 1.5


def test_it_finds_a_transfer_queue_through_ray(
    machine: Machine, record_property: Callable[[str, object], None]
) -> None:
    documented = (ROOT / "docs" / "deploy.md").read_text()
    assert all(f"    {line}\n" in documented for line in _ON_A_NODE.splitlines())
    machine.sh("useradd --system ray")
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    settings = {**token, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "HOME": "/tmp"}
    machine.write("/etc/tq-exporter/environment", "".join(f"{name}={value}\n" for name, value in token.items()))
    machine.write("/run/training.environment", "".join(f"{name}={value}\n" for name, value in settings.items()))
    # On a busy machine Ray's own patience with its start may be too short.
    properties = "User=ray", "EnvironmentFile=/run/training.environment", "Restart=on-failure"
    options = " ".join(f"--property {name}" for name in properties)
    machine.sh(f"systemd-run --unit training {options} {sys.executable} {_TRAINING} /tmp/address")
    try:
        machine.wait_for("[ -s /tmp/address ]", 240)
        machine.write("/etc/systemd/system/tq-exporter.service.d/override.conf", _ON_A_NODE)
        port = configure(machine, f"ray_address: '{machine.sh('cat /tmp/address')}'")
        machine.wait_for(_SEES.format(port=port))
        user = machine.sh(f"stat --format %U /proc/{machine.show('MainPID')}").strip()
        assert user == "ray"
        machine.sh("systemctl stop tq-exporter")
        record_property("systemd's exposure of the unit beside Ray", exposure_of(machine))
    finally:
        machine.sh("systemctl stop training")
