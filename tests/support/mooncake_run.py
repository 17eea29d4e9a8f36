"""The pytest run inside the network namespace: ``--mooncake``, its master, its cluster, and which tests are in it.

``tests/mooncake/test_mooncake.py`` starts it. It runs the contract suite and the files of ``tests/mooncake`` that are
no test of the outer run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataplane.interfaces import DataPlaneClient
from tests.support.mooncake_master import MasterProcess

__all__ = ["SEGMENT"]

SEGMENT = 64 * 2**20
"""Bytes of the one segment, which belongs to the process that owns the cluster."""

_FOLDER = Path(__file__).parents[1] / "mooncake"
_OUTER = _FOLDER / "test_mooncake.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mooncake", action="store_true", help="what tests/mooncake runs, in a network namespace")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "simple_storage: about what only TransferQueue's SimpleStorage does")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what belongs to the other run."""
    if collection_path.parent != _FOLDER or not collection_path.name.startswith("test_"):
        return None
    return True if (collection_path == _OUTER) is config.option.mooncake else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the contract, run what reaches the storage or the controller."""
    if not config.option.mooncake:
        return
    left_out = [item for item in items if item.path.parent != _FOLDER and not _is_about_storage(item)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


def _is_about_storage(item: pytest.Item) -> bool:
    """Whether a test of the contract uses TransferQueue, by a fixture or by a parameter, with any storage."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    uses = {"client", "plane"} & parameters.keys() and "noop" not in parameters.values()
    return bool(uses or "tq_client" in getattr(item, "fixturenames", ())) and not item.get_closest_marker(
        "simple_storage"
    )


@pytest.fixture(scope="session")
def mooncake_master(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MasterProcess]:
    """The master of the shared cluster. A test that kills it starts it again."""
    with MasterProcess(tmp_path_factory.mktemp("mooncake"), "-client_ttl=10") as master:
        yield master


@pytest.fixture(scope="session")
def mooncake_job(mooncake_master: MasterProcess) -> dict[str, object]:
    """TransferQueue's options for the shared cluster."""
    return {
        "metadata_server": mooncake_master.metadata_server,
        "master_server_address": mooncake_master.address,
        "protocol": "tcp",
        "global_segment_size": SEGMENT,
        "local_buffer_size": 16 * 2**20,
    }


@pytest.fixture(scope="session")
def mooncake_store(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep this process's store open from one test to the next: each close would stop the process for a second."""
    if not request.config.option.mooncake:
        yield
        return
    from dataplane.factory import build_data_plane_client

    request.getfixturevalue("shared_cluster")
    request.getfixturevalue("ray_connected")
    keeper: DataPlaneClient = build_data_plane_client(
        {"enabled": True, "mooncake_cpu": {"global_segment_size": 0, "local_buffer_size": 16 * 2**20}}, bootstrap=False
    )
    yield
    keeper.close()
