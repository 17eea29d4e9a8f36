"""Lets programs that the exporter or the demo starts be forks, where this folder is on ``PYTHONPATH``.

Python runs this file at its start. A look-up of the exporter hands over to a server of the test run
(:mod:`tests.support.forks`). The owner of a demo's Ray lets Ray's workers be forks.
"""

import os
import sys

_PROGRAM = sys.orig_argv[1:3]


def _support() -> None:
    sys.path.append(os.path.dirname(os.path.dirname(__file__)))


if _PROGRAM[:1] == ["-c"] and "exporter.discovery.ray_lookup" in _PROGRAM[1] and "TEST_LOOK_UP_SOCKET" in os.environ:
    _support()
    import forked_worker  # type: ignore[import-not-found]

    _, _connection = forked_worker.request(
        os.environ["TEST_LOOK_UP_SOCKET"], sys.orig_argv[1:], dict(os.environ), os.getcwd(), [0, 1, 2]
    )
    os._exit(int(_connection.recv(32) or b"1"))

if _PROGRAM == ["-m", "exporter.demo.cluster"]:
    _support()
    import forked_worker

    forked_worker.install(os.environ[forked_worker.SOCKET], no_monitor=True, include_log_monitor=False)
