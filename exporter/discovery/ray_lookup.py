"""The Ray look-up: ``python -m exporter.discovery.ray_lookup ADDRESS --deadline SECONDS [--previous ACTOR_ID]``.

A short-lived process of its own, because Ray may block for minutes or end the process that asks it. It asks a
running Ray for the named controller actor, prints one line of JSON and exits at once: a discovery record
(:class:`dataplane.discovery.record.Endpoint`), ``{"absent": true, "ended": …, "detail": …}``, or ``{"error_type": …,
"detail": …}``; ``DataPlaneNotReady`` says that the actor is there and starting. It never creates a controller or a
cluster.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import time
import traceback
from typing import Any

import msgspec

from dataplane.discovery.actor import actor_record, actors_of_job, ask_controller, check_started, find_controller
from dataplane.discovery.record import Endpoint, encode_endpoint, endpoint_of, unit_names
from dataplane.errors import (
    DataPlaneError,
    DataPlaneTimeout,
    DataPlaneUnavailable,
    error_type,
)
from exporter.discovery import stand_ins
from exporter.discovery.ray_driver import NoRayError, connect, discovery_error, import_needed, one_line
from exporter.model.results import Absent

__all__ = ["main"]

# Part of the deadline that is reserved for reporting that nobody answered.
_RESERVE_S = 1.0


def main(arguments: list[str] | None = None) -> None:
    """Look the controller up once, print the answer on standard output and end the process."""
    parser = argparse.ArgumentParser(prog="python -m exporter.discovery.ray_lookup")
    parser.add_argument("address", help="auto, HOST:PORT or ray://HOST:PORT")
    parser.add_argument("--deadline", type=float, required=True, help="seconds until this process must have ended")
    parser.add_argument("--previous", help="Ray's id of the previous controller's actor")
    options = parser.parse_args(arguments)
    until = time.monotonic() + options.deadline
    # The kernel ends this process even when the parent is gone and Ray blocks every thread.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(options.deadline) + 1)
    # Standard output is for the answer alone; what Ray and its libraries print there goes to the log.
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    try:
        answer = _encode(_look(options.address, options.previous, until))
    except DataPlaneError as error:
        answer = _encode_error(error, str(error))
    except Exception as error:  # report it here: Ray's exit handlers can block
        traceback.print_exc()
        answer = _encode_error(error, one_line(f"the look-up failed: {type(error).__name__}: {error}"))
    os.write(answer_fd, answer + b"\n")
    # Skip Ray's exit handlers: they can block or end other processes, and nothing here needs them.
    os._exit(0)


def _encode(answer: Endpoint | Absent) -> bytes:
    if isinstance(answer, Endpoint):
        return encode_endpoint(answer)
    return msgspec.json.encode({"absent": True, "ended": answer.ended, "detail": answer.detail})


def _encode_error(error: Exception, detail: str) -> bytes:
    return msgspec.json.encode({"error_type": error_type(error), "detail": detail})


def _look(address: str, previous: str | None, until: float) -> Endpoint | Absent:
    try:
        ray = connect(address)
    except NoRayError as error:
        return Absent(ended=False, detail=str(error))
    manager = ray._private.worker.global_worker.function_actor_manager
    if stand_ins.install(manager):
        try:
            return _ask(ray, previous, until)
        except (ray.exceptions.RaySystemError, AttributeError, LookupError, TypeError):
            traceback.print_exc()  # a TransferQueue that the stand-ins do not know
        stand_ins.remove(manager)
    import_needed("transfer_queue")
    try:
        return _ask(ray, previous, until)
    except ray.exceptions.RaySystemError as error:
        raise discovery_error(DataPlaneUnavailable, f"asking the controller actor failed: {one_line(error)}") from error


def _ask(ray: Any, previous: str | None, until: float) -> Endpoint | Absent:
    try:
        controller = find_controller()
    except ValueError:
        return _absent(previous)
    actor_id = controller._actor_id.hex()
    check_started(actor_id)
    try:
        server, conf = ask_controller(controller, max(0.1, until - time.monotonic() - _RESERVE_S))
    except ray.exceptions.GetTimeoutError as error:
        raise discovery_error(DataPlaneTimeout, "the controller actor gave no answer in time") from error
    except ray.exceptions.RayActorError:
        return _absent(actor_id)
    except ray.exceptions.RaySystemError:  # as when an answer cannot be unpickled
        raise
    except ray.exceptions.RayError as error:
        raise discovery_error(DataPlaneUnavailable, f"asking the controller actor failed: {one_line(error)}") from error
    return endpoint_of(actor_id, server, conf, actors_of_job(actor_id, unit_names(conf)))


# What became of a controller.


def _absent(actor_id: str | None) -> Absent:
    """Return why there is no controller, from Ray's record of the previous one."""
    if actor_id is None:
        return Absent(ended=False, detail="Ray has no TransferQueue controller")
    record = actor_record(actor_id)
    if record.get("State") != "DEAD":
        return Absent(ended=False, detail="the controller is gone; Ray keeps no record of how it ended")
    cause = record["DeathCause"].actor_died_error_context
    story, _, _ = (cause.error_message or "the controller died").partition("Some common causes")
    return Absent(ended=_is_intended(cause), detail=one_line(story))


def _is_intended(cause: Any) -> bool:
    """Return whether Ray's record of a death says that the actor was ended on purpose.

    These count as on purpose: ``ray.kill`` (also through ``transfer_queue.close``), an actor that was told to exit or
    has no references left, and an owner that exited in an orderly way. Ray also calls a driver orderly that ended by
    SIGTERM or an uncaught exception.
    """
    reason = cause.DESCRIPTOR.fields_by_name["reason"].enum_type.values_by_number[cause.reason].name
    if reason in ("RAY_KILL", "OUT_OF_SCOPE", "REF_DELETED"):
        return True
    return re.search(r"exit type: INTENDED_USER_EXIT\b", cause.error_message) is not None


if __name__ == "__main__":
    main()
