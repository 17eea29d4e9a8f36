"""Serves the page from a recording, in place of a running exporter."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from types import FrameType

from dataplane.net.addresses import join_host_port
from exporter.config import Config
from exporter.model.snapshot import Snapshot
from exporter.recording.archive import Archive
from exporter.recording.player import Player
from exporter.web import Guard, WebServer

__all__ = ["replay"]

logger = logging.getLogger(__name__)

_SIGNAL_S = 0.5


def replay(file: Path, config: Config) -> int:
    """Serve the page from *file* until SIGTERM or SIGINT.

    Args:
        file: The recording. An exporter may still write it.
        config: Where to listen, and access over HTTP.

    Returns:
        The process's exit code: 0.

    Raises:
        RecordingError: The file cannot be read.
        ListenError: The address cannot be listened on.
        ConfigError: The web configuration cannot be used.
    """
    archive = Archive(file)
    archive.span()  # a file that cannot be read is said at once
    web = WebServer(
        config.listen,
        scrape=lambda accept, names: (b"", ""),
        snapshot=lambda: Snapshot(0.0, 0.0, ready=True),
        alive=lambda: True,
        guard=Guard(config.web.config_file),
        replay=Player(archive),
        allowed_hosts=config.web.allowed_hosts,
    )
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    host, port = web.listen()
    try:
        web.start()
        logger.info("serving the recording %s on %s://%s/", file, web.scheme, join_host_port(host, port))
        # Python runs signal handlers on this thread, and a signal that another thread caught does not wake it.
        while not stop.wait(_SIGNAL_S):
            pass
    finally:
        web.stop()
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0
