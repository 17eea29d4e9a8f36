"""The page on a real exporter with a real TransferQueue: it updates, shows an outage, recovers; also behind TLS."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
from playwright.sync_api import Page

from dataplane.discovery.record import Endpoint, StorageUnitEndpoint, encode_endpoint
from dataplane.groups import GROUP_STATES
from tests.page.conftest import Open
from tests.page.support import UNKNOWN, cells, number, text, wait_for_text
from tests.support.certificates import Authority
from tests.support.cluster import TQCluster, kill
from tests.support.exporter_process import ExporterProcess
from tests.support.waiting import wait_until

FAST = ("--ping-interval", "2s", "--metadata-interval", "500ms")


def publish(cluster: TQCluster, file: Path) -> None:
    units = tuple(StorageUnitEndpoint(unit.index, unit.id, unit.address) for unit in cluster.storage_units)
    controller = cluster.controller
    record = Endpoint(
        controller.address, controller_id=controller.id, actor_id=controller.actor_id, storage_units=units, run="r1"
    )
    fresh = file.with_suffix(".new")
    fresh.write_bytes(encode_endpoint(record))
    os.replace(fresh, file)


def on_page(page: Page) -> dict[str, list[str]]:
    return {row[0]: row[4:10] for row in cells(page, "partitions")}


def in_api(exporter: ExporterProcess) -> dict[str, list[str]]:
    return {
        part["partition"]: [*(str(part["groups"][state]) for state in GROUP_STATES), str(part["keys"])]
        for part in exporter.snapshot()["partitions"]
    }


def put(cluster: TQCluster, partition: str, groups: range, version: int) -> None:
    keys = [f"g{group}_g{sample}" for group in groups for sample in range(2)]
    cluster.put(partition, keys, tags=[{"weight_version": version}] * len(keys))


def test_it_follows_a_real_run_through_an_outage(cluster: TQCluster, open_page: Open, tmp_path: Path) -> None:
    file = tmp_path / "endpoint.json"
    publish(cluster, file)
    put(cluster, "train", range(3), 1)
    put(cluster, "<b>val</b>", range(1), 1)
    with ExporterProcess("--discovery-file", str(file), *FAST) as exporter:
        page = open_page(exporter.url)
        wait_for_text(page, "#ready", lambda said: said == "4")
        assert on_page(page) == in_api(exporter)
        assert text(page, "#state") == "Running"
        wait_until(lambda: refresh(page) and len(cells(page, "storage")) == 2, "both storage units")

        # A change is shown within three turns of the page, however long a turn takes on a slow machine.
        turns = turn_counter(page)
        put(cluster, "train", range(3, 8), 2)
        wait_until(lambda: in_api(exporter)["train"][0] == "8", "the exporter has listed it")
        text(page, "#state")  # only a call of playwright's hands over the requests that were made in the meantime
        before = turns()
        wait_for_text(page, "#ready", lambda said: said == "9")
        assert turns() - before <= 3
        assert on_page(page) == in_api(exporter)
        assert [row[0] for row in cells(page, "versions")] == ["2", "1"]
        # A rate needs listings some seconds apart; it may miss groups that arrive just before a slow ping.
        groups = 8
        while text(page, "#in-rate") in (UNKNOWN, "0.00"):
            assert groups < 40, "no rate was ever shown"
            put(cluster, "train", range(groups, groups + 1), 2)
            groups += 1
            page.wait_for_timeout(2000)
        wait_for_text(page, "#ready", lambda said: said == f"{groups + 1}")

        kill(cluster.controller.pid)
        wait_for_text(page, "#state", lambda said: said == "Lost")
        wait_for_text(page, "#ready", lambda said: said == UNKNOWN)
        assert number(page, "#out-rate") is None
        assert f"last known {groups + 1} at " in text(page, "#queue-note")
        assert "is gone" in text(page, "#reason")
        assert text(page, "#verdict").startswith("The data plane is gone, since ")
        failure = next(row for row in cells(page, "failures") if row[1] == "ping")
        assert failure[2] == "DataPlaneUnavailable"
        wait_until(lambda: refresh(page) and errors_on_page(page, "ping") > 0, "the errors on the page")
        scraped = exporter.scrape().value("dataplane_errors_total", operation="ping", error_type="DataPlaneUnavailable")
        assert 0 < errors_on_page(page, "ping") <= (scraped or 0)

        cluster.restart_tq()
        put(cluster, "train", range(2), 3)
        publish(cluster, file)
        wait_for_text(page, "#state", lambda said: said == "Running", 120.0)
        wait_for_text(page, "#ready", lambda said: said == "2")
        assert "Restarts 1" in text(page, "#facts")
        assert [row[1] for row in cells(page, "changes")][:2] == ["Running", "Lost"]
        assert on_page(page) == in_api(exporter)


def refresh(page: Page) -> bool:
    page.wait_for_timeout(200)
    return True


def errors_on_page(page: Page, operation: str) -> int:
    return sum(int(row[2]) for row in cells(page, "errors") if row[0] == operation)


def turn_counter(page: Page) -> Callable[[], int]:
    """Count the page's requests for snapshots."""
    asked: list[float] = []
    page.on("request", lambda seen: asked.append(time.monotonic()) if seen.url.endswith("/snapshot") else None)
    return lambda: len(asked)


def test_it_works_behind_tls_and_a_password(open_page: Open, tmp_path: Path) -> None:
    Authority(tmp_path).issue("server")
    users = f"basic_auth_users:\n  alice: '{bcrypt.hashpw(b'open sesame', bcrypt.gensalt(4)).decode()}'\n"
    config = tmp_path / "web.yml"
    config.write_text(f"tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n{users}")
    with ExporterProcess("--controller", "tcp://127.0.0.1:1", "--web.config.file", str(config)) as exporter:
        assert exporter.url.startswith("https://")
        credentials = {"username": "alice", "password": "open sesame"}
        # The browser logs the first answer, 401, which asks for the password.
        page = open_page(exporter.url, http_credentials=credentials, ignore_https_errors=True, quiet=False)
        wait_for_text(page, "#state", lambda said: said == "Unreachable")
        wait_for_text(page, "#sources", lambda said: "ping" in said)
        assert "sesame" not in page.url
