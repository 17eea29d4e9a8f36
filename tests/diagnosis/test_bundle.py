"""The bundle: it opens, it holds what the documentation says, and nothing that is secret or private."""

from __future__ import annotations

import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dataplane.discovery.record import Endpoint
from exporter.config import Config, load_config
from exporter.diagnosis import bundle as bundle_module
from exporter.diagnosis.bundle import FILES, build_bundle, cleaned
from exporter.diagnosis.evidence import Evidence, collect_here, named_groups
from exporter.diagnosis.masking import Mask, secrets_in
from exporter.model.condition import Condition
from exporter.model.history import History
from exporter.model.snapshot import Incident, OldestGroup, SourceState
from tests.diagnosis.incidents import play, played
from tests.support.clock import StoppedClock
from tests.support.snapshots import ODD_NAME, TAKEN, rich_snapshot

DOCS = Path(__file__).parents[2] / "docs"


def opened(evidence: Evidence) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(build_bundle(evidence))) as file:
        assert file.testzip() is None
        return {name: file.read(name).decode() for name in file.namelist()}


def here(config: Config, environ: dict[str, str] | None = None) -> Evidence:
    with play("stalled-trainer") as run:
        return collect_here(run.snapshot, run.history, run.scrape(), config, environ or {})


def test_the_bundle_of_a_stalled_trainer() -> None:
    files = opened(cleaned(here(Config(run="grpo-7b")), {}, keys=True))
    assert [*files] == [name for name in FILES if name != "ray.json"]
    report = files["report.txt"]
    top = report.splitlines()[2]
    assert top.startswith("The trainer: training has taken nothing for 15 min")
    assert "first: Check whether the trainer is alive" in report
    assert "evidence: ready 132, quiet_seconds" in report
    assert json.loads(files["snapshot.json"])["discovery"] == "found"
    assert json.loads(files["history-recent.json"])["trained"]["ready"][-1] > 100
    assert "dataplane_up 1" in files["metrics.txt"]
    about = json.loads(files["about.json"])
    assert yaml.safe_load(about["config"])["run"] == "grpo-7b"
    assert about["process"]["threads"] >= 1


def test_each_file_is_in_the_documentation() -> None:
    page = (DOCS / "diagnose.md").read_text()
    assert [name for name in FILES if f"`{name}`" not in page] == []


SECRETS = {
    "userinfo": "s3cr3t-in-url",
    "query": "s3cr3t-in-query",
    "bearer": "s3cr3tBearer99",
    "named": "s3cr3t-named",
    "header": "s3cr3t-header",
    "environment": "s3cr3t-environment",
    "cli": "s3cr3t-of-the-command",
    "hash": "$2b$12$" + "s3cr3t" * 8 + "abcde",
    "hf": "hf_s3cr3tABCDEFGH",
}


def planted(environ: dict[str, str]) -> Evidence:
    """Return evidence with a secret in every text in which others could put one."""
    texts = (
        f"http://user:{SECRETS['userinfo']}@host/x failed",
        f"GET https://host/a?token={SECRETS['query']}&b=1",
        f"Authorization: Bearer {SECRETS['bearer']}",
        f'password={SECRETS["named"]}, or "api_key": "{SECRETS["named"]}", or secret: \'{SECRETS["named"]}\'',
        f"x {SECRETS['environment']} y {SECRETS['cli']} {SECRETS['hash']} {SECRETS['hf']} {SECRETS['header']}",
    )
    said = " / ".join(texts)
    snapshot = rich_snapshot()
    parts = tuple(
        replace(part, partition=f"{part.partition} {said}", oldest=(OldestGroup("ready", "tag", TAKEN - 9, said),))
        for part in snapshot.partitions
    )
    snapshot = replace(
        snapshot,
        partitions=parts,
        endpoint=Endpoint("tcp://10.0.0.7:4000", run=texts[1], versions={"ray": texts[0]}),
        incidents=(Incident(TAKEN, "ping", "ping", "DataPlaneTimeout", said),),
        sources=(SourceState("ping", "failing", up=False, detail=said),),
        conditions=(Condition("Odd", "queue", "critical", True, text=said, partitions=(said,), groups=(said,)),),
    )
    history = History(StoppedClock())
    history.observe(snapshot)
    config = load_config({"--otlp": f"http://user:{SECRETS['userinfo']}@collector:4318"}, {})
    metrics = f'dataplane_keys{{partition="{said}"}} 1\n'.encode()
    found = collect_here(snapshot, history, metrics, config, environ)
    return replace(
        found,
        origin=f"http://user:{SECRETS['userinfo']}@host:9464",
        missing={"groups": said},
        ray={"actors": [{"name": said, "death": said, "password": "hunter2"}], "nodes": []},
    )


def test_no_secret_is_in_a_bundle() -> None:
    environ = {
        "TQ_EXPORTER_PASSWORD": SECRETS["environment"],
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Basic {SECRETS['header']},x-tenant=a",
        "RAY_AUTH_MODE": "token-mode",
    }
    evidence = planted(environ)
    dirty = json.dumps([evidence.tree, evidence.missing, evidence.ray])  # not only what is planted is looked for
    assert all(secret in dirty for name, secret in SECRETS.items())
    files = opened(cleaned(evidence, environ, keys=True, secret=SECRETS["cli"]))
    for name, content in files.items():
        assert [what for what, secret in SECRETS.items() if secret in content] == [], name
        assert "s3cr3t" not in content, name
        assert "hunter2" not in content, name
    assert "RAY_AUTH_MODE" in files["about.json"]
    assert "OTEL_EXPORTER_OTLP_HEADERS" in files["about.json"]
    assert "***@host/x failed" in files["report.txt"]


@pytest.mark.parametrize(
    "text",
    [
        "partition “train” cannot be read (timed out; last listed 3 s ago)",
        "tcp://10.0.0.7:40123, process 4711 on node f0e0",
        '# HELP dataplane_keys Keys in the partition: those of groups.\ndataplane_keys{partition="train"} 7',
        "no answer within 4 s (wrong port or token?)",
        "docs/runbooks/DataPlaneQueueStalled.md",
        "basic authentication is off",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert Mask().text(text) == text


def test_secrets_of_the_environment() -> None:
    environ = {"HF_TOKEN": "abcdefgh", "A_PASSWORD": "abc", "RAY_AUTH_TOKEN_PATH": "/home/x", "PATH": "/usr/bin"}
    assert secrets_in(environ) == ("abcdefgh",)
    assert secrets_in({"OTEL_HEADERS": "a=Bearer topsecret,b=another1"}) == (
        "a=Bearer topsecret,b=another1",
        "Bearer topsecret",
        "topsecret",
        "another1",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PWD", "/home/me/run"),
        ("OLDPWD", "/home/me"),
        ("TOKENIZER", "/models/one"),
        ("TOKENIZERS_PARALLELISM", "disabled"),
        ("MAX_TOKENS", "131072"),
        ("SECRET_TYPE", "kubernetes"),
    ],
)
def test_the_environment_has_words_that_only_look_like_secrets(name: str, value: str) -> None:
    assert secrets_in({name: value, "DB_PWD": "hunter22", "API_TOKENS": "one,two,three"}) == (
        "one,two,three",
        "hunter22",
    )


def test_the_ids_of_groups_and_keys_are_left_out_on_demand() -> None:
    end = played("no-rollouts")
    groups = {"X": [{"partition": "train", "group_id": "g99", "first_keys": ["g99/0"], "keys": 4, "state": "ready"}]}
    evidence = Evidence("here", TAKEN, end.snapshot, {"recent": end.recent}, {**groups, **named_groups(end.snapshot)})
    named = re.compile(r"\bg\d+\b")
    assert named.search(opened(cleaned(evidence, {}, keys=True))["report.txt"])
    for name, content in opened(cleaned(evidence, {}, keys=False)).items():
        assert named.search(content) is None, name
        assert "TrainerStarved" in content or name.startswith(("history", "groups"))


def test_hostile_names_are_visible() -> None:
    snapshot = rich_snapshot()
    held = Condition(
        "Odd", "queue", "critical", True, text="\x1b[2J gone\u202e", partitions=(ODD_NAME,), groups=("\x1b]0;x",)
    )
    incident = Incident(TAKEN, "ping", "ping", "DataPlaneTimeout", "a\r\nb\x07")
    evidence = Evidence(
        "here", TAKEN, replace(snapshot, conditions=(held,), incidents=(incident,)), metrics=b"# \x1b[31m\n"
    )
    for name, content in opened(cleaned(evidence, {}, keys=True)).items():
        assert [sign for sign in content if not sign.isprintable() and sign != "\n"] == [], name


def test_a_file_that_is_too_large_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "MAX_FILE_BYTES", 100_000)
    evidence = Evidence("here", TAKEN, rich_snapshot(), metrics=b"# x\n" * 30_000)
    files = opened(cleaned(evidence, {}, keys=True))
    assert "metrics.txt" not in files
    assert "metrics.txt: has 120000 bytes, more than 100000" in files["report.txt"]
