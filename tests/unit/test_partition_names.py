"""What the names of partitions tell: role, family, label, and which settings are theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataplane.partitions import MAX_LABEL, ByName, bounded_label, check_pattern, families, role_of
from dataplane.patterns import BadPattern
from exporter.config import Partition
from exporter.model.labels import Labels


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("train", "train"),
        ("rollout_data", "train"),
        ("val", "eval"),
        ("val_17", "eval"),
        ("step-3/validation", "eval"),
        ("Eval", "eval"),
        ("test", "eval"),
        ("evaluation2", "eval"),
        ("rollout_staging", "staging"),
        ("val_staging", "staging"),
        ("interval", "train"),
        ("latest", "train"),
        ("values", "train"),
        ("", "train"),
    ],
)
def test_the_role_by_the_name(name: str, role: str) -> None:
    assert role_of(name) == role


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", []),
        ("train_17", ["train_*"]),
        ("rollout_0004", ["rollout_*"]),
        ("run2/step-3", ["run2/step-*", "run*/step-3"]),
        ("3f2a9b1c7d8e", []),
    ],
)
def test_families(name: str, expected: list[str]) -> None:
    assert list(families(name)) == expected


@given(st.text(max_size=300))
def test_labels_are_bounded_and_short_names_stay(name: str) -> None:
    label = bounded_label(name)
    assert len(label) <= MAX_LABEL
    assert (label == name) == (len(name) <= MAX_LABEL)


def test_long_names_that_begin_alike_have_labels_of_their_own() -> None:
    assert bounded_label("x" * 200 + "a") != bounded_label("x" * 200 + "b")


def test_settings_are_found_by_name_and_by_regular_expression() -> None:
    found = ByName({"train.*": 1, r"train_\d+": 2, "train_1": 3, "a.b": 4})
    assert [found.get(name) for name in ("train_1", "train_2", "train", "atrain", "a.b", "axb")] == [
        3,
        1,
        1,
        None,
        4,
        None,
    ]
    assert found.names("train_1")
    assert not found.names("train_2")


def test_an_invalid_expression_is_named() -> None:
    with pytest.raises(ValueError, match="not a regular expression"):
        check_pattern("train_(")
    check_pattern("train.data")


@pytest.mark.parametrize("name", [r"train_(\d+)+x", r"(a|b)*", r".*a.*b.*c.*d", "a|b|c|d", "(?=a)b"])
def test_an_expression_that_may_take_long_is_refused(name: str) -> None:
    with pytest.raises(BadPattern):
        check_pattern(name)


def test_a_name_that_is_too_long_for_an_expression_matches_none() -> None:
    found = ByName({"train.*": 1, "x" * 300: 2})
    assert [found.get(name) for name in ("train" + "x" * 195, "train" + "x" * 196, "x" * 300)] == [1, None, 2]


def assigned(labels: Labels, *names: str, used: set[str] | None = None) -> tuple[list[str], Mapping[str, str]]:
    used = set() if used is None else used
    merged = labels.assign(names, used)
    used.difference_update(merged)
    shown = [labels[name] for name in names]
    used.update(shown)
    return shown, merged


def test_a_family_is_formed_by_its_second_member_and_takes_the_first_one_along() -> None:
    labels, used = Labels(ByName({}), 100), set[str]()
    assert assigned(labels, "train_1", "val", used=used) == (["train_1", "val"], {})
    assert assigned(labels, "train_1", "train_2", "val", used=used) == (
        ["train_*", "train_*", "val"],
        {"train_1": "train_*"},
    )
    assert assigned(labels, "train_3", used=used) == (["train_*"], {})


def test_two_members_at_first_sight_share_a_label_at_once() -> None:
    assert assigned(Labels(ByName({}), 100), "p1", "p2") == (["p*", "p*"], {})


def test_the_counters_of_a_first_member_that_is_gone_join_the_family() -> None:
    labels, used = Labels(ByName({}), 100), set[str]()
    assigned(labels, "train_1", used=used)
    assert assigned(labels, "train_2", used=used) == (["train_*"], {"train_1": "train_*"})


def test_each_name_is_read_once_while_its_partition_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noted(name: str) -> Iterator[str]:
        read.append(name)
        return families(name)

    monkeypatch.setattr("exporter.model.labels.families", noted)
    labels = Labels(ByName({}), 100)
    for _ in range(3):
        assert assigned(labels, "train_1", "train_2", "val")[0] == ["train_*", "train_*", "val"]
    assert read == ["train_1", "train_2", "val"]
    assigned(labels, "val")
    assert assigned(labels, "train_1", "val")[0] == ["train_*", "val"]
    assert read[3:] == ["train_1"]


def test_settings_decide_before_the_family() -> None:
    settings = {"train_1": Partition(), r"step-\d+": Partition(label="steps"), "long": Partition(label="y" * 200)}
    labels = Labels(ByName(settings), 100)
    shown, _ = assigned(labels, "train_1", "train_2", "train_3", "step-1", "long")
    assert shown[:4] == ["train_1", "train_*", "train_*", "steps"]
    assert len(shown[4]) == MAX_LABEL


def test_the_family_of_the_number_that_differs() -> None:
    shown, _ = assigned(Labels(ByName({}), 100), "run1/step-5", "run2/step-5", "run1/step-6")
    assert shown == ["run1/step-*", "run*/step-5", "run1/step-*"]


def test_past_the_limit_partitions_are_other_and_a_family_takes_one_place() -> None:
    labels, used = Labels(ByName({}), 2), set[str]()
    assert assigned(labels, "a", "s1", used=used)[0] == ["a", "s1"]
    assert assigned(labels, "a", "s1", "b", "s2", used=used)[0] == ["a", "s*", "other", "s*"]
