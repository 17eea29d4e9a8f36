"""The image as documented: user 65532, read-only, no capabilities; beside a real TransferQueue."""

from __future__ import annotations

import signal
import urllib.request
from collections.abc import Callable
from pathlib import Path

import bcrypt

from exporter.demo.stack import free_port
from tests.engines.containers.docker import LOCKED_DOWN, Docker, answers
from tests.support.certificates import Authority

QUICKLY = ("--health-interval", "1s", "--health-start-period", "1s", "--health-retries", "1")


def sees_the_rows(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return 'dataplane_partition_keys{partition="train"} 4' in answer.read().decode()


def test_it_reads_a_transfer_queue_without_any_right_and_ends_on_a_signal(
    docker: Docker, image: str, record: Path, record_property: Callable[[str, object], None]
) -> None:
    port = free_port()
    options = [*LOCKED_DOWN, *QUICKLY, "--volume", f"{record.parent}:/run/tq-exporter:ro", image]
    arguments = ["run", "--listen", f"127.0.0.1:{port}", "--discovery-file", "/run/tq-exporter/endpoint.json"]
    with docker.running(*options, *arguments) as container:
        container.wait_for(lambda: answers(port, "/readyz"), "readiness")
        container.wait_for(lambda: sees_the_rows(port), "the rows")
        container.wait_for(lambda: container.health == "healthy", "health")
        assert container.status("Uid").split() == ["65532"] * 4
        assert container.status("CapBnd").strip("0") == ""
        assert (container.status("NoNewPrivs"), container.status("Seccomp")) == ("1", "2")
        assert not docker.succeeds("exec", container.name, "touch", "/x")
        resident = int(container.status("VmRSS").split()[0]) / 1024
        record_property("resident memory in the container, MiB", round(resident))
        assert resident < 80
        docker("kill", "--signal", "USR1", container.name)
        container.wait_for(lambda: "state: " in container.log, "the line of SIGUSR1")
        docker("stop", "--time", "10", container.name)
        state = docker.inspect(container.name)["State"]
        assert (state["ExitCode"], state["OOMKilled"]) == (0, False)


def test_the_file_decides_where_it_listens_and_a_check_finds_it_there(
    docker: Docker, image: str, tmp_path: Path
) -> None:
    """With an exporter of another container on the same host network, which is well while this one hangs."""
    tmp_path.chmod(0o755)
    port, other_port = free_port(), free_port()
    (tmp_path / "exporter.yaml").write_text(
        f"listen: 127.0.0.1:{port}\ndiscovery: {{controller: 'tcp://127.0.0.1:1'}}\n"
    )
    nowhere = ("--controller", "tcp://127.0.0.1:1")
    configured = (*LOCKED_DOWN, *QUICKLY, "--volume", f"{tmp_path}:/etc/tq-exporter:ro", image)
    with (
        docker.running(*configured, "run", "--config", "/etc/tq-exporter/exporter.yaml") as container,
        docker.running(*LOCKED_DOWN, *QUICKLY, image, "run", f"--listen=127.0.0.1:{other_port}", *nowhere) as other,
    ):
        address = f"serving metrics on http://127.0.0.1:{port}/metrics"
        container.wait_for(lambda: address in container.log, "the address of the file")
        for one in (container, other):
            one.wait_for(lambda one=one: one.health == "healthy", "health")
        docker("kill", "--signal", str(int(signal.SIGSTOP)), container.name)
        container.wait_for(lambda: container.health == "unhealthy", "a verdict on the stopped exporter")
        assert other.health == "healthy"


def test_certificates_and_passwords_are_no_obstacle_to_a_check(docker: Docker, image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    Authority(tmp_path).issue("server")
    hashed = bcrypt.hashpw(b"open sesame", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(
        "tls_server_config: {cert_file: server.crt, key_file: server.key, client_ca_file: ca.pem,\n"
        f"  client_auth_type: RequireAndVerifyClientCert}}\nbasic_auth_users: {{alice: '{hashed}'}}\n"
    )
    for file in tmp_path.iterdir():
        file.chmod(0o644)
    options = (*LOCKED_DOWN, *QUICKLY, "--volume", f"{tmp_path}:/web:ro", image)
    arguments = ("run", "--listen=127.0.0.1:0", "--controller=tcp://127.0.0.1:1", "--web.config.file=/web/web.yml")
    with docker.running(*options, *arguments) as container:
        container.wait_for(lambda: "serving metrics on https://" in container.log, "the start")
        container.wait_for(lambda: container.health == "healthy", "health")
