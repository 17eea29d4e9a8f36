"""``tq-exporter rules`` and ``tq-exporter dashboards`` as a user types them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from exporter.cli import main
from exporter.shipped import rules
from exporter.shipped.thresholds import THRESHOLDS, Threshold


def thresholds(folder: Path) -> dict[str, str]:
    groups = yaml.safe_load((folder / "thresholds.yaml").read_text())["groups"]
    return {rule["record"].removeprefix("tq:threshold:"): rule["expr"] for rule in groups[0]["rules"]}


def test_rules_are_written_with_the_chosen_thresholds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "folder"
    assert main(["rules", "--set", "stalled_seconds=3600", "--set", "staleness_versions=2", "-o", str(folder)]) == 0
    written = capsys.readouterr().out.split()
    assert [Path(path).name for path in written] == [*rules.FILES, "alertmanager.yaml"]
    chosen = thresholds(folder)
    assert chosen["stalled_seconds"] == "vector(3600.0)"
    assert chosen["staleness_versions"] == "vector(2.0)"
    assert chosen["restarts_per_hour"] == "vector(3.0)"
    assert (folder / "alerts.yaml").read_text() == rules.read("alerts.yaml")
    checked = subprocess.run(["promtool", "check", "rules", *rules.FILES], check=False, cwd=folder, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_runbooks_can_be_served_elsewhere(tmp_path: Path) -> None:
    assert main(["rules", "--runbooks", "https://wiki.example/books/", "--output", str(tmp_path)]) == 0
    written = yaml.safe_load((tmp_path / "alerts.yaml").read_text())
    urls = {rule["annotations"]["runbook_url"] for group in written["groups"] for rule in group["rules"]}
    assert urls == {f"https://wiki.example/books/{name}.md" for name in rules.alerts()}


def test_the_exporters_configuration_gives_the_thresholds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "exporter.yaml"
    file.write_text("ping:\n  slo: 1s\nthresholds:\n  staleness_versions: 8\n  given_up_ratio: 0.5\n")
    arguments = ["rules", "--config", str(file), "--set", "given_up_ratio=0.6", "-o", str(tmp_path)]
    assert main(arguments) == 0
    expected = {threshold.name: f"vector({threshold.default!r})" for threshold in THRESHOLDS}
    changed = {"ping_slo_seconds": "1.0", "staleness_versions": "8.0", "given_up_ratio": "0.6"}
    assert thresholds(tmp_path) == expected | {name: f"vector({value})" for name, value in changed.items()}
    file.write_text("thresholds:\n  staleness: 8\n")
    assert main(arguments) == 2
    assert "thresholds.staleness" in capsys.readouterr().err


def test_links_to_the_page_follow_its_tls(tmp_path: Path) -> None:
    assert main(["rules", "--page-scheme", "https", "-o", str(tmp_path)]) == 0
    written = yaml.safe_load((tmp_path / "alerts.yaml").read_text())
    for group in written["groups"]:
        for rule in group["rules"]:
            name, page = rule["alert"], rule["annotations"].get("page", "")
            assert "http://" not in page
            assert page.replace("https://", "http://") == rules.alerts()[name]["annotations"].get("page", "")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("stalled_second=5", "did you mean stalled_seconds?"),
        ("ping_slo=0.5", "did you mean ping_slo_seconds?"),
        ("zzz=1", "'zzz' is not a threshold; the nearest is "),
        ("stalled_seconds", "write stalled_seconds=NUMBER, with a number from 0"),
        ("stalled_seconds=soon", "from 0"),
        ("stalled_seconds=-1", "from 0"),
        ("stalled_seconds=inf", "from 0"),
        ("stalled_seconds=nan", "from 0"),
        ("storage_used_ratio=90", "from 0 to 1"),
    ],
)
def test_a_wrong_threshold_is_one_line_and_writes_nothing(
    setting: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rules", "--set", setting, "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_list_names_every_threshold(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "--list"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert [f"tq:threshold:{name}" for name in listed] == [name for name in rules.recorded() if "threshold" in name]


def test_the_list_shows_a_default_in_all_its_digits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("exporter.shipped.thresholds.THRESHOLDS", (Threshold("long", 1234567.5, "…"),))
    assert main(["rules", "--list"]) == 0
    assert capsys.readouterr().out == "long  1234567.5  …\n"


@pytest.mark.parametrize("command", ["rules", "dashboards"])
def test_a_folder_must_be_given_and_writable(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 2
    assert "-o: give the folder" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main([command, "-o", str(tmp_path / "file")]) == 2
    assert "give a folder that can be written" in capsys.readouterr().err


def test_the_wheel_has_every_file_that_the_commands_write() -> None:
    package = Path(rules.__file__).parent
    settings = (package.parents[1] / "pyproject.toml").read_text()
    listed = re.search(r'^"exporter.shipped" = \[(.+)\]$', settings, re.MULTILINE)
    assert listed is not None
    patterns = re.findall(r'"([^"]+)"', listed[1])
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    assert {path for folder in package.iterdir() if folder.is_symlink() for path in folder.iterdir()} == shipped
