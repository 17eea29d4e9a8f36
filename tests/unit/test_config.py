"""The configuration: its layers, its checks, and the one-line message of each error."""

from __future__ import annotations

import contextlib
import math
import re
import textwrap
from pathlib import Path

import msgspec
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataplane import conventions
from dataplane.conventions import ConventionTags, GroupFrom, TagNamed, TagWith
from dataplane.environment import CLIENT_VARIABLES
from dataplane.partitions import check_pattern
from exporter.config import (
    SETTINGS,
    Config,
    ConfigError,
    Listen,
    Metadata,
    Partition,
    Ping,
    Setting,
    dump_config,
    load_config,
    values,
)
from exporter.config.addresses import mask_url

ROOT = Path(__file__).parents[2]
INVALID = sorted((ROOT / "tests" / "config").glob("invalid-*.yaml"))


def load(flags: dict[str, object] | None = None, env: dict[str, str] | None = None, file: Path | None = None) -> Config:
    return load_config(flags or {}, env or {}, file)


def write(folder: Path, text: str) -> Path:
    path = folder / "exporter.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_is_the_defaults() -> None:
    assert load() == Config()


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_each_rejection_says_where_what_and_what_to_do(path: Path) -> None:
    expected = path.read_text(encoding="utf-8").rstrip().rpartition("# expect: ")[2]
    with pytest.raises(ConfigError) as caught:
        load(file=path)
    line = str(caught.value)
    assert expected in line.replace(f"{path}:", "", 1)
    assert line.startswith(str(path))
    assert "\n" not in line
    assert "secret" not in line
    assert caught.value.remedy


def test_flags_win_over_variables_over_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "ping: {interval: 1s}\nmetadata: {interval: 1s}\nstorage: {interval: 1s}\n")
    env = {"TQ_EXPORTER_PING_INTERVAL": "2s", "TQ_EXPORTER_METADATA_INTERVAL": "2s"}
    config = load({"--ping-interval": "3s"}, env, file)
    assert (config.ping.interval, config.metadata.interval, config.storage.interval) == (3.0, 2.0, 1.0)


def test_a_higher_layer_may_choose_another_way_to_find_the_controller(tmp_path: Path) -> None:
    file = write(tmp_path, "discovery: {file: /run/tq.json}\n")
    config = load({"--controller": "tcp://10.0.0.1:5555"}, {}, file)
    assert (config.discovery.controller, config.discovery.file) == ("tcp://10.0.0.1:5555", None)


def test_one_layer_may_choose_one_way_only() -> None:
    with pytest.raises(ConfigError, match="--discovery-file: and --controller are two ways"):
        load({"--controller": "tcp://10.0.0.1:5555", "--discovery-file": "/run/tq.json"})


def test_the_file_may_be_named_by_a_variable(tmp_path: Path) -> None:
    assert load({}, {"TQ_EXPORTER_CONFIG": str(write(tmp_path, "run: blue\n"))}).run == "blue"


@pytest.mark.parametrize("text", ["", "# nothing\n", "ping:\n", "run: null\npartitions:\n", "---\n"])
def test_empty_is_not_given(tmp_path: Path, text: str) -> None:
    assert load({"--run": None}, {"TQ_EXPORTER_RUN": ""}, write(tmp_path, text)) == Config()


def test_an_unknown_variable_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"TQ_EXPORTER_PING_INTERVALL: .* did you mean TQ_EXPORTER_PING_INTERVAL\?"):
        load({}, {"TQ_EXPORTER_PING_INTERVALL": "5s"})


def test_what_kubernetes_adds_for_a_service_of_our_name_is_ignored() -> None:
    env = {
        "TQ_EXPORTER_SERVICE_HOST": "10.0.0.1",
        "TQ_EXPORTER_SERVICE_PORT": "9464",
        "TQ_EXPORTER_SERVICE_PORT_METRICS": "9464",
        "TQ_EXPORTER_PORT": "tcp://10.0.0.1:9464",
        "TQ_EXPORTER_PORT_9464_TCP": "tcp://10.0.0.1:9464",
        "TQ_EXPORTER_PORT_9464_TCP_ADDR": "10.0.0.1",
    }
    assert load({}, env) == Config()


@pytest.mark.parametrize("variable", sorted(CLIENT_VARIABLES))
def test_the_variables_of_the_instrumentation_are_ignored(variable: str) -> None:
    assert load({}, {variable: "true"}) == Config()


def test_an_unknown_flag_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"--lissen: .* did you mean --listen\?"):
        load({"--lissen": "0.0.0.0:1"})


def test_an_unknown_flag_that_is_like_none_is_no_guess() -> None:
    with pytest.raises(ConfigError, match=r"--verbose: is not a known key; the nearest is --tensorboard, docs/"):
        load({"--verbose": True})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.yaml: there is no such file; give the path of a YAML file"):
        load(file=tmp_path / "no.yaml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file=tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "exporter.yaml"
    path.write_bytes(b"run: \xff\xfe\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(file=path)


def test_partitions_take_the_default_convention_unless_they_have_their_own(tmp_path: Path) -> None:
    text = "default_convention: verl\npartitions:\n  a.b: {group_size: 8}\n  'b\"\\n': {convention: nemo-rl}\n"
    partitions = load(file=write(tmp_path, text)).partitions
    assert partitions["a.b"] == Partition("verl", 8)
    assert partitions['b"\\n'] == Partition("nemo-rl", None)


OWN = r"""
conventions:
  mine:
    group: {tag: uid, key: '(?P<group>.+)_s\d+'}
    weight_version: {tag: policy_version}
    committed: {tag: status, values: [done, 'yes', yes, 1, 0.5]}
    failed: {tag: status, values: [error]}
    taken: {tag: status, values: [training]}
    created_at: {tag: produced_at}
    expected_num_keys: {tag: n}
    size_bytes: {tag: bytes}
    ignore: {tag: is_padding, values: [true]}
  keys: {group: {key: '(?P<group>.+)/.*'}, failed: }
"""


def test_conventions_of_ones_own(tmp_path: Path) -> None:
    text = OWN + "default_convention: mine\npartitions:\n  a: {convention: keys}\n  b: {}\n"
    config = load(file=write(tmp_path, text))
    assert config.conventions == {
        "mine": ConventionTags(
            group=GroupFrom("uid", r"(?P<group>.+)_s\d+"),
            weight_version=TagNamed("policy_version"),
            committed=TagWith("status", ("done", "yes", True, 1, 0.5)),
            failed=TagWith("status", ("error",)),
            taken=TagWith("status", ("training",)),
            created_at=TagNamed("produced_at"),
            expected_num_keys=TagNamed("n"),
            size_bytes=TagNamed("bytes"),
            ignore=TagWith("is_padding", (True,)),
        ),
        "keys": ConventionTags(group=GroupFrom(key="(?P<group>.+)/.*")),
    }
    assert config.default_convention == "mine"
    assert {name: partition.convention for name, partition in config.partitions.items()} == {"a": "keys", "b": "mine"}
    dumped = load(file=write(tmp_path, dump_config(config)))
    assert dumped == config
    assert list(map(type, dumped.conventions["mine"].committed.values)) == [str, str, bool, int, float]  # type: ignore[union-attr]


def test_a_convention_is_known_to_its_own_configuration_only(tmp_path: Path) -> None:
    load(file=write(tmp_path, OWN))
    with pytest.raises(ConfigError, match="default_convention: 'mine' is not known; choose one of auto, nemo-rl"):
        load(file=write(tmp_path, "default_convention: mine"))
    assert conventions.names() == ("auto", "nemo-rl", "recovery", "verl")


def test_a_variable_may_name_a_convention_of_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, OWN)
    assert load({}, {"TQ_EXPORTER_DEFAULT_CONVENTION": "mine"}, file).default_convention == "mine"
    with pytest.raises(ConfigError, match=r"TQ_EXPORTER_DEFAULT_CONVENTION: 'mime' is not known; did you mean mine\?"):
        load({}, {"TQ_EXPORTER_DEFAULT_CONVENTION": "mime"}, file)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("role: staging", Partition(role="staging")),
        ("label: all the train", Partition(label="all the train")),
        ("groups_per_step: 64", Partition(groups_per_step=64)),
        ("take_failed: yes", Partition(take_failed=True)),
        ("take_failed: false", Partition(take_failed=False)),
        ("committed_by_default: off", Partition(committed_by_default=False)),
        ("", Partition()),
    ],
)
@pytest.mark.parametrize("name", ["train", r"train_\d+"])
def test_settings_of_a_partition_are_read_and_shown(tmp_path: Path, name: str, written: str, read: Partition) -> None:
    config = load(file=write(tmp_path, f"partitions: {{'{name}': {{{written}}}}}\n"))
    assert config.partitions == {name: read}
    assert load(file=write(tmp_path, dump_config(config))) == config


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("role: val", "partitions.train.role: 'val' is not known; choose one of train, eval, staging"),
        ("groups_per_step: 0", "partitions.train.groups_per_step: 0 is out of range; give a whole number from 1 up"),
        ("take_failed: x", "partitions.train.take_failed: 'x' is not true or false; write true or false"),
        ("label: ''", "partitions.train.label: is empty; give a text or leave the key out"),
        ("lable: x", "partitions.train.lable: is not a known key; did you mean label?"),
    ],
)
def test_settings_of_a_partition_are_checked(tmp_path: Path, written: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file=write(tmp_path, f"partitions: {{train: {{{written}}}}}\n"))
    assert str(caught.value).partition(":1: ")[2] == said


def test_the_tasks_of_a_partition_survive_a_dump(tmp_path: Path) -> None:
    text = "partitions:\n  a: {tasks: [train, ref, train], task: ref}\n  b: {}\n"
    config = load(file=write(tmp_path, text))
    assert config.partitions["a"] == Partition(tasks=("train", "ref"), task="ref")
    dumped = dump_config(config)
    assert load(file=write(tmp_path, dumped)) == config
    assert dumped.count("tasks:") == 1


def test_keys_with_dots_are_not_taken_for_paths(tmp_path: Path) -> None:
    text = "partitions:\n  a: {convention: verl}\n  a.convention: {group_size: 2}\n"
    assert set(load(file=write(tmp_path, text)).partitions) == {"a", "a.convention"}


def test_the_ping_defaults_give_way_to_a_short_interval() -> None:
    assert load({"--ping-interval": "100ms"}).ping == Ping(interval=0.1, timeout=0.08, slo=0.08)


def test_the_slo_gives_way_to_a_short_timeout_and_is_never_above_it() -> None:
    assert load({}, {"TQ_EXPORTER_PING_TIMEOUT": "12.3456789ms"}).ping.slo == 0.0123456789


@pytest.mark.parametrize(
    ("given", "seconds"), [("5s", 5), ("250ms", 0.25), ("2m", 120), ("1h", 3600), ("5", 5), (5, 5), (1.5, 1.5)]
)
def test_durations(given: object, seconds: float) -> None:
    assert load({"--ping-interval": given}).ping.interval == seconds


@pytest.mark.parametrize(
    ("given", "listen"),
    [
        ("127.0.0.1:0", Listen("127.0.0.1", 0)),
        ("localhost:80", Listen("localhost", 80)),
        ("[::1]:9464", Listen("::1", 9464)),
    ],
)
def test_addresses_to_listen_on(given: str, listen: Listen) -> None:
    assert load({"--listen": given}).listen == listen
    assert str(listen) == given


@pytest.mark.parametrize("given", ["auto", "10.0.0.1:6379", "head.svc:6379", "[fd00::1]:6379", "ray://head:10001"])
def test_ray_addresses(given: str) -> None:
    assert load({"--ray-address": given}).discovery.ray_address == given


@pytest.mark.parametrize("given", ["", "local", "head", "head:", ":6379", "head:0", "head:6379/x", "ws://h:1", "a b:1"])
def test_what_cannot_be_a_ray_address(given: str) -> None:
    with pytest.raises(ConfigError):
        load({"--ray-address": given})


def test_the_dump_gives_the_same_configuration_again(tmp_path: Path) -> None:
    text = """
        run: blue
        listen: "[::1]:1"
        discovery: {file: /run/tq.json}
        metadata: {max_reply_bytes: 1000}
        partitions: {train: {group_size: 3}}
    """
    config = load({"--ping-interval": "1500ms", "--otlp": "http://collector:4318"}, {}, write(tmp_path, text))
    assert load(file=write(tmp_path, dump_config(config))) == config


def test_the_dump_masks_credentials() -> None:
    shown = dump_config(load({"--otlp": "https://me:hunter2@collector:4318/x"}))
    assert "https://***@collector:4318/x" in shown
    assert "hunter2" not in shown


@given(st.floats(min_value=0, max_value=86400))
@example(0.16633902174159879)
@example(1e-07)
@example(math.nextafter(86400, 0))
@example(math.nextafter(1, 0))
def test_any_duration_survives_being_shown(seconds: float) -> None:
    assert values.parse(values.show_duration(seconds), values.Duration) == seconds


@given(st.integers(min_value=1, max_value=2**63))
@example(2**30 - 2**10)
@example(2**53 + 1)
def test_any_size_survives_being_shown(count: int) -> None:
    assert values.parse(values.show_size(count), values.Size) == count


def is_name_or_pattern(name: str) -> bool:
    try:
        check_pattern(name)
    except ValueError:
        return False
    return True


@settings(deadline=None)
@given(
    run=st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
    name=st.text(st.characters(codec="utf-8")).filter(is_name_or_pattern),
    share=st.floats(min_value=0, max_value=1, exclude_min=True),
)
@example(run="\x85\ufeff\x00", name="=", share=1e-07)
@example(run="null", name="1_0", share=5e-324)
@example(run="0x1", name=r"train_\d+", share=0.5)
def test_any_configuration_survives_being_shown(
    tmp_path_factory: pytest.TempPathFactory, run: str, name: str, share: float
) -> None:
    config = Config(run=run, partitions={name: Partition()}, metadata=Metadata(max_controller_share=share))
    assert load(file=write(tmp_path_factory.getbasetemp(), dump_config(config))) == config


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_a_default_that_help_shows_is_read_as_the_same(setting: Setting) -> None:
    default = setting.get(Config())
    assert default is None or setting.parse(setting.show(default)) == default


def test_a_duration_is_shown_in_as_few_digits_as_it_takes() -> None:
    assert [values.show_duration(seconds) for seconds in (0.25, 4.0, 86400, 1e-07, 100.5)] == [
        "250ms",
        "4s",
        "86400s",
        "0.0001ms",
        "100.5s",
    ]


@pytest.mark.parametrize(
    ("variable", "lowest", "highest", "below", "above", "said"),
    [
        ("PING_INTERVAL", "100ms", "24h", "99ms", "86401", "give a duration from 100ms to 86400s"),
        ("DISCOVERY_TIMEOUT", "1", "10m", "0.9s", "601s", "give a duration from 1s to 600s"),
        ("METADATA_TIMEOUT", ".01", "1h", "9ms", "1e9", "give a duration from 10ms to 3600s"),
        ("METADATA_MAX_CONTROLLER_SHARE", "1e-9", "1", "0", "nan", "give a number above 0 and up to 1"),
        ("METADATA_MAX_REPLY_BYTES", "1", "1024GiB", "0", "1025 GiB", "give a size from 1B to 1024GiB"),
        ("METADATA_MAX_ROWS", "1", "9" * 15, "0", "-1", "give a whole number from 1 up"),
        ("MAX_PARTITIONS", " 1 ", "1000", "0", "1001", "give a whole number from 1 to 1000"),
        ("WEIGHT_VERSIONS", "0", "16", "-1", "17", "give a whole number from 0 to 16"),
    ],
)
def test_a_number_has_limits_and_an_error_names_them(
    variable: str, lowest: str, highest: str, below: str, above: str, said: str
) -> None:
    name = f"TQ_EXPORTER_{variable}"
    for good in (lowest, highest):
        load({}, {name: good})
    for bad in (below, above):
        with pytest.raises(ConfigError) as caught:
            load({}, {name: bad})
        assert str(caught.value) == f"{name}: {bad!r} is out of range; {said}"


@pytest.mark.parametrize(
    ("variable", "given", "problem"),
    [
        ("MAX_PARTITIONS", "5.5", "is not a whole number; give a whole number from 1 to 1000"),
        ("METADATA_MAX_CONTROLLER_SHARE", "1%", "is not a number; give a number above 0 and up to 1"),
        ("PING_INTERVAL", "inf", "is not a duration; write it as 250ms, 5s, 2m or a number of seconds"),
        ("STORAGE_ENABLED", "2", "is not true or false; write true or false"),
        ("OTLP_PROTOCOL", "GRPC", "is not known; choose one of http/protobuf, grpc"),
    ],
)
def test_what_is_no_value_of_its_type_is_refused(variable: str, given: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, {f"TQ_EXPORTER_{variable}": given})
    assert str(caught.value) == f"TQ_EXPORTER_{variable}: {given!r} {problem}"


@pytest.mark.parametrize(
    ("given", "enabled"),
    [("true", True), ("Yes", True), ("on", True), ("1", True), ("FALSE", False), ("no", False), (" off ", False)],
)
def test_switches(given: str, enabled: bool) -> None:
    assert load({}, {"TQ_EXPORTER_STORAGE_ENABLED": given}).storage.enabled is enabled


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("http://collector:4318/x", "http://collector:4318/x"),
        ("https://me:secret@collector:4318/x", "https://***@collector:4318/x"),
        ("http://me:secr@t/secret@collector", "http://***@collector"),
        ("me:secret@collector", "***@collector"),
        ("http://collector?token=secret", "http://collector?***"),
    ],
)
def test_credentials_in_a_url_are_masked(url: str, masked: str) -> None:
    assert mask_url(url) == masked


@settings(deadline=None)
@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()), st.dates()))
def test_a_parser_gives_a_value_or_a_bad_value(value: object) -> None:
    for setting in SETTINGS:
        with contextlib.suppress(values.BadValue):
            setting.parse(value)


def test_the_reference_file_is_the_defaults_and_has_every_key() -> None:
    reference = ROOT / "docs" / "reference-config.yaml"
    assert load(file=reference) == Config()
    text = reference.read_text(encoding="utf-8")
    assert "  # ray_address: auto\n" in text  # commented out, as its siblings stand beside it
    tree = yaml.safe_load(text)
    for setting in SETTINGS:
        *sections, name = setting.key.split(".")
        keys = tree
        for section in sections:
            keys = keys[section]
        assert name == "ray_address" or name in keys, setting.key


def test_the_documentation_names_every_key_flag_and_variable() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for setting in SETTINGS:
        for name in (setting.key, setting.env, *([setting.flag] if setting.flag else [])):
            assert f"`{name}`" in page, name


def test_the_commented_keys_of_the_reference_file_can_be_used(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "reference-config.yaml").read_text(encoding="utf-8")
    for section in ("conventions", "partitions"):
        text = text.replace(f"\n{section}: {{}}\n", f"\n{section}:\n")
    config = load(file=write(tmp_path, re.sub(r"(?m)^#(?=  )", "", text)))
    assert set(msgspec.to_builtins(config.conventions["mine"])) == set(ConventionTags.__struct_fields__)
    named = {
        key for settings in yaml.safe_load(re.sub(r"(?m)^#(?=  )", "", text))["partitions"].values() for key in settings
    }
    assert named == set(Partition.__struct_fields__)


def test_the_examples_of_the_documentation_can_be_used(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    partitions, own = (
        textwrap.dedent(block)
        for block in re.findall(r"(?m)^    (?:partitions|conventions):\n(?:(?:    .*)?\n)+", page)
    )
    assert set(load(file=write(tmp_path, partitions)).partitions) == {"rollout_data", r"train_\d+"}
    assert load(file=write(tmp_path, own)).default_convention == "mine"
    for name in (*Partition.__struct_fields__, "group.tag", "group.key", "weight_version", "expected_num_keys"):
        assert f"| `{name}` |" in page
