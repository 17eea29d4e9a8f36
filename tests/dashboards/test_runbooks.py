"""Every alert has a runbook of one form, with valid commands and queries, and without evidence that cannot be there."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import pytest
import yaml

import dataplane
from dashboards.promql import Checker
from dataplane import DataPlaneClient, errors
from dataplane.config import check_config
from dataplane.groups import DataPlaneGroupMeta
from exporter.catalogue.metrics import METRICS, prometheus_name
from exporter.cli import _build_parser
from exporter.conditions import CONDITIONS
from exporter.groups.query import SELECTING
from exporter.shipped import rules
from exporter.shipped.thresholds import THRESHOLDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "runbooks"
INDEX = (FOLDER / "index.md").read_text(encoding="utf-8")
ALERTS = rules.alerts()
CHECKER = Checker(rules.recorded())
SHOWN_BY_DIAGNOSE = {condition.name for condition in CONDITIONS} & set(ALERTS)

SECTIONS = ["Do first", "What it means", "Likely causes", "What to do", "How to confirm", "Related", "How to silence"]
NO_CAUSES = {"TQExporterOTLPFailing", "TQExporterThresholdsMissing"}
"""Their causes are the steps to take."""

WORDS = {"m": "minute", "h": "hour"}

EXCLUDED_BY_RULE = {
    ("DataPlaneLost", "DataPlaneUnavailable"),
    ("DataPlaneLost", "DataPlaneTimeouts"),
    ("DataPlaneNoGroupCompleted", "DataPlaneGroupsGivenUp"),
    ("DataPlaneStorageUnitLost", "DataPlaneStorageUnitSilent"),
    ("DataPlaneQueueStalled", "DataPlaneTrainerStarved"),
}
"""Pairs whose expressions exclude each other: at any time at most one of the two is true."""


def page(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def section(name: str, title: str) -> str:
    return page(name).split(f"## {title}\n")[1].split("\n## ")[0]


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.+?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in found]


def prose(text: str) -> str:
    return " ".join(re.sub(r"^ *```.+?^ *```", "", text, flags=re.MULTILINE | re.DOTALL).split())


def matches(matchers: list[str], name: str) -> bool:
    """Return whether the matchers of ``alertname`` admit an alert."""
    for matcher in matchers:
        found = re.fullmatch(r'alertname(=~|!=|=)"(.+)"', matcher)
        if found is not None:
            how, value = found.groups()
            if not {"=": name == value, "!=": name != value, "=~": re.fullmatch(value, name) is not None}[how]:
                return False
    return True


@cache
def inhibitions() -> list[tuple[list[str], list[str]]]:
    """Return, for each inhibition of the example route, the alerts that suppress and those that are suppressed."""
    route = yaml.safe_load((ROOT / "dashboards/alertmanager/alertmanager.yaml").read_text())
    return [
        tuple([name for name in ALERTS if matches(rule[f"{end}_matchers"], name)] for end in ("source", "target"))  # type: ignore[misc]
        for rule in route["inhibit_rules"]
    ]


def suppressing(name: str) -> list[str]:
    """Return the alerts that suppress *name*, in the order of the route."""
    sources = (source for sources, targets in inhibitions() if name in targets for source in sources)
    return [source for source in dict.fromkeys(sources) if source != name]


def test_there_is_one_for_every_alert_and_no_other() -> None:
    assert {file.stem for file in FOLDER.glob("*.md")} == {*ALERTS, "index"}


@pytest.mark.parametrize("name", ALERTS)
def test_it_has_the_form(name: str) -> None:
    text = page(name)
    assert text.startswith(f"# {name}\n\n**Severity: ")
    wanted = [title for title in SECTIONS if title != "Likely causes" or name not in NO_CAUSES]
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == wanted
    alert = ALERTS[name]
    first, impact, *_ = text.split("\n\n")[1:]
    number, unit = int(alert["for"][:-1]), WORDS[alert["for"][-1]]
    held = f"{number} {unit}{'s' if number > 1 else ''}"
    severity = (
        f"**Severity: {alert['labels']['severity']}.** The alert fires after its expression has been true for {held}."
    )
    assert " ".join(first.split()).startswith(severity)
    assert impact.startswith("**Impact:** ")
    assert len(impact.split()) <= 40, "the impact is one line"
    conventions = " ".join(alert["annotations"]["conventions"].split())
    named = f"Tag conventions that can raise this alert: {conventions}." in prose(section(name, "What it means"))
    assert named == (conventions != "any")


@pytest.mark.parametrize("name", ALERTS)
def test_the_first_command_shows_the_condition(name: str) -> None:
    """A single poll shows no flow, and an address of the data plane is in no alert: INSTANCE is."""
    first = section(name, "Do first")
    assert "`instance`" in first
    assert "once" not in " ".join(blocks(page(name), "sh"))
    if name in SHOWN_BY_DIAGNOSE:
        assert blocks(first, "sh")[0].splitlines()[0] == "tq-exporter diagnose --url http://INSTANCE"
        assert f"`{name}`" in first
    elif name == "TQExporterAbsent":
        assert "http://INSTANCE/" in blocks(first, "sh")[0]
    else:
        assert len(blocks(first, "promql")) == 1


@pytest.mark.parametrize("name", ALERTS)
def test_causes_and_steps_are_sentences(name: str) -> None:
    text = page(name)
    if name not in NO_CAUSES:
        causes = re.findall(r"^\* \*\*(.+?)\*\*: (.+)$", section(name, "Likely causes"), re.MULTILINE)
        assert causes
        order = ["TransferQueue", "Ray", "NeMo RL", "verl"]
        assert [order.index(where) for where, _ in causes] == sorted(order.index(where) for where, _ in causes)
        for _, cause in causes:
            assert not re.match(r"(None|The same|As above|Likewise)\b", cause)
    assert not re.search(r"\bgiven up\b|that trains?\b|[Ll]ook whether|\bmeanwhile\b|again and again", prose(text))
    assert re.match(r"(You may|If|Raise|Do not) ", prose(section(name, "How to silence")))
    part = "partition=PARTITION" if "$labels.partition" in ALERTS[name]["annotations"]["summary"] else ""
    [silence] = blocks(section(name, "How to silence"), "sh")
    assert f"--alertmanager.url=http://ALERTMANAGER:9093 silence add alertname={name} " in silence
    assert part in silence


@pytest.mark.parametrize("name", ALERTS)
def test_it_says_where_its_placeholders_come_from(name: str) -> None:
    text = page(name)
    commands = " ".join(blocks(text, "sh"))
    said = prose(text)
    if re.search(r"\bPID\b", commands):
        assert "index.md#processes" in said or "ray list actors" in commands
    if "CONTROLLER_IP" in commands:
        assert "[CONTROLLER_IP and CONTROLLER_PORT](index.md#processes)" in said
    for placeholder in ("EXPORTER", "MASTER", "COLLECTOR"):
        if re.search(rf"http://{placeholder}\b", commands):
            assert re.search(rf"\b{placeholder} is ", said), placeholder
    if re.search(r"\b[Ee]vict\b", prose(section(name, "What to do"))):
        assert "index.md#evict" in section(name, "What to do")
    if re.search(r"\b[Rr]estart the job\b|\b[Ee]nd the job\b", prose(section(name, "What to do"))):
        assert re.search(r"index\.md#restart|[Nn]othing is lost", section(name, "What to do"))


@pytest.mark.parametrize("name", ALERTS)
def test_every_other_runbook_is_a_link(name: str) -> None:
    text = re.sub(r"\[[^\]]*\]\([^)]*\)|`[^`]*`", "", prose(page(name)))
    assert set(re.findall(r"\b(?:DataPlane|TQExporter)[A-Z]\w+", text)) <= {name}
    related = re.findall(r"^\* \[(\w+)\]\((\w+)\.md\): ", section(name, "Related"), re.MULTILINE)
    assert related
    assert all(shown == target in ALERTS and target != name for shown, target in related)


@pytest.mark.parametrize("name", ALERTS)
def test_it_says_which_alerts_suppress_it(name: str) -> None:
    said = re.search(
        r"In the example route of Alertmanager this alert is suppressed while (.+?) fires", prose(page(name))
    )
    assert (re.findall(r"\[(\w+)\]", said[1]) if said else []) == suppressing(name)


@pytest.mark.parametrize("name", ALERTS)
def test_no_evidence_that_cannot_be_there(name: str) -> None:
    """While *name* fires, no notification comes of what it suppresses or excludes: its absence says nothing."""
    absent = {other for other in ALERTS if name in suppressing(other)}
    absent |= {next(iter({*pair} - {name})) for pair in EXCLUDED_BY_RULE if name in pair}
    steps = f"{prose(section(name, 'What it means'))} {prose(section(name, 'What to do'))}"
    for sentence in re.split(r"(?<=[.:]) ", steps):
        named = set(re.findall(r"\[(\w+)\]\(\w+\.md\)", sentence)) & absent
        if named and re.search(r"\bfir(es?|ing)\b", sentence):
            assert re.search(r"do(es)? not fire|takes this alert's place|fires instead", sentence), sentence


def test_the_page_of_commands_has_the_inhibitions_of_the_route() -> None:
    rows = re.findall(r"^\| (\[.+?) \| (.+) \|$", INDEX.split("{ #suppressed }")[1], re.MULTILINE)
    every = [name for name in ALERTS if name.startswith("DataPlane") and name != "DataPlaneLost"]
    listed = [
        (
            re.findall(r"\[(\w+)\]", sources),
            every if targets.startswith("every other") else re.findall(r"\[(\w+)\]", targets),
        )
        for sources, targets in rows
    ]
    assert listed == inhibitions()


@pytest.mark.parametrize("name", [*ALERTS, "index"])
def test_its_queries_name_what_there_is(name: str) -> None:
    queries = blocks(page(name), "promql")
    assert queries
    for query in queries:
        CHECKER.labels(query)


@pytest.mark.parametrize("name", [*ALERTS, "index"])
def test_its_commands_are_valid(name: str) -> None:
    series = {f"{prometheus_name(metric)}{end}" for metric in METRICS for end in ("", "_bucket", "_count", "_sum")}
    for line in "\n".join(blocks(page(name), "sh")).splitlines():
        if line.startswith("tq-exporter "):
            arguments = shlex.split(line.partition(" | ")[0], comments=True)[1:]
            assert _build_parser(arguments).parse_args(arguments).command == arguments[0]
            assert "--condition" not in arguments or arguments[arguments.index("--condition") + 1] in SELECTING
        for pattern in re.findall(r"grep (?:-E )?'\^([^']+)'", line):
            expanded = [pattern]
            while any("(" in one for one in expanded):
                expanded = [
                    f"{head}{choice}{tail}"
                    for one in expanded
                    for head, choices, tail in [re.fullmatch(r"([^(]*)\(([^)]*)\)(.*)", one).groups()]  # type: ignore[union-attr]
                    for choice in choices.split("|")
                ]
            for one in expanded:
                begin = re.match(r"[\w]+", one)
                assert begin is not None
                known = any(metric.startswith(begin[0]) for metric in series)
                assert known or begin[0] in ("metadata", "master_evicted"), one


@pytest.mark.parametrize("name", [*ALERTS, "index"])
def test_what_it_names_exists(name: str) -> None:
    text = page(name)
    conditions = {condition.name for condition in CONDITIONS}
    for other in re.findall(r"\b(?:DataPlane|TQExporter)[A-Z]\w+\b", text):
        assert other in ALERTS or other in conditions or hasattr(errors, other) or other == "DataPlaneClient", other
    for threshold in re.findall(r"thresholds\.(\w+)=|`thresholds\.(\w+)`", text):
        assert {*threshold} - {"", "yaml", "NAME"} <= {each.name for each in THRESHOLDS}
    for series in re.findall(r"`((?:dataplane|tq_exporter)_\w+(?:\{[^`]*\})?)`", text):
        histogram = any(series == prometheus_name(metric) for metric in METRICS if metric.kind == "histogram")
        CHECKER.labels(f"{series}_count" if histogram else series)
    for target in re.findall(r"\]\((\w+)\.md[#)]", text):
        assert (FOLDER / f"{target}.md").exists()
    for anchor in re.findall(r"index\.md#(\w+)\)", text):
        assert f"{{ #{anchor} }}" in INDEX


def snippet(anchor: str) -> str:
    """Return the Python of the shell block below an anchor of the page of commands."""
    [code] = [one for one in blocks(INDEX.split(f"{{ #{anchor} }}")[1].split("\n## ")[0], "sh") if "python3 - " in one]
    found = re.fullmatch(r"python3 - [A-Z_ ]+ <<'END'\n(.+)END\n", code, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a client of the real interface, and what the snippets use to get it."""
    client = create_autospec(DataPlaneClient, instance=True)
    client.list_metadata.return_value = [
        DataPlaneGroupMeta("train", "a", ["a_0", "a_1"]),
        DataPlaneGroupMeta("train", "b", ["b_0"], tags={"committed": True}),
    ]
    seen = SimpleNamespace(client=client, built=[], connected=[])

    def build(cfg: Any, **how: Any) -> Any:
        seen.built.append((cfg, how))
        return client

    monkeypatch.setattr(dataplane, "build_data_plane_client", build)
    ray = SimpleNamespace(init=lambda **how: seen.connected.append(how))
    monkeypatch.setitem(sys.modules, "ray", ray)
    return seen


def test_the_snippet_evicts_only_the_groups_that_are_named(
    attached: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["-", "train", "b", "gone"])
    exec(compile(snippet("evict"), "evict", "exec"), {})
    attached.client.evict.assert_called_once_with(["b_0"], "train")
    attached.client.close.assert_called_once_with()
    # It attaches to a cluster that runs, and starts neither Ray nor a controller.
    assert attached.built == [({"enabled": True}, {"bootstrap": False})]
    assert [how["address"] for how in attached.connected] == ["auto"]
    assert capsys.readouterr().out == "evicted b uncommitted 1 keys\n"


def test_the_configurations_of_the_snippets_are_valid() -> None:
    for text in set(re.findall(r'\{"enabled": True.*?\}(?=[,`])', INDEX)):
        check_config(ast.literal_eval(text))


def test_the_snippet_prints_groups(
    attached: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["-", "train"])
    exec(compile(snippet("list"), "list", "exec"), {})
    assert attached.built == [({"enabled": True}, {"bootstrap": False})]
    assert not attached.client.evict.called
    assert capsys.readouterr().out.splitlines()[1].endswith("['b_0'] {'committed': True}")


def test_the_table_of_the_dashboards_page_has_every_alert() -> None:
    text = (FOLDER.parent / "dashboards.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \|", text, re.MULTILINE)
    assert listed == [(name, name, alert["labels"]["severity"]) for name, alert in ALERTS.items()]
