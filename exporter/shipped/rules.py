"""The Prometheus rules of this package, and writing them with a user's thresholds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from exporter.shipped.thresholds import FILE, render_rules

__all__ = ["FILES", "alerts", "read", "recorded", "rules", "with_runbooks", "write"]

FILES: Final = (FILE, "recording.yaml", "alerts.yaml")
"""The rule files, each after those whose series it uses."""

_RUNBOOKS: Final = re.compile(r"https?://[^\s\"]+/runbooks/(?=\S+\.md)")
_PAGES: Final = re.compile(r"http(?=://\{\{)")


def read(name: str) -> str:
    """Return the text of a shipped rule file."""
    return (resources.files("exporter.shipped") / "prometheus" / name).read_text(encoding="utf-8")


def rules(name: str) -> list[dict[str, Any]]:
    """Return the rules of a file, in order."""
    return [rule for group in msgspec.yaml.decode(read(name))["groups"] for rule in group["rules"]]


def recorded() -> dict[str, str]:
    """Return every recording rule, name to expression, each after those that it uses."""
    return {rule["record"]: rule["expr"] for name in FILES for rule in rules(name) if "record" in rule}


def alerts() -> dict[str, dict[str, Any]]:
    """Return every alerting rule by its name."""
    return {rule["alert"]: rule for name in FILES for rule in rules(name) if "alert" in rule}


def with_runbooks(text: str, runbooks: str | None) -> str:
    """Return *text* with its links to runbooks below *runbooks*; None keeps the placeholder ``tq-exporter.example``."""
    return text if runbooks is None else _RUNBOOKS.sub(lambda _: runbooks.rstrip("/") + "/", text)


def write(
    folder: Path,
    values: Mapping[str, float] | None = None,
    runbooks: str | None = None,
    *,
    page_scheme: Literal["http", "https"] = "http",
) -> list[Path]:
    """Write the rule files and the example route of Alertmanager into *folder*, and return their paths.

    Args:
        folder: Created if missing.
        values: Thresholds other than the defaults, by name.
        runbooks: URL of the folder of runbooks; None keeps the placeholder ``tq-exporter.example``.
        page_scheme: Scheme of the links to the exporter's page: ``https`` where it serves TLS.

    Raises:
        OSError: The folder or a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    texts = {name: read(name) for name in FILES} | {FILE: render_rules(values)}
    texts["alerts.yaml"] = with_runbooks(texts["alerts.yaml"], runbooks)
    texts["alerts.yaml"] = _PAGES.sub(page_scheme, texts["alerts.yaml"])
    route = resources.files("exporter.shipped") / "alertmanager" / "alertmanager.yaml"
    texts["alertmanager.yaml"] = route.read_text(encoding="utf-8")
    paths = []
    for name, text in texts.items():
        paths.append(folder / name)
        paths[-1].write_text(text, encoding="utf-8")
    return paths
