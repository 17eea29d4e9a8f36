"""Registers this exporter with RL-Insight, verl's online monitor, whose Prometheus then scrapes it.

The protocol is that of RL-Insight 0.3: ``POST /api/v1/prometheus/targets`` adds or replaces a target. It has no request
that removes one.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import threading
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from dataplane.net.addresses import join_host_port
from exporter.config import ConfigError
from exporter.config.addresses import http_url, mask_url
from exporter.config.model import Tracking
from exporter.config.values import BadValue

__all__ = ["JOB", "SERVER_VARIABLE", "Registration", "server_url"]

logger = logging.getLogger(__name__)

SERVER_VARIABLE: Final = "RL_INSIGHT_SERVER_URL"
"""RL-Insight's own variable, which a trainer's environment has."""

JOB: Final = "tq-exporter"

_TIMEOUT_S: Final = 10.0
_RENEW_S: Final = 300.0
_RETRY_S: Final = 15.0
_MAX_ANSWER: Final = 65536


def server_url(tracking: Tracking, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the server to register with, None for none.

    Raises:
        ConfigError: The variable is not a URL.
    """
    given = environ.get(SERVER_VARIABLE, "").strip()
    if tracking.rl_insight is not None or not given:
        return tracking.rl_insight
    try:
        return http_url(given)
    except BadValue as error:
        raise ConfigError(SERVER_VARIABLE, error.problem, error.remedy) from None


class Registration:
    """Registers the exporter, and again every five minutes, on a thread of its own. Logs each change once.

    Args:
        url: The server, None to do nothing.
        host: Where the exporter listens.
        port: The port.
        scheme: ``https`` if the exporter serves TLS.
        protected: Whether the exporter asks for a password.
        run: The training run, for a label.
    """

    def __init__(
        self, url: str | None, host: str, port: int, *, scheme: str, protected: bool = False, run: str | None = None
    ) -> None:
        self._url = url
        self._host, self._port = host, port
        self._protected = protected
        self._labels = {"component": "tq-exporter", **({"run": run} if run else {})}
        if scheme == "https":
            self._labels["__scheme__"] = scheme
        self._stopped = threading.Event()
        self._registered: str | None = None
        self._failing = False

    def start(self) -> None:
        """Start the thread, if there is a server."""
        if self._url is not None:
            threading.Thread(target=self._run, name="tq-rl-insight", daemon=True).start()

    def stop(self) -> None:
        """Stop. Returns at once; RL-Insight keeps the target."""
        self._stopped.set()
        if self._registered is not None:
            logger.info("RL-Insight keeps the target %s: it has no request that removes one", self._registered)

    def register(self) -> str:
        """Register once and return the address that RL-Insight's Prometheus scrapes.

        Raises:
            OSError: The server cannot be reached.
            HTTPException: It refuses, or its answer is none.
        """
        parts = urlsplit(self._url or "")
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
        try:
            connection.connect()
            target = join_host_port(self._reachable(connection.sock.getsockname()[0]), self._port)
            body = json.dumps({"job_name": JOB, "targets": [{"target": target, "labels": self._labels}]})
            path = parts.path.rstrip("/") + "/api/v1/prometheus/targets"
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            with connection.getresponse() as answer:
                said = answer.read(_MAX_ANSWER).decode("utf-8", "replace")
            if answer.status != 200:
                raise HTTPException(f"{answer.status} {answer.reason}: {' '.join(said.split())[:200]}")
            return target
        finally:
            connection.close()

    def _reachable(self, towards_server: str) -> str:
        """Return the host under which the server's machine reaches this one."""
        return towards_server if ipaddress.ip_address(self._host.partition("%")[0]).is_unspecified else self._host

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                target = self.register()
            except (OSError, HTTPException, ValueError) as error:
                if not self._failing:
                    where = mask_url(str(self._url))
                    logger.warning("cannot register with RL-Insight at %s; it is retried: %s", where, error)
                self._failing = True
            else:
                if self._failing or target != self._registered:
                    self._say(target)
                self._failing, self._registered = False, target
            self._stopped.wait(_RETRY_S if self._failing else _RENEW_S)

    def _say(self, target: str) -> None:
        logger.info("registered with RL-Insight at %s: it scrapes %s as job %s", mask_url(str(self._url)), target, JOB)
        if self._protected:
            logger.warning("RL-Insight's Prometheus has no password for this exporter, so its scrapes are refused")
        if ipaddress.ip_address(self._host.partition("%")[0]).is_loopback:
            logger.info("the exporter listens on %s: RL-Insight must run on this machine", self._host)
