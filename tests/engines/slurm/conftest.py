"""One Slurm for all tests of the batch script, and a Prometheus that reads the documented folder."""

from __future__ import annotations

import json
import re
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.demo.stack import free_port
from tests.engines.machine import ROOT, daemon, require
from tests.engines.slurm.cluster import Slurm
from tests.support.waiting import wait_until


class Prometheus:
    """A Prometheus to query."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/query?"

    def query(self, expression: str) -> list[dict[str, str]]:
        """Return the labels of each series that *expression* yields; empty while Prometheus does not answer."""
        try:
            with urllib.request.urlopen(
                self._url + urllib.parse.urlencode({"query": expression}), timeout=10
            ) as answer:
                return [dict(series["metric"]) for series in json.load(answer)["data"]["result"]]
        except OSError:
            return []


@pytest.fixture(scope="session")
def slurm(folder: Path) -> Iterator[Slurm]:
    require("slurmctld", "slurmd", "sbatch", "munged", "setpriv", "prometheus")
    folder.chmod(0o755)
    with Slurm.started(folder / "slurm") as slurm:
        yield slurm


@pytest.fixture(scope="session")
def prometheus(slurm: Slurm) -> Iterator[Prometheus]:
    """Configured as docs/deploy.md says, with the folder and the times of the test."""
    chapter = (ROOT / "docs" / "deploy.md").read_text().partition("\n## Slurm\n")[2].partition("\n## ")[0]
    block = re.search(r"^    scrape_configs:\n(?:    .*\n)+", chapter, re.MULTILINE)
    assert block is not None
    documented = re.sub("^    ", "", block[0], flags=re.MULTILINE)
    assert "/shared/tq-exporter/targets/*.json" in documented
    here = documented.replace("/shared/tq-exporter", str(slurm.shared)).replace("interval: 15s", "interval: 1s")
    configuration = slurm.folder / "prometheus.yaml"
    configuration.write_text("global: {scrape_interval: 1s}\n" + here)
    port = free_port()
    options = [f"--config.file={configuration}", f"--storage.tsdb.path={slurm.folder}/tsdb"]
    with daemon("prometheus", *options, f"--web.listen-address=127.0.0.1:{port}", log=slurm.folder / "log/prometheus"):
        made = Prometheus(port)
        wait_until(lambda: made.query("vector(1)"), "Prometheus", 60.0)
        yield made
