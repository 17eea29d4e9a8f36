"""The shipped unit under a real systemd, beside a real TransferQueue."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from exporter.demo.stack import free_port
from tests.engines.containers.conftest import publishing
from tests.engines.containers.podman import Podman
from tests.engines.containers.systemd import Machine
from tests.support.cluster import TQCluster

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
    said = machine.sh("systemd-analyze security --no-pager tq-exporter | tail -1")
    exposure = re.search(r"tq-exporter\.service: ([\d.]+)", said)
    assert exposure is not None, said
    record_property("systemd's exposure of the unit", exposure[1])
    assert float(exposure[1]) <= 1.5
