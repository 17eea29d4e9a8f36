"""The command line: exit codes, one-line errors, and the modules that it loads."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from dataplane.discovery.record import Endpoint
from dataplane.groups import GROUP_STATES
from exporter import cli
from exporter.conditions import Judge
from exporter.config import Config, ConfigError, load_config
from exporter.model.history import History
from exporter.model.occupancy import nothing
from exporter.model.snapshot import (
    ALL_PARTITIONS,
    LAG_BUCKETS,
    PartitionState,
    PartitionStatus,
    RoleFlow,
    Snapshot,
    SourceState,
    StorageState,
    encode_snapshot,
)
from exporter.model.tasks import PartitionSamples, TaskState
from exporter.terminal.table import print_snapshot
from tests.support.clock import StoppedClock

CONTROLLER = "tcp://127.0.0.1:1"  # nothing listens there


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the real command in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TQ_EXPORTER_")}
    return subprocess.run(
        [sys.executable, "-m", "exporter.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, **(env or {})},
        check=False,
    )


def snapshot() -> Snapshot:
    return Snapshot(
        taken_at=1_900_000_000.0,
        started_at=1_900_000_000.0,
        discovery="found",
        up=True,
        endpoint=Endpoint(address="tcp://10.0.0.1:5555", backend="SimpleStorage"),
        partitions=(
            PartitionState(
                partition="train[bold]",
                listed_at=1_900_000_000.0,
                groups={"ready": 3, "incomplete": 1, "uncommitted": 0, "failed": 0, "taken": 5},
                keys=64,
                size_bytes=2048,
                newest_version=7,
                oldest_version=5,
                reference_version=8,
                reference="published",
                staleness=dict.fromkeys(LAG_BUCKETS, 0) | {"1": 2},
                staleness_max=3,
                staleness_mean=1.5,
            ),
        ),
        storage=(
            StorageState(index=0, unit_id="TQ_STORAGE_UNIT_a", keys=64),
            StorageState(index=1, unit_id="TQ_STORAGE_UNIT_b", error_type="DataPlaneTimeout", detail="silent"),
        ),
        samples=(PartitionSamples("stream[bold]", 200, task="ref", tasks_left_out=3), PartitionSamples("val", 0)),
        tasks=(TaskState("stream[bold]", "ref", 0.25, 0.75), TaskState("stream[bold]", "train", None, 0.75)),
        sources=(SourceState("ping", "ok", up=True, duration=0.002, last_success=1_900_000_000.0),),
    )


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    heavy = ["opentelemetry", "prometheus_client", "ray", "rich", "tensordict", "torch", "transfer_queue", "zmq"]
    code = f"import exporter.cli, sys; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_no_command_prints_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert "check-config" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "once", "check-config", "healthcheck", "metrics", "demo"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"Example: tq-exporter {command}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "--pong-interval", "3"], "--pong-interval: is not a known argument; did you mean --ping-interval?"),
        (["run", "--zzz"], "--zzz: is not a known argument; the nearest is --"),
        (["run", "now"], "now: is not a known argument; see tq-exporter run --help"),
        (["run", "--ping-interval=x"], "--ping-interval: 'x' is not a duration; write it as 250ms, 5s, 2m or"),
        (["run", "--ray-address", "local"], "--ray-address: 'local' would start a new Ray; write auto, HOST:PORT"),
        (["run", "--controller", "10.0.0.1:1"], "--controller: '10.0.0.1:1' is not the address of a controller;"),
        (["run", "--listen"], "argument --listen: expected one argument; see tq-exporter run --help"),
        (["diagnose", "--url", "h:1", "--controller", "tcp://h:2"], "--controller: cannot be used with --url: that"),
        (["top", "--discovery-file", "x", "--url", "h:1"], "--discovery-file: "),
        (["rum"], "argument COMMAND: invalid choice: 'rum'"),
        (["check-config", "no.yaml"], "no.yaml: there is no such file;"),
        (["metrics", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], line: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"tq-exporter: {line}")
    assert ended.stderr.count("\n") == 1
    assert ended.stdout == ""


def test_a_port_in_use_is_named_with_the_remedy() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = run("run", "--controller", CONTROLLER, "--listen", address)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"tq-exporter: listen: cannot listen on {address}: Address already in use; ")
    assert "--listen" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "command"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "check-config"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "run"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "run"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon", "check-config"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "sometimes", "run"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "sometimes", "check-config"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many", "once"),
    ],
)
def test_a_standard_variable_that_cannot_be_used_is_named(
    variable: str, value: str, command: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("listen: 127.0.0.1:0\ndiscovery: {controller: 'tcp://127.0.0.1:1'}\n")
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", variable: value}
    ended = run(command, *([] if command == "check-config" else ["--config"]), str(file), env=env)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith(f"tq-exporter: {variable}: {value!r} is not ")
    assert ended.stderr.count("\n") == 1


def test_check_config_prints_a_configuration_that_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "exporter.yaml"
    file.write_text("otlp: {endpoint: 'http://me:hunter2@collector:4318'}\nmax_partitions: 7\n")
    ended = run("check-config", str(file), env={"TQ_EXPORTER_RUN": "blue"})
    assert ended.returncode == 0
    assert "hunter2" not in ended.stdout + ended.stderr
    file.write_text(ended.stdout)
    config = load_config({}, {}, file)
    assert (config.run, config.max_partitions) == ("blue", 7)


OWN = r"""
conventions:
  mine:
    group: {key: '(?P<group>.+)_s\d+'}
    weight_version: {tag: policy_version}
    ignore: {tag: pad, values: [true]}
partitions:
  'train_\d+': {convention: mine, group_size: 2}
"""
ROWS = {
    "a_s0": {"policy_version": 7},
    "a_s1": {"policy_version": 6},
    "b_s0": {"policy_version": "x"},
    "a_s2": {"policy_version": 9, "pad": True},
    "b_s1": {},
    "lone\x1b[31m": {},
    "__schema__:x": {"policy_version": 1},
}


def check_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sample: object, text: str = OWN
) -> tuple[int, str, str]:
    (tmp_path / "exporter.yaml").write_text(text)
    file = tmp_path / "rows.json"
    if isinstance(sample, bytes):
        file.write_bytes(sample)
    elif sample is not None:
        file.write_text(json.dumps(sample))
    code = cli.main(["check-config", str(tmp_path / "exporter.yaml"), "--sample", str(file)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_sample_shows_how_its_rows_would_be_grouped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = {"train_1": ROWS, "val": {"u_g0": {"weight_version": 3}, "v": {"weight_version": 4}}, "rest": {}}
    assert check_sample(tmp_path, capsys, sample) == (
        0,
        """\
partition train_1: 7 rows, convention mine
  2 groups: 1 ready, 1 uncommitted
  group  state        version  expected  keys
  a      ready        6        2         a_s0, a_s1
  b      uncommitted  ?        2         b_s0, b_s1
  ignored: a_s2, __schema__:x
  bare, of no group yet: lone␛[31m
  malformed: b_s0
partition val: 2 rows, convention nemo-rl, chosen by auto
  2 groups: 2 ready
  group  state  version  expected  keys
  u      ready  3        ?         u_g0
  v      ready  4        ?         v
partition rest: 0 rows, convention nemo-rl, chosen by auto
  0 groups: none
""",
        "",
    )


def test_a_sample_may_be_the_rows_of_one_partition(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = check_sample(tmp_path, capsys, {key: tag for key, tag in ROWS.items() if key.startswith("a")})
    assert (code, out.splitlines()[0]) == (0, "rows of no partition: 3 rows, convention mine, chosen by auto")
    verl = {f"u_{n}_0": {"status": "success", "global_steps": 3, "min_global_steps": 2} for n in range(5)}
    code, out, _ = check_sample(tmp_path, capsys, {"u": {"is_prompt": True, "status": "finished"}, **verl}, "")
    assert out.splitlines()[3:] == [
        "  u      ready  2        ?         u, u_0_0, u_1_0, u_2_0, … (6 keys)",
        "  version that the rows say the trainer has finished: 2",
    ]


def test_a_large_sample_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = check_sample(tmp_path, capsys, {f"u{n}_g0": {"weight_version": 1} for n in range(60)})
    assert out.splitlines()[1] == "  60 groups: 60 ready"
    assert out.splitlines()[-2:] == ["  u49    ready  1        ?         u49_g0", "  … and 10 more groups"]


@pytest.mark.parametrize("sample", [{}, {"a": {}}, {"a": None}, {"a": [1], "b": {"c": {}}}, {"a": {"b": {}, "v": 1}}])
def test_any_mapping_is_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str], sample: object) -> None:
    code, out, err = check_sample(tmp_path, capsys, sample)
    assert (code, err) == (0, "")
    assert out.startswith("rows of no partition: ")


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (None, ": there is no such file; give the path of a JSON file to --sample"),
        (b"{\n'a': 1}", ":2: is not valid JSON (Expecting property name enclosed in double quotes); write {KEY: TAG}"),
        (b"\xff\xfe", ": is not valid JSON; write {KEY: TAG} or {PARTITION: {KEY: TAG}}"),
        (b"[" * 100_000, ": is not valid JSON; write"),
        (b'{"a": ' + b"9" * 5000 + b"}", ": is not valid JSON; write"),
        ([1], ": has a list at the top; write {KEY: TAG} or {PARTITION: {KEY: TAG}}, as kv_list returns it"),
    ],
)
def test_a_sample_that_cannot_be_read_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], sample: object, said: str
) -> None:
    code, out, err = check_sample(tmp_path, capsys, sample)
    assert (code, out) == (2, "")
    assert err.startswith(f"tq-exporter: {tmp_path / 'rows.json'}{said}")
    assert err.count("\n") == 1


def test_what_is_not_installed_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"discovery\.ray_address: needs ray and transfer_queue"):
        cli._check_packages(Config())
    with pytest.raises(ConfigError, match="reader: needs ray and transfer_queue"):
        cli._check_packages(load_config({"--controller": CONTROLLER, "--reader": "client"}, {}))
    cli._check_packages(load_config({"--controller": CONTROLLER}, {}))


def test_once_says_why_nothing_answered() -> None:
    ended = run("once", "--json", "--controller", CONTROLLER)
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["up"] is False
    assert ended.stderr.startswith("tq-exporter: TransferQueue did not answer: ping: ")
    assert ended.stderr.count("\n") == 1


def test_once_says_why_nothing_was_found(tmp_path: Path) -> None:
    ended = run("once", "--discovery-file", str(tmp_path / "tq.json"))
    assert ended.returncode == 1
    assert ended.stderr.endswith(f"discovery: {tmp_path / 'tq.json'} does not exist yet\n")


def test_once_succeeds_when_it_answered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from exporter import app

    monkeypatch.setattr(app, "poll_once", lambda config: snapshot())
    monkeypatch.setattr(cli, "setup_logging", lambda *args, **options: None)
    assert cli.main(["once", "--json", "--controller", CONTROLLER]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(encode_snapshot(snapshot()))


def test_once_may_watch_for_a_while(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from exporter import app

    watched: list[float] = []
    flow = RoleFlow("train", 5, 0, dict.fromkeys(GROUP_STATES, 0), 0, 0)

    def watch(config: Config, seconds: float) -> Snapshot:
        watched.append(seconds)
        return replace(snapshot(), role_flows=(flow,))

    monkeypatch.setattr(app, "watch", watch)
    monkeypatch.setattr(cli, "setup_logging", lambda *args, **options: None)
    assert cli.main(["once", "--watch", "90s", "--controller", CONTROLLER]) == 0
    assert watched == [90.0]
    shown = capsys.readouterr().out
    assert "Groups in the last 90 s, at least" in shown
    assert ["train", "5", *"00000000"] in [line.split() for line in shown.splitlines()]


@pytest.mark.parametrize("duration", ["0s", "2h", "soon", "nan"])
def test_a_watch_of_no_sensible_duration_is_refused(duration: str) -> None:
    ended = run("once", "--watch", duration)
    assert ended.returncode == 2
    assert "--watch" in ended.stderr


def test_the_table_shows_what_is_known_and_marks_what_is_not() -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    print_snapshot(snapshot(), console)
    shown = console.export_text()
    lines = [line.split() for line in shown.splitlines()]
    assert "TransferQueue up at tcp://10.0.0.1:5555, SimpleStorage, 17:46:40 UTC" in shown
    assert ["train[bold]", "train", "3", "1", "0", "0", "5", "64", "2.0", "KiB", "5..7", "8", "published"] in lines
    assert ["train[bold]", "0", "0", "2", "0", "0", "0", "0", "0", "0", "1.50", "3"] in lines
    assert "!" not in shown
    assert ["0", "TQ_STORAGE_UNIT_a", "ok", "64", "-", "?"] in lines
    assert ["stream[bold]", "200", "ref*", "25.0%", "75.0%"] in lines
    assert ["train", "?", "75.0%"] in lines
    assert ["(3", "more)"] in lines
    assert ["val", "0"] in lines
    assert ["1", "TQ_STORAGE_UNIT_b", "silent", "?", "?", "?", "the", "start"] in lines
    assert ["ping", "ok", "2.0", "ms", "17:46:40", "UTC"] in lines


def test_the_table_names_what_is_wrong_or_unknown() -> None:
    at = 1_900_000_000.0
    train = replace(
        snapshot().partitions[0],
        orphaned=2,
    )
    statuses = (
        PartitionStatus("a\nb", False, "not_listable"),
        PartitionStatus("val", False, "timeout", at - 30, "eval"),
        PartitionStatus("train", True, None, at),
    )
    console = Console(width=160, record=True, file=io.StringIO())
    seen = replace(snapshot(), partitions=(train,), statuses=statuses, trained=train)
    print_snapshot(Judge(History(StoppedClock(at))).judge(seen), console)
    shown = " ".join(console.export_text().split())
    assert (
        r"! generation and training are not evaluated, because partition “a␊b” cannot be read (not listable: samples "
        "were put without keys; never listed), partition “val” cannot be read (timed out; last listed 30 s ago)"
    ) in shown
    assert "! 2 taken groups of partition “train[bold]” are orphaned: the trainer's version has increased" in shown


@pytest.mark.parametrize(("listed", "said"), [(True, "(none)"), (False, "(not known)")])
def test_no_partition_is_not_the_same_as_none_known(listed: bool, said: str) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    total = nothing(ALL_PARTITIONS, 1_900_000_000.0) if listed else None
    print_snapshot(replace(snapshot(), partitions=(), total=total), console)
    assert f"\n{said}" in console.export_text()


def test_the_table_of_nothing_shows_no_zero() -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    print_snapshot(Snapshot(taken_at=1_900_000_000.0, started_at=1_900_000_000.0), console)
    shown = console.export_text()
    assert "TransferQueue down (never found)" in shown
    assert "Partitions" not in shown
