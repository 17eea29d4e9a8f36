"""Lets the workers of a demo's Ray be forks, where this folder is on ``PYTHONPATH``. Python runs it at its start."""

import os
import sys

if sys.orig_argv[1:3] == ["-m", "exporter.demo.cluster"]:
    sys.path.append(os.path.dirname(os.path.dirname(__file__)))
    import forked_worker  # type: ignore[import-not-found]

    forked_worker.install(os.environ[forked_worker.SOCKET])
