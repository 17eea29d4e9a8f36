"""Python programs as forks of a process that has imported what they need: Ray's workers, drivers, exporters.

Most of the time of a test cluster's start, and of each replacement of its TransferQueue, was the import of torch,
tensordict and Ray in each process. Ray, TransferQueue and their processes stay real; only who imports is different.

A server listens on a socket and forks a program for each request:

* :func:`install` forks one for the workers of a Ray. Ray runs this file as a script in place of its ``setup_worker.py``
  (the parameter ``setup_worker_path``): it hands its arguments, environment and output over to the server.
* ``python forked_worker.py --serve SOCKET --while PID MODULE...`` is one for the programs that tests start
  (:mod:`tests.support.forks`).

It imports nothing from this repository, like the owner of a cluster.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import importlib.util
import json
import mmap
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

SOCKET = "TEST_CLUSTER_WORKER_SOCKET"
# What workers import: torch, what Ray and TransferQueue import of other projects, and Ray.
PRELOADED = (
    *("torch", "tensordict", "jsonschema", "msgpack", "msgspec", "omegaconf", "psutil", "requests", "zmq.asyncio"),
    *(
        "aiohttp.web",
        "ray",
        "ray.util.state",
        "ray._private.runtime_env.agent.runtime_env_agent",
        "ray.dashboard.utils",
    ),
)
_LARGEST_REQUEST = 2**20
_DEFAULT_RUNTIME_ENV: dict[str, Any] = {
    "command_prefix": [],
    "override_worker_entrypoint": None,
    "java_jars": [],
}
_AGENT = "--agent"
# As in an installation of Ray without its extra "default": the dashboard's agent has no modules and opens no port.
_MINIMAL = """
import runpy, sys
import ray.dashboard.modules
ray.dashboard.modules.__path__ = []
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
_CONFIGURED = b"_ZGVZN9RayConfig8instanceEvE6config"  # C++'s mark that Ray has read its configuration


def install(path: str, modules: Sequence[str] = (), **parameters: Any) -> None:
    """Let workers of the Ray that this process will start be forks: import what they need, serve, patch Ray.

    Ray starts without its dashboard, whose start takes 2 s of CPU time and which no test needs.

    Args:
        path: Of the server's socket.
        modules: What workers need besides.
        parameters: More of Ray's internal parameters.
    """
    preload((*PRELOADED, *modules))
    serve(path)

    from ray._private import node, parameter, services

    class ForkingRay(parameter.RayParams):  # type: ignore[misc]  # has no types
        def __init__(self, **given: Any) -> None:
            super().__init__(**given, setup_worker_path=os.path.abspath(__file__), **parameters)

    start = services.start_ray_process

    def start_ray_process(command: list[str], *further: Any, **named: Any) -> Any:
        return start([_with_forked_agent(word) for word in command], *further, **named)

    parameter.RayParams = ForkingRay
    services.start_ray_process = start_ray_process
    node.Node.start_api_server = lambda self, **_: setattr(self, "_webui_url", "")


def _with_forked_agent(word: str) -> str:
    """Let this file start Ray's agent, if *word* is the argument of Ray's raylet that has an agent's command."""
    name, equals, command = word.partition("_agent_command=")
    if not equals:
        return word
    interpreter, *arguments = command.split(" ")
    program = next(number for number, argument in enumerate(arguments) if argument.endswith(".py"))
    return " ".join([f"{name}{equals}{interpreter}", os.path.abspath(__file__), _AGENT, *arguments[program:]])


def preload(modules: Iterable[str]) -> None:
    """Import *modules*, but those of Ray only if a fork can make it read its environment again."""
    for module in modules:
        if module.partition(".")[0] != "ray" or _configured_mark() is not None:
            importlib.import_module(module)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy the pages of all these objects


def serve(path: str) -> None:
    """Fork the server, which listens at *path* and ends with the calling process.

    Call it when what the programs need is imported. Ray may be imported, and not yet used.
    """
    listener = listen(path)
    os.environ[SOCKET] = os.path.abspath(path)
    alive, held = os.pipe()
    if os.fork():
        os.close(alive)  # the end of the caller closes its end
        listener.close()
        os.set_inheritable(held, False)
        return
    os.close(held)
    fork_programs(listener, alive)


def listen(path: str) -> socket.socket:
    """Return a socket that listens at *path*, which appears when it does."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path + ".new")
    listener.listen(64)
    os.rename(path + ".new", path)
    return listener


def fork_programs(listener: socket.socket, alive: int) -> NoReturn:
    """Serve until *alive* becomes readable."""
    running: dict[int, socket.socket] = {}
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        while True:
            ready, _, _ = select.select([listener.fileno(), alive, woken], [], [])
            if alive in ready:
                os._exit(0)
            if woken in ready:
                os.read(woken, 4096)
                _report_ends(running)
            if listener.fileno() not in ready:
                continue
            connection, _ = listener.accept()
            message, descriptors, _, _ = socket.recv_fds(connection, _LARGEST_REQUEST, 3)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for end in (alive, woken, wake):
                    os.close(end)
                for other in (listener, *running.values()):
                    other.close()
                _become_program(json.loads(message), descriptors, connection)
            running[pid] = connection
            _send(connection, pid)
            for descriptor in descriptors:
                os.close(descriptor)
    finally:
        traceback.print_exc()
        os._exit(1)


def _report_ends(running: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if pid in running:
                with running.pop(pid) as connection:
                    _send(connection, os.waitstatus_to_exitcode(status))


def _send(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody waits any more
        connection.send(str(number).encode())


def _become_program(request: dict[str, Any], descriptors: list[int], connection: socket.socket) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # The end of the process that asked for this one ends it: SIGIO, which Python leaves to the kernel.
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETFL, os.O_ASYNC | os.O_RDWR)
    if select.select([connection], [], [], 0)[0]:  # it has ended before that
        os._exit(1)
    os.setsid()
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    os.setpriority(os.PRIO_PROCESS, 0, request["niceness"])
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    _forget_configuration()
    code = 1
    try:
        _run(request["arguments"])
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException as error:
        sys.last_type, sys.last_value, sys.last_traceback = type(error), error, error.__traceback__
        traceback.print_exc()
    finally:
        if request["orderly"]:
            threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as the interpreter does
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(arguments: list[str]) -> None:
    """Run a program as Python's command line does: ``FILE``, ``-m MODULE`` or ``-c CODE``, and its arguments."""
    wanted = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.path[1:1] = [folder for folder in wanted if folder not in sys.path]
    if arguments[0] == "-m":
        sys.path[0] = os.getcwd()
        sys.argv[:] = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    if arguments[0] == "-c":
        sys.path[0] = ""
        sys.argv[:] = ["-c", *arguments[2:]]
        exec(arguments[1], {"__name__": "__main__", "__builtins__": __builtins__})
        return
    sys.argv[:] = arguments
    sys.path[0] = os.path.dirname(arguments[0])
    runpy.run_path(arguments[0], run_name="__main__")


def request(
    path: str,
    arguments: Sequence[str],
    environment: dict[str, str],
    folder: str,
    descriptors: Sequence[int],
    *,
    orderly: bool = False,
) -> tuple[int, socket.socket]:
    """Start a Python program as a fork of the server at *path*.

    Args:
        path: Where the server listens.
        arguments: The program and its arguments, as after ``python`` on the command line.
        environment: All of its environment variables.
        folder: Its working directory.
        descriptors: Its standard input, output and error.
        orderly: Whether it ends as the interpreter does, with its threads and its functions for the exit.

    Returns:
        Its process id, and the connection that gets its exit code.
    """
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    asked = {
        "arguments": list(arguments),
        "environment": environment,
        "folder": folder,
        "niceness": niceness,
        "orderly": orderly,
    }
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(path)
    socket.send_fds(connection, [json.dumps(asked).encode()], descriptors)
    return int(connection.recv(32)), connection


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
        arguments: See :func:`request`; so for the next three.
        environment: All of its environment variables.
        folder: Its working directory.
        descriptors: Its standard input, output and error.
        timeout_s: How long to wait for its end, None for ever.

    Raises:
        TimeoutError: It has not ended in time, and goes on.
    """
    _, connection = request(path, arguments, environment, folder, descriptors)
    with connection:
        connection.settimeout(timeout_s)
        return connection.recv(32) == b"0"  # or nothing when the server is gone


def _configured_mark() -> int | None:
    """Return where in Ray's library C++ marks that the configuration has been read, None if there is no such symbol."""
    if not hasattr(_configured_mark, "found"):
        ray = importlib.util.find_spec("ray")
        folder = (ray.submodule_search_locations or [""])[0] if ray is not None else ""
        library = os.path.join(folder, "_raylet.so")
        _configured_mark.found = _address_of(_CONFIGURED, library) if os.path.exists(library) else None  # type: ignore[attr-defined]
    found: int | None = _configured_mark.found  # type: ignore[attr-defined]
    return found


def _address_of(symbol: bytes, library: str) -> int | None:
    """Return the address of a symbol in a 64-bit ELF library, from its table of local symbols."""
    with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        (sections,) = struct.unpack_from("<Q", content, 0x28)
        size, count = struct.unpack_from("<HH", content, 0x3A)
        headers = [struct.unpack_from("<IIQQQQI", content, sections + number * size) for number in range(count)]
        for _, kind, _, _, start, length, names in headers:
            if kind != 2:  # SHT_SYMTAB
                continue
            first = headers[names][4]
            at = content.find(b"\0" + symbol + b"\0", first, first + headers[names][5])
            for name, _, _, _, address, _ in struct.iter_unpack("<IBBHQQ", content[start : start + length]):
                if name == at + 1 - first:
                    return int(address)
    return None


def _forget_configuration() -> None:
    """Let Ray's C++ half, which has read its environment when it was imported, read it again: it tells the job."""
    mark = _configured_mark() if "ray" in sys.modules else None
    if mark is None:
        return
    with open("/proc/self/maps") as maps:
        base = next(line.partition("-")[0] for line in maps if line.endswith("/_raylet.so\n"))
    ctypes.c_ubyte.from_address(int(base, 16) + mark).value = 0


def main() -> None:
    """Serve, or have a program of Ray forked and stay until it ends."""
    if sys.argv[1:2] == ["--serve"]:
        _, _, path, _, parent, *modules = sys.argv
        preload(modules)
        fork_programs(listen(path), os.pidfd_open(int(parent)))
    if sys.argv[1] == _AGENT:
        program = sys.argv[2:]
        if program[0].endswith(os.path.join("dashboard", "agent.py")):
            program = ["-c", _MINIMAL, *program, "--minimal"]
        run(os.environ[SOCKET], program, dict(os.environ), os.getcwd(), [0, 1, 2])
        return
    # A worker; Ray's own script runs where it needs a runtime environment.
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
