"""``/sd``: targets as Prometheus reads them, under the host name of the request, with TransferQueue's own port."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as replace_struct

from dataplane.discovery.record import Endpoint
from exporter.model.snapshot import Snapshot
from exporter.web.hosts import is_host
from exporter.web.service_discovery import encode_targets
from tests.support.exporter_process import ExporterProcess
from tests.support.waiting import wait_until

ENDPOINT = Endpoint("tcp://10.0.0.7:40123", controller_id="c1", metrics_endpoint="10.0.0.7:41000", run="grpo-7b")


def targets(
    endpoint: Endpoint | None = ENDPOINT,
    host: str | None = "exporter.example:9464",
    address: str = "127.0.0.1:9464",
    scheme: str = "http",
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(
        encode_targets(Snapshot(0.0, 0.0, endpoint=endpoint), host=host, address=address, scheme=scheme)
    )
    return found


def test_this_exporter_and_transfer_queues_own_metrics() -> None:
    common = {"run": "grpo-7b", "__metrics_path__": "/metrics"}
    assert targets() == [
        {
            "targets": ["exporter.example:9464"],
            "labels": {**common, "component": "tq-exporter", "__scheme__": "http"},
        },
        {
            "targets": ["10.0.0.7:41000"],
            "labels": {
                **common,
                "component": "transfer-queue",
                "__scheme__": "http",
                "__meta_tq_controller_id": "c1",
            },
        },
    ]


def test_behind_tls_only_this_exporter_is_asked_so() -> None:
    assert [one["labels"]["__scheme__"] for one in targets(scheme="https")] == ["https", "http"]


def test_a_new_controllers_port_takes_the_old_ones_place() -> None:
    moved = targets(replace_struct(ENDPOINT, metrics_endpoint="10.0.0.8:42000", controller_id="c2"))
    assert [one["targets"] for one in moved] == [["exporter.example:9464"], ["10.0.0.8:42000"]]


def test_the_master_of_mooncake_is_a_target_of_its_own() -> None:
    found = targets(replace_struct(ENDPOINT, store_metrics="10.0.0.9:9003"))[-1]
    assert (found["targets"], found["labels"]["component"]) == (["10.0.0.9:9003"], "mooncake")
    assert len(targets(replace_struct(ENDPOINT, store_metrics="x y:1"))) == len(targets(ENDPOINT))


@pytest.mark.parametrize(
    "endpoint",
    [None, replace_struct(ENDPOINT, metrics_endpoint=None), replace_struct(ENDPOINT, metrics_endpoint="x y:1")],
)
def test_without_metrics_of_its_own_there_is_one_target(endpoint: Endpoint | None) -> None:
    assert [one["targets"] for one in targets(endpoint)] == [["exporter.example:9464"]]


@pytest.mark.parametrize(
    ("host", "scheme", "target"),
    [
        ("exporter.example", "http", "exporter.example:80"),
        ("exporter.example", "https", "exporter.example:443"),
        ("[fd00::1]:9464", "http", "[fd00::1]:9464"),
        (None, "http", "127.0.0.1:9464"),
        ("", "http", "127.0.0.1:9464"),
        ("evil.example/path", "http", "127.0.0.1:9464"),
        ("user@evil.example", "http", "127.0.0.1:9464"),
        ("evil.example:99999", "http", "127.0.0.1:9464"),
        ("evil.example:0", "http", "127.0.0.1:9464"),
        ("evil.example\r\nX: y", "http", "127.0.0.1:9464"),
        ('evil"example', "http", "127.0.0.1:9464"),
        ("evil..example", "http", "127.0.0.1:9464"),
        ("a" * 300, "http", "127.0.0.1:9464"),
    ],
)
def test_the_host_header_names_this_exporter_when_it_is_one(host: str | None, scheme: str, target: str) -> None:
    assert targets(None, host=host, scheme=scheme)[0]["targets"] == [target]


@pytest.mark.parametrize("address", ["0.0.0.0:9464", "[::]:9464"])
def test_every_interface_is_no_target(address: str) -> None:
    (found,) = targets(None, host=None, address=address)[0]["targets"]
    assert is_host(found, port_needed=True)
    assert not found.startswith(("0.0.0.0", "[::]"))


def test_prometheus_reads_it_and_follows_a_replacement(tmp_path: Path) -> None:
    file = tmp_path / "endpoint.json"

    def publish(port: int) -> None:
        record = {"address": "tcp://127.0.0.1:1", "metrics_endpoint": f"127.0.0.1:{port}", "written_at": float(port)}
        file.write_text(json.dumps(record))

    publish(41000)
    with ExporterProcess("--discovery-file", str(file)) as exporter:
        config = tmp_path / "prometheus.yml"
        config.write_text(
            "scrape_configs:\n  - job_name: transferqueue\n    http_sd_configs:\n"
            f"      - url: {exporter.url}/sd\n        refresh_interval: 15s\n"
        )

        def discovered() -> set[str]:
            done = subprocess.run(
                ["promtool", "check", "service-discovery", "--timeout=10s", str(config), "transferqueue"],
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
            return {one["labels"]["instance"] for one in json.loads(done.stdout)}

        def listed() -> list[str]:
            return [target for one in json.loads(exporter.get("/sd")[1]) for target in one["targets"]]

        own = exporter.url.removeprefix("http://")
        wait_until(lambda: listed() == [own, "127.0.0.1:41000"], "the first controller's metrics")
        assert discovered() == {own, "127.0.0.1:41000"}
        publish(42000)
        wait_until(lambda: listed() == [own, "127.0.0.1:42000"], "the second controller's metrics", 120.0)
        file.unlink()
