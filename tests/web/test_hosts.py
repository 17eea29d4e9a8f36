"""Which host names a client may use."""

from __future__ import annotations

import socket

import pytest

from exporter.web.hosts import AllowedHosts


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "Node1.cluster.example")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        (None, True),
        ("", True),
        ("localhost", True),
        ("LOCALHOST:9464", True),
        ("localhost.:9464", True),
        ("page.localhost:80", True),
        ("127.0.0.1:9464", True),
        ("192.0.2.7", True),
        ("[::1]:9464", True),
        ("[fd00::beef]", True),
        ("node1:9464", True),
        ("node1.cluster.example", True),
        ("cluster.example", False),
        ("exporter.example", True),
        ("a.b.wild.example:9464", True),
        ("node1.evil.example", False),
        ("wild.example", False),
        ("notwild.example", False),
        ("evil.example", False),
        ("exporter.example.evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evillocalhost", False),
        ("exporter.example/path", False),
        ("exporter.example@evil.example", False),
        ("exporter.example, evil.example", False),
        ("[localhost]", False),
        ("::1", False),
        ("x" * 300, False),
    ],
)
def test_the_names_that_are_this_servers(host: str | None, allowed: bool) -> None:
    assert AllowedHosts(["Exporter.example.", "*.wild.example"]).allow(host) is allowed


def test_any_name_when_that_is_what_is_wanted() -> None:
    assert AllowedHosts(["*"]).allow("evil.example")
