"""Each benchmark still runs and prints its table. Its figures are not judged: a run this short measures nothing."""

from __future__ import annotations

import re
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.support.cluster import TQCluster

SHORT = {
    "groups": "64",
    "harm": "--keys 64 --bar-keys 64 --control-keys 64 --rounds 2 --window 0.5",
    "incremental": "--keys 64 --polls 2",
    "instrument": "--rounds 1 --calls 5 --puts 800 --tq",
    "million": "--keys 64 --rounds 1 --window 0.5",
    "poll": "--pairs 1 --case 64:16:recovery --case 64:16:verl --case 64:16:nemo-rl",
    "scrape": "--keys 64 128 --scrapes 2 --blocks 1 --versions 20",
}
"""The arguments of a run that takes seconds."""

TABLE = {
    "groups": r"^ +64 keys, no traces: .*^ +64 keys, with traces: ",
    "harm": r"^64 keys resident.*^ +off 1 .*^ +off 2 .*^ +exporter .*^ +back to back ",
    "incremental": r"^ +keys tags .*^ +64 recovery +0 % .*^ +64 verl +3 % .*^ +64 nemo-rl +100 % ",
    "instrument": r"^put with SDK .*^clear without SDK .*^propagate .*^8 threads, .*^a put on TransferQueue: ",
    "million": r"^64 keys in one partition, .*^one listing: .*^off .*^exporter, defaults .*^exporter, memory ",
    "poll": r"^ +keys group tags .*^ +64 +16 recovery .*^ +64 +16 verl .*^ +64 +16 nemo-rl ",
    "scrape": r"^few_keys_p50_ms .*^p99_ratio .*^series_constant +1 .*^rss_growth_mb ",
}
"""What stands in its output, in this order."""


def run(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Do as ``python -m benchmarks.<name>`` does, in this process; a crash is the test's."""
    monkeypatch.setattr(sys, "argv", [name, *SHORT[name].split()])
    monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)  # another test may have imported it
    monkeypatch.setenv("TQ_LOGGING_LEVEL", "ERROR")  # two of them set it for good
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
    assert ended.value.code in {0, 1}  # 1: missed a bar
    printed = capsys.readouterr().out
    assert re.search(TABLE[name], printed, re.MULTILINE | re.DOTALL), printed


def test_none_is_left_out() -> None:
    files = Path(__file__).parents[2].joinpath("benchmarks").glob("[a-z]*.py")
    assert SHORT.keys() == TABLE.keys() == {file.stem for file in files}


@pytest.mark.parametrize("name", ["groups", "scrape"])
@pytest.mark.parametrize("name", ["incremental", "scrape"])
def test_alone(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(name, monkeypatch, capsys)


@pytest.mark.parametrize("name", ["harm", "instrument", "million", "poll"])
def test_on_a_transfer_queue(
    name: str,
    cluster: TQCluster,
    ray_connected: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import ray

    # Where it would start a Ray of its own and connect to it, it uses the one that is there.
    monkeypatch.setattr("tests.support.cluster.TQCluster", lambda **_: nullcontext(cluster))
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    run(name, monkeypatch, capsys)
