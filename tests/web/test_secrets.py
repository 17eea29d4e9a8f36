"""The real exporter's log contains no secret, at debug level, while everything that could log one fails."""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
from pathlib import Path

import bcrypt
import pytest

from exporter.demo.stack import free_port
from tests.support.certificates import Authority
from tests.support.exporter_process import ExporterProcess
from tests.support.otlp_receiver import http_receiver
from tests.support.waiting import wait_until

SECRETS = {
    "header": "hdr-8f1c2e",
    "percent-encoded header": "hdr 77aa/01",
    "bearer": "brr-5d4c3b",
    "trace header": "trc-c0ffee",
    "url password": "url-pa55@w:rd",
    "ray token": "ray-0badcafe0badcafe",
    "password": "web-hunter22",
    "wrong password": "web-hunter23",
    "query": "qry-a1b2c3",
}

# Stands in for a Ray that says its token when it fails; the real one is not known to.
_INDISCREET_RAY = """
import os
raise ImportError("no Ray for " + os.environ["RAY_AUTH_TOKEN"])
"""


def everything(secret: str) -> list[str]:
    """Return the forms in which a secret may be written."""
    quoted = secret.replace("/", "%2F").replace(" ", "%20").replace("@", "%40").replace(":", "%3A")
    return [secret, quoted, base64.b64encode(secret.encode()).decode().rstrip("=")]


@pytest.mark.parametrize(("protocol", "log_format"), [("http/protobuf", "text"), ("grpc", "json")])
def test_the_log_of_failing_exports_has_no_secret(tmp_path: Path, protocol: str, log_format: str) -> None:
    hashed = bcrypt.hashpw(SECRETS["password"].encode(), bcrypt.gensalt(4)).decode()
    pair = Authority(tmp_path).issue("server")
    web = tmp_path / "web.yml"
    web.write_text(
        f"tls_server_config: {{cert_file: {pair.cert}, key_file: {pair.key}}}\n"
        f"basic_auth_users: {{alice: '{hashed}'}}\n"
    )
    (tmp_path / "ray.py").write_text(_INDISCREET_RAY)
    (tmp_path / "transfer_queue.py").write_text("")
    token_file = tmp_path / "token"
    token_file.write_text(SECRETS["ray token"])
    in_url = SECRETS["url password"].replace("@", "%40").replace(":", "%3A")
    env = {
        "PYTHONPATH": str(tmp_path),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://me:{in_url}@127.0.0.1:{free_port()}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_HEADERS": (
            f"x-key={SECRETS['header']},x-odd=hdr%2077aa%2F01,authorization=Bearer%20{SECRETS['bearer']}"
        ),
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"x-key={SECRETS['trace header']}",
        "OTEL_TRACES_SAMPLER": "always_on",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
        "OTEL_BSP_SCHEDULE_DELAY": "500",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": SECRETS["ray token"],
        "RAY_AUTH_TOKEN_PATH": str(token_file),
    }
    flags = ["--log-level", "debug", "--log-format", log_format, "--web.config.file", str(web)]
    with (
        socket.create_server(("127.0.0.1", 0)) as mute,
        ExporterProcess(*flags, "--ray-address", f"127.0.0.1:{mute.getsockname()[1]}", env=env) as exporter,
    ):
        for password in (SECRETS["wrong password"], SECRETS["password"]):
            ask(exporter, password)
        web.write_text(f"basic_auth_users: {{alice: {SECRETS['password']}}}\n")
        ask(exporter, SECRETS["password"])
        wait_until(lambda: exporter.log.lower().count("push") + exporter.log.lower().count("export") > 2, "a push")
        wait_until(lambda: "cannot ask Ray" in exporter.log, "a failed look-up")
        exporter.stop()
        log = exporter.log
    assert "is not used" in log
    assert "/metrics" in log
    for name, secret in [*SECRETS.items(), ("hash", hashed), ("hash's end", hashed[-20:])]:
        for form in everything(secret):
            assert form not in log, f"{name} as {form!r}:\n{log}"


def ask(exporter: ExporterProcess, password: str) -> None:
    host, _, port = exporter.url.partition("//")[2].partition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, int(port), timeout=60, context=context)
    given = base64.b64encode(f"alice:{password}".encode()).decode()
    connection.request("GET", f"/metrics?token={SECRETS['query']}", headers={"Authorization": f"Basic {given}"})
    assert SECRETS["password"] not in connection.getresponse().read().decode()
    connection.close()


def test_a_receiver_that_refuses_puts_no_header_into_the_log() -> None:
    with http_receiver() as receiver:
        receiver.status = 401
        env = {
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={SECRETS['header']}",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
        }
        flags = ("--log-level", "debug", "--controller", "tcp://127.0.0.1:1", "--otlp", receiver.url)
        with ExporterProcess(*flags, env=env) as exporter:
            wait_until(lambda: "401" in exporter.log, "a refused push")
            exporter.stop()
            assert SECRETS["header"] not in exporter.log


def test_the_configuration_is_printed_without_passwords(capfd: pytest.CaptureFixture[str]) -> None:
    from exporter import cli

    url = "http://me:url-pa55@127.0.0.1:4318"
    assert cli.main(["check-config", "--otlp", url]) == 0
    assert cli.main(["check-config", "--otlp", url.replace("4318", "port")]) == 2
    assert cli.main(["check-config", "--otlp", "http://127.0.0.1:4318?key=qry-a1b2c3"]) == 2
    assert cli.main(["check-config", "--otlp", "http://me:url-pa55?x@127.0.0.1:4318"]) == 2
    out, err = capfd.readouterr()
    assert "url-pa55" not in out + err
    assert "qry-a1b2c3" not in out + err
