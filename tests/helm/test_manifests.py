"""Every example installation: Helm renders it, Kubernetes would accept it, and it is as secure as documented."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from exporter.config import load_config
from exporter.shipped.rules import with_runbooks
from exporter.web.hosts import AllowedHosts
from tests.helm.helm import CHART, CI_VALUES, ROOT, Stage, ask

OLDEST, NEWEST = "1.25.0", "1.37.0"


class _NoDuplicates(yaml.CSafeLoader):
    """Rejects a mapping with a duplicate key; Helm would use the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice: {sorted(keys)} at {node.start_mark}"
        return super().construct_mapping(node, deep)


def rendered(stage: Stage) -> list[dict[str, Any]]:
    """Return the rendered objects, including hooks."""
    texts = [stage.text, *stage.hooks]
    return [item for text in texts for item in yaml.load_all(text, _NoDuplicates) if item]


def pods(stage: Stage) -> list[dict[str, Any]]:
    """Return the spec of every pod of the chart."""
    found = [item["spec"] for item in rendered(stage) if item["kind"] == "Pod"]
    return found + [item["spec"]["template"]["spec"] for item in rendered(stage) if item["kind"] == "Deployment"]


def test_the_linter_has_nothing_to_say() -> None:
    assert ask("lint", chart=str(CHART)) == []


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_and_the_prometheus_operator_know_every_field(installed: dict[str, Stage], version: str) -> None:
    assert f'kubeVersion: ">={OLDEST}-0"' in (CHART / "Chart.yaml").read_text()
    objects = [item for stage in installed.values() for item in stage.objects]
    objects += [yaml.safe_load(text) for stage in installed.values() for text in stage.hooks]
    assert ask("validate", objects=objects, version=version) == []


def test_the_schemas_find_an_unknown_field(installed: dict[str, Stage]) -> None:
    deployment, monitor = (json.loads(json.dumps(installed["full"].find(k))) for k in ("Deployment", "ServiceMonitor"))
    deployment["spec"]["template"]["spec"]["containers"][0]["port"] = []
    monitor["spec"]["endpoints"][0]["every"] = "15s"
    deep, other = ask("validate", objects=[deployment, monitor], version=NEWEST)
    assert "'port' was unexpected" in deep
    assert "'every' was unexpected" in other


@pytest.mark.parametrize("name", CI_VALUES)
def test_what_helm_sends_is_what_was_rendered(installed: dict[str, Stage], name: str) -> None:
    sent = {(item["kind"], item["metadata"]["name"]) for item in installed[name].objects}
    hooks = {
        (item["kind"], item["metadata"]["name"]) for text in installed[name].hooks for item in [yaml.safe_load(text)]
    }
    assert sent | hooks == {(item["kind"], item["metadata"]["name"]) for item in rendered(installed[name])}
    assert [kind for kind, _ in hooks] == ["Pod"], "the pod of helm test"


@pytest.mark.parametrize("name", CI_VALUES)
def test_the_exporter_answers_to_the_names_of_its_service(
    installed: dict[str, Stage], name: str, tmp_path: Path
) -> None:
    config = installed[name].find("ConfigMap", installed[name].find("Service")["metadata"]["name"])
    file = tmp_path / "exporter.yaml"
    file.write_text(config["data"]["exporter.yaml"])
    hosts = AllowedHosts(load_config({}, {}, file).web.allowed_hosts)
    service, namespace = config["metadata"]["name"], config["metadata"]["namespace"]
    for ending in ("", f".{namespace}", f".{namespace}.svc", f".{namespace}.svc.cluster.local"):
        assert hosts.allow(f"{service}{ending}:9464")
    assert not hosts.allow(f"{service}.evil.example")
    assert hosts.allow("ingress.example") is (name == "full")
    [pod] = [yaml.safe_load(text) for text in installed[name].hooks]
    assert hosts.allow(urlsplit(pod["spec"]["containers"][0]["command"][-2]).netloc)


def test_conventions_and_patterns_reach_the_exporter_as_they_are_written(
    installed: dict[str, Stage], tmp_path: Path
) -> None:
    name = installed["full"].find("Service")["metadata"]["name"]
    got, given = tmp_path / "got.yaml", tmp_path / "given.yaml"
    got.write_text(installed["full"].find("ConfigMap", name)["data"]["exporter.yaml"])
    given.write_text(yaml.safe_dump(yaml.safe_load((CHART / "ci" / "full-values.yaml").read_text())["config"]))
    config, written = load_config({}, {}, got), load_config({}, {}, given)
    assert (config.conventions, config.partitions) == (written.conventions, written.partitions)
    committed = config.conventions["mine"].committed
    assert committed is not None
    assert list(map(repr, committed.values)) == ["'done'", "True", "1", "'1'"]


def relabelled(monitor: dict[str, Any], labels: dict[str, str]) -> dict[str, str]:
    """Return the labels of a target after the relabelings of a monitor."""
    [endpoint] = monitor["spec"].get("endpoints") or monitor["spec"]["podMetricsEndpoints"]
    for rule in endpoint["relabelings"]:
        if rule.get("action") == "labeldrop":
            labels = {name: value for name, value in labels.items() if not re.fullmatch(rule["regex"], name)}
            continue
        source = ";".join(labels.get(name, "") for name in rule.get("sourceLabels", []))
        found = re.fullmatch(rule.get("regex", "(.*)"), source)
        if found is not None:
            labels = {**labels, rule["targetLabel"]: found.expand(rule["replacement"].replace("$", "\\"))}
    return {name: value for name, value in labels.items() if not name.startswith("__")}


def test_a_new_pod_has_the_labels_of_the_old_one(installed: dict[str, Stage]) -> None:
    def seen(monitor: dict[str, Any], number: int) -> dict[str, str]:
        return relabelled(
            monitor,
            {
                "instance": f"10.0.0.{number}:9464",
                "pod": f"exporter-{number}",
                "namespace": "training",
                "__meta_kubernetes_pod_label_ray_io_cluster": "blue",
            },
        )

    for name, kind in (("full", "ServiceMonitor"), ("file", "PodMonitor"), ("sidecar", "PodMonitor")):
        monitor, service = installed[name].find(kind), installed[name].find("Service")
        metadata = service["metadata"]
        address = f"{metadata['name']}.{metadata['namespace']}.svc:{service['spec']['ports'][0]['port']}"
        if name == "sidecar":
            address = f"blue-head-svc.{metadata['namespace']}.svc:9464"
        own = {"ray_cluster": "a", "run": "grpo-7b"} if name == "full" else {}
        common = {"instance": address, "job": "tq-exporter", "namespace": "training"}
        assert seen(monitor, 1) == seen(monitor, 2) == common | own


def test_a_new_pod_goes_on_with_the_series_that_it_pushes(installed: dict[str, Stage]) -> None:
    for name in ("default", "full"):
        spec = installed[name].find("Deployment")["spec"]["template"]["spec"]
        assert spec["hostname"] == installed[name].find("Deployment")["metadata"]["name"]


def test_what_each_mode_makes(installed: dict[str, Stage]) -> None:
    assert installed["default"].kinds() == ["ConfigMap", "Deployment", "Service", "ServiceAccount"]
    assert installed["file"].kinds() == ["ConfigMap", "Deployment", "PodMonitor", "Service", "ServiceAccount"]
    assert installed["sidecar"].kinds() == [*["ConfigMap"] * 5, "PodMonitor", "PrometheusRule", "Service"]
    assert installed["full"].kinds() == [
        *["ConfigMap"] * 6,
        *["Deployment", "NetworkPolicy", "PodDisruptionBudget", "PrometheusRule"],
        *["Service", "ServiceAccount", "ServiceMonitor"],
    ]


@pytest.mark.parametrize("name", CI_VALUES)
def test_pods_have_no_rights(installed: dict[str, Stage], name: str) -> None:
    for pod in pods(installed[name]):
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert container["resources"]["limits"].keys() == {"memory"}


def test_selectors_find_the_exporter_and_nothing_else(installed: dict[str, Stage]) -> None:
    full = installed["full"]
    labels = full.find("Deployment")["spec"]["template"]["metadata"]["labels"]
    [test_pod] = [item for item in rendered(full) if item["kind"] == "Pod"]
    for selector in (
        full.find("Service")["spec"]["selector"],
        full.find("Deployment")["spec"]["selector"]["matchLabels"],
        full.find("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        full.find("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
        assert not selector.items() <= test_pod["metadata"]["labels"].items()
    monitor = full.find("ServiceMonitor")["spec"]["selector"]["matchLabels"]
    assert monitor.items() <= full.find("Service")["metadata"]["labels"].items()
    head = {"ray.io/cluster": "training", "ray.io/node-type": "head"}
    assert installed["sidecar"].find("PodMonitor")["spec"]["selector"] == {"matchLabels": head}
    assert installed["sidecar"].find("Service")["spec"]["selector"] == head


def test_the_network_policy_leads_to_ray_by_pod_and_not_by_port(installed: dict[str, Stage]) -> None:
    policy = installed["full"].find("NetworkPolicy")["spec"]
    dns, ray, collector = policy["egress"]
    assert ray == {
        "to": [
            {
                "podSelector": {"matchLabels": {"ray.io/is-ray-node": "yes"}},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "training"}},
            }
        ]
    }
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} == {
        (53, "UDP"),
        (53, "TCP"),
        (5353, "UDP"),
        (5353, "TCP"),
    }
    assert {"ipBlock": {"cidr": "169.254.20.10/32"}} in dns["to"]
    pod_labels = [peer["podSelector"]["matchLabels"] for peer in dns["to"] if "podSelector" in peer]
    assert pod_labels == [{"k8s-app": "kube-dns"}, {"dns.operator.openshift.io/daemonset-dns": "default"}]
    assert collector["ports"] == [{"port": 4318, "protocol": "TCP"}]
    [ingress] = policy["ingress"]
    assert ingress["ports"] == [{"port": "tq-metrics", "protocol": "TCP"}]
    [pod] = [item for item in rendered(installed["full"]) if item["kind"] == "Pod"]
    admitted = [peer["podSelector"]["matchLabels"] for peer in ingress["from"] if "podSelector" in peer]
    assert any(labels.items() <= pod["metadata"]["labels"].items() for labels in admitted), "helm test is shut out"


def test_a_change_of_the_configuration_restarts_the_pod(installed: dict[str, Stage]) -> None:
    sums = [
        installed[name].find("Deployment")["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for name in ("default", "file", "full")
    ]
    assert len(set(sums)) == 3


@pytest.mark.parametrize("name", ["full", "sidecar"])
def test_dashboards_are_those_of_the_repository(installed: dict[str, Stage], name: str) -> None:
    files = sorted((ROOT / "dashboards" / "grafana").glob("*.json"))
    assert len(files) == 4
    found = {}
    for item in installed[name].objects:
        if item["kind"] == "ConfigMap" and "grafana_dashboard" in item["metadata"]["labels"]:
            assert item["metadata"]["annotations"]["grafana_folder"] == ("RL" if name == "full" else "TransferQueue")
            found.update(item["data"])
    runbooks = "https://wiki.example/tq/runbooks" if name == "full" else None
    assert found == {file.name: with_runbooks(file.read_text(), runbooks) for file in files}


def test_a_packed_chart_has_the_dashboards_and_rules_in_it(tmp_path: Path) -> None:
    import tarfile

    archive = ask("package", chart=str(CHART), folder=str(tmp_path))
    with tarfile.open(archive) as packed:
        held = {name: packed.extractfile(name) for name in packed.getnames() if "/files/" in name}
        wanted = [*(ROOT / "dashboards/grafana").glob("*.json"), *(ROOT / "dashboards/prometheus").glob("*.yaml")]
        for path in wanted:
            file = held.pop(f"tq-exporter/files/{path.parent.name}/{path.name}")
            assert file is not None
            assert file.read() == path.read_bytes()
        assert not held


def test_the_probe_of_helm_test_asks_the_service(installed: dict[str, Stage]) -> None:
    [pod] = [item for item in rendered(installed["full"]) if item["kind"] == "Pod"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    [container] = pod["spec"]["containers"]
    *_, url, certificate = container["command"]
    service = installed["full"].find("Service")
    assert url == f"https://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == [certificate]
    assert all("value" not in variable for variable in container["env"]), "a password in a manifest"


def test_the_notes_say_how_to_look(installed: dict[str, Stage]) -> None:
    for name, stage in installed.items():
        assert "kubectl --namespace training port-forward service/" in stage.notes, name
        assert f"helm test {name}" in stage.notes
    assert "Prometheus does not scrape it yet" in installed["default"].notes
    assert "Prometheus does not scrape it yet" not in installed["full"].notes
    assert "Ray head pod" in installed["sidecar"].notes
