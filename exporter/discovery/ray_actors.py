"""Ray's own records of actors and nodes, for a diagnosis: asked in a short-lived process, like the look-ups.

It calls no actor and reads no object: Ray's records alone tell states, nodes and process ids.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from dataplane.discovery.actor import actor_records
from exporter.discovery.ray_child import run_child
from exporter.discovery.ray_driver import NoRayError, connect, one_line

__all__ = ["RayRecordsError", "main", "read_records"]

_COMMAND: Final = (
    sys.executable,
    "-c",
    "import sys; sys.path[:] = filter(None, sys.path); from exporter.discovery.ray_actors import main; main()",
)
_MAX_ACTORS: Final = 500
_MAX_NODES: Final = 500
_DEAD: Final = "DEAD"


class RayRecordsError(Exception):
    """Ray's records cannot be had. ``str()`` says why."""


def read_records(address: str, timeout_s: float) -> dict[str, Any]:
    """Return the actors and nodes of the cluster at *address*, as JSON values: ``actors`` and ``nodes``.

    Args:
        address: ``auto``, ``HOST:PORT`` of the GCS, or ``ray://HOST:PORT``.
        timeout_s: Hard deadline in seconds; the process that asks is killed then.

    Raises:
        RayRecordsError: There is no Ray, or it gave no answer in time.
    """
    try:
        output, said = run_child([*_COMMAND, address, "--deadline", str(timeout_s)], timeout_s)
        answer = msgspec.json.decode(output, type=dict[str, Any]) if output.strip() else {"error": ""}
    except (OSError, msgspec.DecodeError) as error:
        raise RayRecordsError(f"Ray at {address} cannot be asked: {error}") from error
    if "error" in answer:
        raise RayRecordsError(f"Ray at {address}: {answer['error']}{said}")
    return answer


def main(arguments: list[str] | None = None) -> None:
    """Print Ray's records as one line of JSON, or ``{"error": …}``, and end the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--deadline", type=float, required=True)
    options = parser.parse_args(arguments)
    # The kernel ends this process even when the parent is gone and Ray blocks every thread.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(options.deadline) + 1)
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    try:
        answer = msgspec.json.encode(_records(connect(options.address)))
    except NoRayError as error:
        answer = msgspec.json.encode({"error": str(error)})
    except Exception as error:  # report it here: Ray's exit handlers can block
        answer = msgspec.json.encode({"error": one_line(error)})
    with os.fdopen(answer_fd, "wb") as pipe:
        pipe.write(answer + b"\n")
    # Skip Ray's exit handlers: they can block or end other processes, and nothing here needs them.
    os._exit(0)


def _records(ray: Any) -> dict[str, Any]:
    actors = actor_records()
    # Those of TransferQueue first, then what lives, then the last that died.
    actors.sort(key=lambda one: (not _is_ours(one), one["State"] == _DEAD, -float(one.get("EndTime") or 0)))
    return {
        "actors": [_actor(one) for one in actors[:_MAX_ACTORS]],
        "actors_left_out": max(len(actors) - _MAX_ACTORS, 0),
        "nodes": [_node(one) for one in ray.nodes()[:_MAX_NODES]],
    }


def _is_ours(record: Mapping[str, Any]) -> bool:
    return str(record.get("Name") or "").startswith("TransferQueue")


def _actor(record: Mapping[str, Any]) -> dict[str, Any]:
    cause = getattr(record.get("DeathCause"), "actor_died_error_context", None)
    story = "" if record["State"] != _DEAD or cause is None else one_line(getattr(cause, "error_message", ""))
    return {
        "name": record.get("Name") or "",
        "class": record.get("ActorClassName") or "",
        "state": record["State"],
        "actor_id": record["ActorID"],
        "job_id": record.get("JobID"),
        "node_id": record["Address"]["NodeID"],
        "address": record["Address"]["IPAddress"],
        "pid": record.get("Pid"),
        "restarts": record.get("NumRestarts"),
        "death": story,
    }


def _node(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "node_id": record.get("NodeID"),
        "alive": record.get("Alive"),
        "address": record.get("NodeManagerAddress"),
        "host": record.get("NodeManagerHostname"),
        "resources": record.get("Resources"),
    }


if __name__ == "__main__":
    main()
