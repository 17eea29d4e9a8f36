"""The container's command as the chart renders it, run as a process here beside a real TransferQueue."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.helm.helm import CI_VALUES, install, steps
from tests.support.cluster import TQCluster
from tests.support.exporter_process import ExporterProcess, Exposition

_VALUES: dict[str, Any] = {
    **CI_VALUES["file"],
    "config": {**CI_VALUES["full"]["config"], "discovery": CI_VALUES["file"]["config"]["discovery"]},
    "extraArgs": ["--log-format", "json"],
    "extraEnv": [{"name": "TQ_EXPORTER_PING_INTERVAL", "value": "300ms"}],
    "web": {"disablePage": True, "disableGroups": True},
}
# There is no receiver here; other tests cover pushing.
_VALUES["config"].pop("otlp")


def test_arguments_environment_and_configuration_start_an_exporter_that_follows_the_file(
    cluster: TQCluster, tmp_path: Path
) -> None:
    [[stage]] = install(steps("run", _VALUES))
    deployment = stage.find("Deployment")["spec"]["template"]["spec"]
    [container] = deployment["containers"]
    folders = {mount["mountPath"]: tmp_path / mount["name"] for mount in container["volumeMounts"]}

    def here(text: str) -> str:
        return re.sub("|".join(f"{path}(?=/)" for path in folders), lambda match: str(folders[match[0]]), text)

    [config] = [volume["configMap"]["name"] for volume in deployment["volumes"] if "configMap" in volume]
    for folder in folders.values():
        folder.mkdir()
    for name, text in stage.find("ConfigMap", config)["data"].items():
        (folders["/etc/tq-exporter"] / name).write_text(here(text))
    command, *arguments = [here(argument) for argument in container["args"]]
    assert command == "run"
    record = folders["/run/tq-exporter"] / "endpoint.json"
    env = {variable["name"]: here(variable["value"]) for variable in container["env"]}

    cluster.put("rollout_data", [f"g{number}_g0" for number in range(3)])
    # Only the port differs: --listen 127.0.0.1:0, since 9464 may be in use here.
    with ExporterProcess(*arguments, env=env) as exporter:
        assert exporter.scrape().value("dataplane_discovery_state", state="never_found") == 1
        cluster.run(
            "import dataplane\ntq.publisher = dataplane.publish_endpoint(path, interval_s=0.2)", path=str(record)
        )
        try:

            def sees(scrape: Exposition) -> bool:
                keys = scrape.samples("dataplane_partition_keys", partition="rollout_data")
                return scrape.value("dataplane_up") == 1 and sum(value for _, value in keys) == 3

            exporter.wait_for(sees, "the rows of a real TransferQueue")
            for probe in ("livenessProbe", "readinessProbe"):
                assert exporter.get(container[probe]["httpGet"]["path"])[0] == 200
            assert exporter.scrape().value("target_info") == 1
            assert 'run="grpo-7b"' in exporter.scrape().text
            assert exporter.log.splitlines()[0].startswith("{")
            assert run_helm_test(stage.hooks, exporter.url) == "/readyz 200\n/metrics 200\n"
        finally:
            cluster.run("tq.publisher.close()")


def run_helm_test(hooks: list[str], url: str) -> str:
    """Run the command of ``helm test``'s pod against *url*; return what it prints."""
    [pod] = [yaml.safe_load(text) for text in hooks]
    _, flag, script, _, certificate = pod["spec"]["containers"][0]["command"]
    done = subprocess.run([sys.executable, flag, script, url, certificate], capture_output=True, text=True, check=True)
    return done.stdout
