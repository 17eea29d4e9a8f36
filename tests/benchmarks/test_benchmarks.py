"""The benchmarks' own parts. ``make bench-quick`` runs the benchmarks themselves."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from importlib import resources
from itertools import chain
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import performance
from benchmarks.__main__ import load
from benchmarks.fleet_exporters import Simulated
from benchmarks.machine import describe
from benchmarks.otlp import push, receiver
from benchmarks.poll import Case, Replayed, measure_case, state_growth
from benchmarks.replay import Replay
from benchmarks.rows import SHAPES, Queue
from benchmarks.runner import NAMES, Benchmark, Column, Report, exponent
from dataplane.adapters.wire import WireMetadataReader
from exporter.config import Otlp

RULES = ("alerts", "recording")
FOLDER = Path(performance.__file__).parent


def test_each_benchmark_is_run() -> None:
    modules = {file.stem for file in FOLDER.glob("*.py") if "\nBENCHMARK = Benchmark(" in file.read_text()}
    assert modules == set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "instrument"])
def test_its_quick_arguments_are_its_options(name: str) -> None:
    benchmark = load(name)
    assert benchmark.name == name
    assert benchmark._parser().parse_args(shlex.split(benchmark.quick))


# The runner


def half(report: Report, options: argparse.Namespace) -> None:
    table = report.table("half", "Half of it", (Column("keys", "keys", ",d"), Column("ratio", "ratio", ".2f")))
    table.row(keys=1000, ratio=0.5, hidden="in the JSON only")
    table.row(keys=2000)
    table.note("One row has no ratio.")
    report.bar("half", 0.5, 0.4)


HALF = Benchmark("half", "Halves.", half, "")


def test_rows_are_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "half.json"
    assert HALF.main(["--json", str(file)]) == 1  # its bar is missed
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["1,000", "0.50"] in printed
    assert ["2,000", "\u2013"] in printed
    result = json.loads(file.read_text())
    assert result["tables"][0]["rows"] == [{"keys": 1000, "ratio": 0.5, "hidden": "in the JSON only"}, {"keys": 2000}]
    assert result["bars"] == [{"what": "half", "value": 0.5, "at_most": 0.4, "met": False}]
    assert result["command"] == "python -m benchmarks.half"
    assert result["machine"].keys() == {*describe(), "load_after"}


def test_a_quick_run_judges_nothing() -> None:
    report = Report(quick=True)
    assert HALF.run(report, [])["bars"] == []


def test_the_machine_is_described() -> None:
    machine = describe()
    assert {"cpu", "cores", "load", "python", "versions", "commit", "date"} <= machine.keys()
    assert all(machine.values())


def test_the_growth_of_a_poll_is_split_into_the_controllers_and_ours() -> None:
    report = Report()
    table = report.table("poll", "Polls", ())
    for keys in (1_000, 10_000, 100_000, 1_000_000):
        reply = keys**1.2
        row = {"keys": keys, "group": 16, "partitions": 1, "tags": "verl", "changed": 3}
        table.row(**row, reply_ms=reply, poll_ms=reply + (5_000 if keys < 10_000 else 2.0 * keys))
    state_growth(report, table)
    assert len(table.notes) == 1
    assert "its reply alone ~ keys^1.20, what the exporter adds ~ keys^1.00; fitted to 3 sizes" in table.notes[0]
    assert [(bar.met, round(bar.value, 3)) for bar in report.bars] == [(True, 1.0)]


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5])
def test_the_exponent_is_that_of_the_growth(power: float) -> None:
    sizes = [1e3, 1e4, 1e5]
    assert exponent(sizes, [7 * size**power for size in sizes]) == pytest.approx(power)


# What is polled


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0, 0.03, 1])
def test_a_queue_changes_in_that_share(shape: str, share: float) -> None:
    queue = Queue(16 * 300 - 5, 16, shape)
    before = list(queue.rows())
    cleared, put = queue.change(share)
    after = list(queue.rows())
    applied = {key: tag for key, tag in before if key not in set(cleared)} | dict(put)
    assert list(applied.items()) == after  # also in this order, as a controller has it
    assert len(after) == len(before)
    different = {key.split("_")[0] for key in chain(cleared, (key for key, _ in put))}
    assert len(different) == {0: 0, 0.03: 9, 1: 300}[share]  # 3 leave, 3 arrive, 3 get new tags


@pytest.mark.parametrize("tags", SHAPES)
def test_a_case_is_polled(tags: str) -> None:
    with Replay() as replay:
        figures = measure_case(Replayed(replay), Case(640, 16, 2, tags, 3), pairs=2)
        reader = WireMetadataReader(replay.address)
        listed = [group for name in reader.list_partitions() for group in reader.list_metadata(name)]
        reader.close()
    assert len(listed) == 640 / 16
    assert all(group.committed for group in listed)
    assert figures["ratio"] is None  # nobody else lists
    assert (figures["poll_ms"] or 0) >= (figures["reply_ms"] or 0) > 0


# The fleet


def test_simulated_exporters_differ_and_move_on() -> None:
    def scraped(one: Simulated) -> dict[tuple[str, str], float]:
        one.advance()
        body, _ = one.telemetry.scrape(None)
        families = text_string_to_metric_families(body.decode())
        samples = [sample for family in families for sample in family.samples]
        found = {(sample.name, str(sorted(sample.labels.items()))): sample.value for sample in samples}
        assert len(found) == len(samples)
        return found

    one, other = Simulated(1, partitions=2, units=2), Simulated(2, partitions=2, units=2)
    first, second = scraped(one), scraped(one)
    assert scraped(other) != first
    arrived = [name for name in first if name[0] == "dataplane_partition_groups_arrived_total"]
    assert len(arrived) == 2
    assert all(second[name] > first[name] for name in arrived)
    for each in (one, other):
        each.telemetry.shutdown(1.0)


def test_a_push_leaves_no_second_set_of_samples_for_the_next_scrape() -> None:
    with receiver() as (url, sizes):
        one = Simulated(1, otlp=Otlp(endpoint=url, interval=3600.0, timeout=30.0))
        before, _ = one.telemetry.scrape(None)
        push(one.telemetry)
        assert sizes.poll(30)
        after, _ = one.telemetry.scrape(None)
        one.telemetry.shutdown(5.0)
    assert after.count(b"\ndataplane_up ") == before.count(b"\ndataplane_up ") == 1


# The pages


RESULT = {
    "tables": [
        {
            "name": "half",
            "columns": [
                {"key": "what", "title": "what", "format": "", "width": 9},
                {"key": "ratio", "title": "ratio", "format": ".2f", "width": 9},
                {"key": "never", "title": "never", "format": ".2f", "width": 9},
            ],
            "rows": [{"what": "one", "ratio": 0.5}, {"what": "two"}],
            "notes": ["A note."],
        }
    ],
    "bars": [],
}


def test_a_table_is_written_between_its_markers() -> None:
    page = "before\n<!-- table half -->\nold\n<!-- end -->\nafter\n"
    filled = performance.fill(page, {"half": RESULT})
    assert filled == (
        "before\n<!-- table half -->\n| what | ratio |\n|---|---:|\n| one | 0.50 |\n| two | \u2013 |\n\nA note.\n"
        "<!-- end -->\nafter\n"
    )
    assert performance.fill(filled, {"half": RESULT}) == filled


def test_a_page_cannot_name_what_no_result_has() -> None:
    with pytest.raises(KeyError):
        performance.fill("<!-- table none -->\n<!-- end -->", dict.fromkeys(NAMES, RESULT))


def test_what_was_not_measured_says_so() -> None:
    page = "<!-- machine poll -->\n<!-- end -->\n<!-- table poll -->\n<!-- end -->"
    said = "**Not measured yet:** `make bench BENCHMARKS=poll`.\n"
    assert performance.fill(page, {"half": RESULT}) == page.replace("<!-- end -->", f"{said}<!-- end -->", 1)


def test_the_pages_are_up_to_date() -> None:
    assert performance.main(["--check"]) == 0


def test_every_result_is_on_a_page() -> None:
    pages = "".join(page.read_text() for page in performance.PAGES)
    tables = {table["name"] for result in performance.results().values() for table in result["tables"]}
    assert {name for name in tables if f"<!-- table {name} -->" not in pages} == set()
    assert set(performance.results()) <= set(NAMES)


def test_what_scale_drops_is_exposed_and_needed_by_no_rule() -> None:
    page = (performance.PAGES[1]).read_text()
    [block] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    shipped = resources.files("exporter.shipped")
    rules = "".join((shipped / "prometheus" / f"{name}.yaml").read_text() for name in RULES)
    one = Simulated(1)
    text = one.telemetry.scrape(None)[0].decode()
    one.telemetry.shutdown(1.0)
    families = text_string_to_metric_families(text)
    exposed = [sample for family in families for sample in family.samples]
    for drop in yaml.safe_load(block)["metric_relabel_configs"]:
        pattern, labels = re.compile(drop["regex"]), drop["source_labels"][1:]
        dropped = {
            sample.name
            for sample in exposed
            if pattern.fullmatch(";".join([sample.name, *(sample.labels.get(label, "") for label in labels)]))
        }
        assert dropped, drop
        assert labels or not {name for name in dropped if re.search(rf"\b{name}\b", rules)}, drop
