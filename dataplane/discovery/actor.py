"""The controller as a named Ray actor: found, asked, and never created.

Importing this module is cheap; its functions import Ray.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import Any, Final

from dataplane.discovery.record import Place
from dataplane.errors import DataPlaneNotReady, DataPlaneUnavailable

__all__ = [
    "CONTROLLER_ACTOR",
    "CONTROLLER_NAMESPACE",
    "actor_record",
    "actor_records",
    "actors_of_job",
    "ask_controller",
    "check_started",
    "find_controller",
]

CONTROLLER_ACTOR: Final = "TransferQueueController"
"""The name that TransferQueue gives its controller actor in Ray, in :data:`CONTROLLER_NAMESPACE`."""

CONTROLLER_NAMESPACE: Final = "transfer_queue"

_ACTORS: Final = "TransferQueue"
"""How the names of TransferQueue's actors begin."""

_asking = threading.Lock()  # held for the moment in which a question is sent
# The id of the actor that was asked last, and Ray's references to its answers.
_asked: dict[Any, list[Any]] = {}
# The id of the actor that was asked about last, and where its job's actors run.
_places: dict[str, Mapping[str, Place]] = {}


def find_controller() -> Any:
    """Return Ray's handle of the controller of this process's cluster. Creates neither a controller nor a cluster.

    Ray has no deadline for this look-up, so the caller needs one from outside of this thread.

    Raises:
        DataPlaneUnavailable: This process is not connected to Ray.
        ValueError: Ray's own: there is no such actor.
    """
    import ray

    if not ray.is_initialized():  # ray.get_actor would start a cluster
        raise DataPlaneUnavailable("Ray is not connected in this process: call ray.init(address=...) first")
    return ray.get_actor(CONTROLLER_ACTOR, namespace=CONTROLLER_NAMESPACE)


def actor_record(actor_id: str) -> dict[str, Any]:
    """Return Ray's record of an actor; empty where none is available, as through ``ray://``."""
    try:
        from ray._private import state

        record: dict[str, Any] = state.actors(actor_id=actor_id)
    except Exception:  # a private interface: whatever it raises, the answer is "unknown"
        return {}
    return record


def actor_records() -> list[dict[str, Any]]:
    """Return Ray's records of all actors, those that died recently included.

    Raises:
        DataPlaneUnavailable: They are not available, as through ``ray://``.
    """
    try:
        from ray._private import state

        return list(state.actors().values())
    except Exception as error:  # a private interface: whatever it raises, there are no records
        raise DataPlaneUnavailable(f"Ray's records of actors are not available here: {error}") from error


def actors_of_job(actor_id: str, wanted: Collection[str] = ()) -> Mapping[str, Place]:
    """Return where the actors of TransferQueue run that are of an actor's job, by name.

    Asks Ray once per actor, since none of their processes is replaced; again while it does not know one of the *wanted*
    names, as when the last question came before the storage units. Empty where Ray's records are not available, as
    through ``ray://``.
    """
    known = _places.get(actor_id)
    if not known or not known.keys() >= set(wanted):
        known = _ask_places(actor_id)
        _places.clear()
        _places[actor_id] = known
    return known


def _ask_places(actor_id: str) -> Mapping[str, Place]:
    record = actor_record(actor_id)
    try:
        from ray import JobID
        from ray._private import state

        job = JobID(bytes.fromhex(record["JobID"]))
        records = state.actors(job_id=job, actor_state_name="ALIVE")
        return {
            one["Name"]: Place(one["ActorID"], one["Address"]["NodeID"], one["Pid"])
            for one in (*records.values(), record)
            if one["Name"].startswith(_ACTORS)
        }
    except Exception:  # a private interface: whatever it raises, the answer is "unknown"
        return {}


def check_started(actor_id: str) -> None:
    """Check that the controller's actor has a process: one without keeps a question until its deadline.

    Raises:
        DataPlaneNotReady: Ray says that it has none yet.
    """
    if actor_record(actor_id).get("State") in ("DEPENDENCIES_UNREADY", "PENDING_CREATION"):
        raise DataPlaneNotReady(
            "TransferQueue's controller is starting: Ray has not started its actor yet, for example "
            "because no CPU is free",
            operation="discover",
        )


def ask_controller(handle: Any, timeout_s: float) -> tuple[Any, Any]:
    """Return what the controller says of its sockets, and its configuration: None when it has none yet.

    A controller that is stopped never answers, and each question to it stays in this process's memory, about 30 KB. So
    a question that is not answered yet is not asked again: the next caller waits for the same answer.

    Raises:
        ray.exceptions.GetTimeoutError: No answer within *timeout_s* seconds.
        ray.exceptions.RayActorError: The actor is dead or unreachable.
    """
    import ray

    with _asking:
        answers = _asked.get(handle._actor_id)
        # An answer that came after its caller had given up may be an old one.
        if answers is None or len(ray.wait(answers, num_returns=len(answers), timeout=0)[0]) == len(answers):
            _asked.clear()
            answers = [handle.get_zmq_server_info.remote(), handle.get_config.remote()]
            _asked[handle._actor_id] = answers
    server, config = ray.get(answers, timeout=timeout_s)
    return server, config
