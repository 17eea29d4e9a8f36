"""The log: its two formats, suppressed repetitions, and masked secrets."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading

import pytest

from exporter.logs import JsonFormatter, RepeatFilter, TextFormatter, mask, secrets_in, setup_logging


def record(
    message: str, *args: object, level: int = logging.WARNING, at: float = 0.0, name: str = "exporter.x"
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "file.py", 1, message, args, None)
    made.created = at
    return made


def test_text_is_one_line_in_utc() -> None:
    made = record("the %s poll failed: %s", "ping", "first\nsecond", at=1_900_000_000.1239)
    assert TextFormatter().format(made) == (
        "2030-03-17T17:46:40.123Z WARNING exporter.x: the ping poll failed: first␊second"
    )


def test_json_is_one_object_per_line() -> None:
    line = JsonFormatter().format(record('say "hé"\n', level=logging.INFO, at=1_900_000_000.0))
    assert "\n" not in line
    assert json.loads(line) == {
        "time": "2030-03-17T17:46:40.000Z",
        "level": "info",
        "logger": "exporter.x",
        "message": 'say "hé"\n',
    }


def test_an_exception_comes_with_its_traceback() -> None:
    made = record("broken")
    try:
        raise KeyError("key")
    except KeyError as error:
        made.exc_info = (type(error), error, error.__traceback__)
    assert "KeyError: 'key'" in TextFormatter().format(made)
    assert "KeyError: 'key'" in json.loads(JsonFormatter().format(made))["exception"]


def test_the_same_failure_is_summed_up() -> None:
    repeats = RepeatFilter()
    passed = []
    for second in range(0, 130, 5):
        made = record("no answer within 4.%d s", second, at=1000.0 + second)
        if repeats.filter(made):
            passed.append((second, TextFormatter().format(made)[len("1970-01-01T00:16:40.000Z ") :]))
    assert [second for second, _ in passed] == [0, 60, 120]
    assert passed[0][1] == "WARNING exporter.x: no answer within 4.0 s"
    assert passed[1][1].endswith("no answer within 4.60 s (11 similar lines suppressed since the last one)")


@pytest.mark.parametrize("addresses", [("10.0.0.1", "10.9.8.7"), ("fd00::1", "fd00::BEEF:cafe", "::ffff:10.0.0.1")])
def test_the_same_failure_of_another_address_is_no_news(addresses: tuple[str, ...]) -> None:
    repeats = RepeatFilter()
    passed = [repeats.filter(record("refused a login of %s: wrong password", address)) for address in addresses]
    assert passed == [True] + [False] * (len(addresses) - 1)


def test_another_failure_is_news() -> None:
    repeats = RepeatFilter()
    assert [repeats.filter(record(text)) for text in ("refused", "silent", "refused", "silent")] == [
        True,
        True,
        False,
        False,
    ]


def test_the_same_text_of_another_logger_is_news() -> None:
    repeats = RepeatFilter()
    assert repeats.filter(record("refused"))
    assert repeats.filter(record("refused", name="exporter.y"))


def test_after_a_recovery_the_same_failure_is_news() -> None:
    repeats = RepeatFilter()
    assert repeats.filter(record("refused"))
    assert repeats.filter(record("works again", level=logging.INFO))
    assert repeats.filter(record("refused"))


def test_a_clock_that_was_set_back_silences_nothing() -> None:
    repeats = RepeatFilter()
    assert repeats.filter(record("refused", at=1000.0))
    assert repeats.filter(record("refused", at=10.0))


def test_ever_new_failures_do_not_fill_memory() -> None:
    repeats = RepeatFilter()
    for number in range(1000):
        repeats.filter(record("é" * number))
    assert len(repeats._seen) <= 256


def test_secrets_are_found_in_the_environment() -> None:
    environ = {
        "RAY_AUTH_TOKEN": "tokentoken",
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abcdef,x-key = qwerty",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x=1",
        "HOME": "/root",
    }
    assert secrets_in(environ) == {"tokentoken", "Bearer%20abcdef", "Bearer abcdef", "abcdef", "qwerty"}


def test_secrets_are_found_in_addresses() -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://me:pass%40word@collector:4318/x?api_key=querykey&b=1"}
    assert secrets_in(environ) == {"pass%40word", "pass@word", "api_key=querykey&b=1", "querykey"}
    assert secrets_in({}, ["http://me:hunter2@collector:4317", "collector:4317", "http://[", ""]) == {"hunter2"}


def test_a_text_is_masked_before_it_is_cut() -> None:
    setup_logging("text", "info", stream=io.StringIO(), environ={"RAY_AUTH_TOKEN": "tokentoken"})
    assert mask("refused tokentoken")[:16] == "refused ***"


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_secrets_are_masked(formatter: type[TextFormatter] | type[JsonFormatter]) -> None:
    made = record("push to %s with %s failed", "http://me:hunter2@collector:4318", "tokentoken")
    try:
        raise ValueError("tokentoken again")
    except ValueError as error:
        made.exc_info = (type(error), error, error.__traceback__)
    line = formatter({"tokentoken"}).format(made)
    assert "hunter2" not in line
    assert "tokentoken" not in line
    assert "http://***@collector:4318" in line


def test_our_level_holds_for_us_and_libraries_only_warn() -> None:
    stream = io.StringIO()
    setup_logging("json", "debug", stream=stream, environ={})
    logging.getLogger("exporter.x").debug("ours")
    logging.getLogger("library").info("theirs")
    logging.getLogger("library").warning("their warning")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["ours", "their warning"]


def test_setting_up_twice_writes_once() -> None:
    stream = io.StringIO()
    for _ in range(2):
        setup_logging("text", "info", stream=stream, environ={"RAY_AUTH_TOKEN": "tokentoken"})
    logging.getLogger("exporter.x").info("tokentoken")
    assert stream.getvalue().endswith("INFO    exporter.x: ***\n")
    assert stream.getvalue().count("\n") == 1


def test_threads_that_log_at_once_disturb_no_line() -> None:
    repeats = RepeatFilter()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for i in range(500):
                level = logging.INFO if i % 7 == 0 else logging.WARNING
                message = f"{number} {chr(97 + i % 26)}"
                repeats.filter(logging.LogRecord("one", level, "", 0, message, None, None))
        except BaseException as error:
            failures.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failures == []
