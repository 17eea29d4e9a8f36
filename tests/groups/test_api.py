"""``/api/v1/groups`` over HTTP: its answer, its refusals, and its protection."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from exporter.model.versions import VersionReference
from tests.groups.support import NOW, Listings, group, serving


def ask(url: str, **headers: str) -> tuple[int, str, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def test_an_answer_is_json_with_every_field() -> None:
    seen = Listings()
    seen.reference = VersionReference(9, "published")
    fields: dict[str, Any] = {"weight_version": 7, "created_at": NOW, "size_bytes": 5, "expected_num_keys": 3}
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    tags = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    seen.list({"train": [group("g", keys=["a", "b", "c", "d"], tags=tags, **fields)]})
    with serving(seen.groups(trace_url="https://t/{trace_id}")) as url:
        status, kind, body = ask(f"{url}/api/v1/groups?partition=train&state=incomplete&limit=5")
    assert (status, kind) == (200, "application/json")
    assert json.loads(body) == {
        "taken_at": NOW + 10,
        "up": True,
        "known": True,
        "reference_version": 9,
        "reference": "published",
        "trace_url": "https://t/{trace_id}",
        "partitions": [
            {
                "partition": "train",
                "label": "train",
                "role": "train",
                "groups": 1,
                "listed_at": NOW + 10,
                "current": True,
                "reason": None,
            }
        ],
        "partitions_left_out": 0,
        "matched": 1,
        "groups": [
            {
                "partition": "train",
                "label": "train",
                "group_id": "g",
                "state": "incomplete",
                "version": 7,
                "lag": 2,
                "keys": 4,
                "first_keys": ["a", "b", "c"],
                "expected": 3,
                "sessions": None,
                "size_bytes": 5,
                "created_at": NOW,
                "first_seen": NOW + 10,
                "state_since": NOW + 10,
                "age_seconds": 10.0,
                "age_basis": "tag",
                "malformed": 0,
                "orphaned": False,
                "trace_id": trace,
                "conditions": [],
                "departed_at": None,
                "why": [],
            }
        ],
        "cut": False,
    }


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("state=reddy", "state: 'reddy' is not one of them; it is one of ready, incomplete,"),
        ("nonsense", "'nonsense': is not a parameter; it is one of partition, state,"),
        ("a%0ab=1", "'a\\nb': is not a parameter;"),
        ("limit=-1", "limit: '-1' is out of range; give a number from 1 to 1000"),
    ],
)
def test_a_bad_parameter_is_refused_in_one_line(query: str, said: str) -> None:
    with serving(Listings().groups()) as url:
        status, kind, body = ask(f"{url}/api/v1/groups?{query}")
    text = body.decode()
    assert (status, kind) == (400, "text/plain; charset=utf-8")
    assert text.startswith(said)
    assert text.count("\n") == 1


def test_who_may_not_see_groups_is_told_why_and_finds_no_link() -> None:
    with serving(None) as url:
        assert ask(f"{url}/api/v1/groups")[::2] == (
            404,
            b"this exporter does not show groups: web.disable_groups is set\n",
        )
        assert b'<body data-groups="off">' in ask(f"{url}/")[2]
    with serving(None, page=False) as url:
        assert b"api/v1/groups" not in ask(f"{url}/")[2]
    with serving(Listings().groups(), page=False) as url:
        assert b'href="api/v1/groups"' in ask(f"{url}/")[2]


def test_groups_are_behind_the_same_passwords(tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(b"pw", bcrypt.gensalt(4)).decode()
    web_config = tmp_path / "web.yml"
    web_config.write_text(f"basic_auth_users:\n  alice: '{hashed}'\n")
    with serving(Listings().groups(), web_config) as url:
        assert ask(f"{url}/api/v1/groups")[0] == 401
        login = base64.b64encode(b"alice:pw").decode()
        assert ask(f"{url}/api/v1/groups", Authorization=f"Basic {login}")[0] == 200
