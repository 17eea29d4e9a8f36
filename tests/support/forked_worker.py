"""Ray's workers, and drivers, as forks of a process that has imported torch: 1 s of CPU time each in place of 6 s.

Most of the time of a test cluster's start, and of each replacement of its TransferQueue, was the import of torch
and tensordict in each actor. Ray, TransferQueue and their processes stay real; only who imports is different.

:func:`install` forks the server. Ray runs this file as a script in place of its ``setup_worker.py`` (the parameter
``setup_worker_path``): it hands its arguments, environment and output over to the server, which forks the worker.
It imports nothing from this repository, like the owner of the cluster.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import Any

SOCKET = "TEST_CLUSTER_WORKER_SOCKET"
_LARGEST_REQUEST = 2**20
# What workers import: torch, and what Ray and TransferQueue import of other projects.
_PRELOADED = "torch", "tensordict", "jsonschema", "msgpack", "msgspec", "omegaconf", "psutil", "requests", "zmq.asyncio"
_SUCCEEDED = b"1"
_DEFAULT_RUNTIME_ENV: dict[str, Any] = {
    "command_prefix": [],
    "override_worker_entrypoint": None,
    "java_jars": [],
}


def install(path: str, modules: Sequence[str] = (), **parameters: Any) -> None:
    """Let workers of the Ray that this process will start be forks: import what they need, serve, patch Ray.

    Args:
        path: Of the server's socket.
        modules: What workers need besides.
        parameters: More of Ray's internal parameters.
    """
    for module in (*_PRELOADED, *modules):
        importlib.import_module(module)
    serve(path)

    from ray._private import parameter

    class ForkingRay(parameter.RayParams):  # type: ignore[misc]  # has no types
        def __init__(self, **given: Any) -> None:
            super().__init__(**given, setup_worker_path=os.path.abspath(__file__), **parameters)

    parameter.RayParams = ForkingRay


def serve(path: str) -> None:
    """Fork the server, which listens at *path* and ends with the calling process.

    Call it when what workers need is imported and Ray is not: Ray's C++ half reads the worker's identity from
    the environment when it is imported.
    """
    path = os.path.abspath(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen(64)
    os.environ[SOCKET] = path
    alive, held = os.pipe()
    if os.fork():
        os.close(alive)  # the end of the caller closes its end
        listener.close()
        os.set_inheritable(held, False)
        return
    os.close(held)
    try:
        _fork_workers(listener, alive)
    finally:
        traceback.print_exc()
        os._exit(1)


def _fork_workers(listener: socket.socket, alive: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the workers
    while True:
        ready, _, _ = select.select([listener.fileno(), alive], [], [])
        if alive in ready:
            os._exit(0)
        connection, _ = listener.accept()
        message, descriptors, _, _ = socket.recv_fds(connection, _LARGEST_REQUEST, 3)
        if os.fork() == 0:
            listener.close()
            os.close(alive)
            connection.set_inheritable(False)
            _become_program(json.loads(message), descriptors, connection)
        connection.close()
        for descriptor in descriptors:
            os.close(descriptor)


def _become_program(request: dict[str, Any], descriptors: list[int], connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    os.setpriority(os.PRIO_PROCESS, 0, request["niceness"])
    sys.argv[:] = request["arguments"]
    sys.path[0] = os.path.dirname(sys.argv[0])
    wanted = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [folder for folder in wanted if folder and folder not in sys.path]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
        connection.send(_SUCCEEDED)
    except SystemExit as error:
        if not error.code:
            connection.send(_SUCCEEDED)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def run(
    path: str,
    arguments: list[str],
    environment: dict[str, str],
    folder: str,
    descriptors: list[int],
    timeout_s: float | None = None,
) -> bool:
    """Run a Python program as a fork of the server at *path*, and return whether it succeeded.

    Args:
        path: Where the server listens.
        arguments: The program's file and its arguments.
        environment: All of its environment variables.
        folder: Its working directory.
        descriptors: Its standard input, output and error.
        timeout_s: How long to wait for its end, None for ever.

    Raises:
        TimeoutError: It has not ended in time, and goes on.
    """
    request = {
        "arguments": arguments,
        "environment": environment,
        "folder": folder,
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(timeout_s)
        connection.connect(path)
        socket.send_fds(connection, [json.dumps(request).encode()], descriptors)
        return connection.recv(1) == _SUCCEEDED  # or nothing when the program, which holds the other end, is gone


def main() -> None:
    """Have the worker forked, and stay until it ends; Ray's own script runs where it needs a runtime environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--serialized-runtime-env-context", default="{}")
    parser.add_argument("--language")
    options, arguments = parser.parse_known_args()
    runtime_env = json.loads(options.serialized_runtime_env_context)
    executable = runtime_env.pop("py_executable", sys.executable)
    variables = runtime_env.pop("env_vars", {})
    if options.language != "PYTHON" or executable != sys.executable or runtime_env not in ({}, _DEFAULT_RUNTIME_ENV):
        runpy.run_module("ray._private.workers.setup_worker", run_name="__main__")
        return
    run(os.environ[SOCKET], arguments, {**os.environ, **variables}, os.getcwd(), [0, 1, 2])


if __name__ == "__main__":
    main()
