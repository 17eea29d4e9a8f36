"""Ray's token authentication with the real exporter: a right token works, a wrong one is reported, none is logged."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.cluster import TQCluster
from tests.support.exporter_process import ExporterProcess
from tests.support.waiting import wait_until

WRONG = "f00dfeed" * 4


@pytest.fixture(autouse=True)
def _no_token_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def flags(cluster: TQCluster) -> tuple[str, ...]:
    return ("--ray-address", cluster.ray_address, "--ping-interval", "500ms", "--log-level", "debug")


@pytest.mark.parametrize("way", ["variable", "file"])
def test_the_right_token_finds(cluster: TQCluster, tmp_path: Path, way: str) -> None:
    token = cluster.env["RAY_AUTH_TOKEN"]
    env = {name: value for name, value in cluster.env.items() if name != "RAY_AUTH_TOKEN"}
    if way == "variable":
        env["RAY_AUTH_TOKEN"] = token
    else:
        file = tmp_path / "token"
        file.write_text(token + os.linesep)
        env["RAY_AUTH_TOKEN_PATH"] = str(file)
    with ExporterProcess(*flags(cluster), env=env) as exporter:
        exporter.wait_for(lambda seen: seen.value("dataplane_up") == 1, "found with the token")
        assert exporter.stop() == 0
        assert token not in exporter.log


def test_a_wrong_token_is_unavailable_with_its_remedy_and_a_right_one_later_finds(
    cluster: TQCluster, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text(WRONG)
    env = {name: value for name, value in cluster.env.items() if name != "RAY_AUTH_TOKEN"}
    env["RAY_AUTH_TOKEN_PATH"] = str(file)
    with ExporterProcess(*flags(cluster), env=env) as exporter:
        # No error is counted yet: before a data plane was found, no failure may alert anybody.
        refusal = "DataPlaneUnavailable: .*Ray refused the token: give this process .* RAY_AUTH_MODE and RAY_AUTH_TOKEN"
        wait_until(lambda: re.search(refusal, exporter.log) is not None, "the refusal", 120.0)
        assert exporter.scrape().value("dataplane_up") == 0
        detail = " ".join(str(source) for source in exporter.snapshot()["sources"])
        assert "Ray refused the token" in detail
        # Each look-up reads the file again: a renewed token needs no restart.
        file.write_text(cluster.env["RAY_AUTH_TOKEN"])
        exporter.wait_for(lambda seen: seen.value("dataplane_up") == 1, "found with the renewed token", 120.0)
        assert exporter.stop() == 0
        for token in (WRONG, cluster.env["RAY_AUTH_TOKEN"]):
            assert token not in exporter.log
            assert token not in detail
