"""``tq-exporter healthcheck``: a container probe that asks the local exporter whether its loop is alive."""

from __future__ import annotations

import http.client
import logging
import ssl
from http import HTTPStatus
from pathlib import Path
from typing import Final

from dataplane.files import read_regular
from exporter.config import Config, ConfigError, Listen
from exporter.web.auth import HEALTH_SCHEME, health_token
from exporter.web.web_config import WebConfig, read_web_config

__all__ = ["UnhealthyError", "check_health"]

logger = logging.getLogger(__name__)

_TIMEOUT_S: Final = 5.0
_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - the exporter listens there, not this command


class UnhealthyError(Exception):
    """The exporter is unhealthy or does not answer. ``str()`` says why."""


def check_health(config: Config, path: str = "/healthz", client_cert: tuple[Path, Path] | None = None) -> None:
    """Ask the exporter that runs with *config* on this machine, and return when it is healthy.

    No password is needed: who can read the web configuration may check the health. The server's certificate is not
    verified, since it is not issued for this address.

    Args:
        config: The exporter's configuration.
        path: ``/healthz`` or ``/readyz``.
        client_cert: Certificate and key to send when the exporter requires a client certificate.

    Raises:
        UnhealthyError: It is unhealthy or does not answer within 5 s.
        ConfigError: Its port cannot be determined, or a file of *client_cert* cannot be read.
    """
    if config.listen.port == 0:
        raise ConfigError("listen", "port 0 is any free one, which only the exporter's log names", "give a port")
    for flag, file in zip(("--client-cert", "--client-key"), client_cert or (), strict=False):
        try:
            read_regular(file)
        except OSError as error:
            raise ConfigError(flag, f"{file} cannot be read ({error.strerror})", "name a PEM file") from error
    web = _read(config.web.config_file)
    headers = {"Authorization": f"{HEALTH_SCHEME} {health_token(web.users)}"} if web and web.users else {}
    # When the web configuration is invalid now, the exporter still uses an older one: try HTTPS and HTTP.
    schemes = ("https", "http") if web is None else ("http",) if web.tls is None else ("https",)
    for scheme in schemes:
        try:
            status, said = _get(config.listen, scheme, path, headers, client_cert)
            break
        except ssl.SSLError as error:
            failure = UnhealthyError(f"no TLS connection: {error.reason}; a client certificate needs --client-cert")
        except (OSError, http.client.HTTPException) as error:
            failure = UnhealthyError(f"no answer at {config.listen}: {error}")
    else:
        raise failure
    if status == HTTPStatus.UNAUTHORIZED:
        # It answers, but with other passwords than the file's: the changed file is not in force.
        logger.warning("the exporter runs with another web configuration than %s", config.web.config_file)
    elif status != HTTPStatus.OK:
        raise UnhealthyError(said or f"it answered {status}")


def _read(file: Path | None) -> WebConfig | None:
    """Return the configuration in *file*, None when it is invalid: the exporter runs on then, so this must not fail."""
    if file is None:
        return WebConfig(None, {}, {})
    try:
        return read_web_config(file)
    except ConfigError as error:
        logger.warning("%s", error)
        return None


def _get(
    listen: Listen, scheme: str, path: str, headers: dict[str, str], client_cert: tuple[Path, Path] | None
) -> tuple[int, str]:
    host = _LOOPBACK.get(listen.host, listen.host)
    connection: http.client.HTTPConnection
    if scheme == "https":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if client_cert is not None:
            context.load_cert_chain(*client_cert)
        connection = http.client.HTTPSConnection(host, listen.port, timeout=_TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(host, listen.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(1000).decode(errors="replace").strip()
    finally:
        connection.close()
