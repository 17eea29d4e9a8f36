"""The bundle: a zip file that can be sent, with the report at its top. Bounded, and without secrets."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import time
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from dataplane.visible import visible_json, visible_lines
from exporter.diagnosis.evidence import Evidence
from exporter.diagnosis.masking import Mask, ids_in, secrets_in, without_ids
from exporter.diagnosis.report import render_report
from exporter.model.snapshot import Snapshot
from exporter.model.window import Window

__all__ = ["FILES", "MAX_FILE_BYTES", "build_bundle", "bundle_name", "cleaned", "write_file"]

FILES: Final[Mapping[str, str]] = {
    "report.txt": "the verdict, the conditions with evidence and remedy, the groups concerned, events, failures, polls",
    "snapshot.json": "all that the exporter knows: partitions, versions, flow, storage, sources, conditions",
    "groups.json": "the groups that each condition is about",
    "history-recent.json": "the last 5 minutes, every 2 s, and the last polls",
    "history-hour.json": "the last hour, every 24 s, and when the data plane changed its state",
    "about.json": "versions, the exporter's process, its configuration, names of environment variables",
    "metrics.txt": "the page /metrics",
    "ray.json": "TransferQueue's actors and the nodes as Ray has them (with --ray)",
}
"""What a bundle has: name and meaning."""

MAX_FILE_BYTES: Final = 8 * 2**20
"""A longer file is left out of the bundle, which says so. So a bundle has at most 64 MiB when it is unpacked."""


def cleaned(evidence: Evidence, environ: Mapping[str, str], *, keys: bool, secret: str | None = None) -> Evidence:
    """Return *evidence* without secrets, and without the ids of groups and keys unless *keys*.

    Args:
        evidence: What was collected.
        environ: The environment, whose secrets are masked wherever they occur.
        keys: Whether ids of groups and keys may stay.
        secret: A further secret.
    """
    snapshot, groups, about, ray = evidence.tree, dict(evidence.groups), evidence.about, evidence.ray
    windows = {name: msgspec.to_builtins(window) for name, window in evidence.windows.items()}
    ids: set[str] = set()
    if not keys:
        ids = {*ids_in(snapshot), *ids_in(groups)}
        snapshot, groups = without_ids(snapshot), without_ids(groups)
    mask = Mask((*secrets_in(environ), *([secret] if secret else [])), ids)
    return replace(
        evidence,
        origin=mask.text(evidence.origin),
        snapshot=msgspec.convert(mask.value(snapshot), Snapshot),
        windows={name: msgspec.convert(mask.value(window), Window) for name, window in windows.items()},
        groups=mask.value(groups),
        metrics=None if evidence.metrics is None else mask.text(evidence.metrics.decode(errors="replace")).encode(),
        about=None if about is None else mask.value(about),
        ray=None if ray is None else mask.value(ray),
        missing=mask.value(evidence.missing),
    )


def build_bundle(evidence: Evidence) -> bytes:
    """Return the zip file of *evidence*, which is :func:`cleaned`."""
    found: dict[str, bytes] = {
        "snapshot.json": _json(evidence.tree),
        "groups.json": _json(evidence.groups),
        **{f"history-{name}.json": _json(msgspec.to_builtins(window)) for name, window in evidence.windows.items()},
    }
    for name, value in (("about.json", evidence.about), ("ray.json", evidence.ray)):
        if value is not None:
            found[name] = _json(value)
    if evidence.metrics is not None:
        found["metrics.txt"] = visible_lines(evidence.metrics.decode()).encode()
    large = {name for name, content in found.items() if len(content) > MAX_FILE_BYTES}
    said = {name: f"has {len(found[name])} bytes, more than {MAX_FILE_BYTES}" for name in sorted(large)}
    evidence = replace(evidence, missing={**evidence.missing, **said})
    kept = {name: found[name] for name in FILES if name in found and name not in large}
    report = render_report(evidence, {name: FILES[name] for name in kept}).encode()
    packed = io.BytesIO()
    at = time.gmtime(max(evidence.at, 315532800.0))[:6]  # a zip file knows no time before 1980
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {"report.txt": report[:MAX_FILE_BYTES], **kept}.items():
            entry = zipfile.ZipInfo(name, at)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o600 << 16
            file.writestr(entry, content)
    return packed.getvalue()


def bundle_name(at: float) -> str:
    """Return the name of the bundle of a time, in the order of time and never twice."""
    return f"tq-diagnosis-{time.strftime('%Y%m%d-%H%M%S', time.gmtime(at))}-{secrets.token_hex(3)}.zip"


def write_file(path: Path, content: bytes) -> None:
    """Write *content* to *path*, for its owner alone, whole or not at all; raises OSError."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(content)
        os.replace(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


def _json(value: Any) -> bytes:
    encoded: bytes = msgspec.json.format(msgspec.json.encode(value), indent=1)
    return visible_json(encoded.decode()).encode()
