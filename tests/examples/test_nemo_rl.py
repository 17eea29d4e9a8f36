"""The example for NeMo RL: its tags give the groups on its page, and its hook puts our client in NeMo RL's place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dataplane.conventions import registry
from dataplane.groups import group_rows
from dataplane.partitions import role_of
from tests.situations.frameworks import nemo_rl, nemo_rl_model_calls, nemo_rl_newer

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "nemo-rl"
PAGE = (FOLDER / "README.md").read_text()

pytestmark = pytest.mark.full  # the client imports torch


def _run(source: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(source)],
        env={**os.environ, "PYTHONPATH": f"{FOLDER}:{ROOT}", **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_page_shows_what_the_program_prints_and_its_tags_are_read_as_the_frameworks() -> None:
    output = _run(
        """
        import json, nemo_rl_rows as rows
        rows.main()
        print(json.dumps([rows.GROUP, rows.MAIN, rows.NEWER, rows.STAGED]))
        """
    )
    printed, said = output.strip().rsplit("\n", 1)
    assert textwrap.indent(printed, "    ") in PAGE
    group, *tags = json.loads(said)
    played = (nemo_rl(group, 7, size=4), nemo_rl_newer(group, 7, size=4), nemo_rl_model_calls(group, 7))
    for shown, rows in zip(tags, played, strict=True):
        known = {name for tag in rows.values() for name in tag}
        assert known <= {name for tag in shown for name in tag}
        pair = [group_rows("p", dict(zip(rows, one, strict=True))) for one in (shown, list(rows.values()))]
        assert [(g.group_id, g.keys, g.state, g.weight_version) for g in pair[0]] == [
            (g.group_id, g.keys, g.state, g.weight_version) for g in pair[1]
        ]
        assert registry().schema.read_all(rows)
    assert role_of("rollout_staging") == "staging"


def test_the_hook_puts_our_client_in_the_place_of_nemo_rls(tmp_path: Path) -> None:
    record = tmp_path / "endpoint.json"
    output = _run(
        """
        import nemo_rl_hook, sys
        from types import ModuleType
        nemo_rl_hook.setup()
        sys.modules["nemo_rl"] = package = ModuleType("nemo_rl")
        sys.modules["nemo_rl.data_plane"] = package.data_plane = ModuleType("nemo_rl.data_plane")
        from nemo_rl.data_plane.factory import build_data_plane_client
        from nemo_rl.data_plane.interfaces import KVBatchMeta
        from nemo_rl.data_plane.adapters.transfer_queue import TQDataPlaneClient
        nemo_rl_hook.publish()
        print(build_data_plane_client.__module__, KVBatchMeta.__module__, TQDataPlaneClient.__module__)
        """,
        TQ_DISCOVERY_FILE=str(record),
    )
    assert output.split() == ["dataplane.factory", "dataplane.batch", "dataplane.adapters.transfer_queue.client"]
