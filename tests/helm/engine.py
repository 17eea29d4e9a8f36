"""Runs Helm in an environment of its own: one JSON task per line of standard input, one JSON answer per line of output.

    .venv-helm/bin/python -m tests.helm.engine < tasks.jsonl

Run it with HELM_DRIVER=memory, so that releases are kept in memory. ``helm.py`` keeps one running, since its start
takes longer than most tasks.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import helm_sdkpy
import jsonschema
import kubernetes_validate

from tests.helm.kubernetes_api import KubernetesApi

NAMESPACE = "training"


def install(releases: list[dict[str, Any]], kubernetes: str) -> list[dict[str, Any]]:
    """Install each release in turn, then upgrade it with each of its further steps."""
    return [asyncio.run(_install(release, kubernetes)) for release in releases]


async def _install(release: dict[str, Any], kubernetes: str) -> dict[str, Any]:
    with KubernetesApi(kubernetes) as api:
        configuration = helm_sdkpy.Configuration(namespace=NAMESPACE, kubeconfig=api.kubeconfig)
        stages: list[dict[str, Any]] = []
        for number, step in enumerate(release["steps"]):
            action: Any = (helm_sdkpy.Install if number == 0 else helm_sdkpy.Upgrade)(configuration)
            try:
                done = await action.run(release["name"], step["chart"], values=step["values"], wait=False)
            except helm_sdkpy.HelmError as error:
                return {"error": str(error)}
            stages.append(
                {
                    "objects": json.loads(json.dumps(list(api.objects.values()))),
                    "writes": len(api.writes),
                    "text": done["manifest"],
                    "hooks": [hook["manifest"] for hook in done.get("hooks") or []],
                    "notes": done["info"].get("notes", ""),
                }
            )
        return {"stages": stages}


def lint(chart: str) -> list[str]:
    """Return the linter's errors and warnings, errors first, without its info lines."""
    with KubernetesApi() as api:
        configuration = helm_sdkpy.Configuration(namespace=NAMESPACE, kubeconfig=api.kubeconfig)
        result = asyncio.run(helm_sdkpy.Lint(configuration).run(chart))
    return [str(message) for message in result["Messages"] or [] if message["Severity"] > 1]


def package(chart: str, folder: str) -> str:
    """Package the chart; return the archive's path."""
    with KubernetesApi() as api:
        configuration = helm_sdkpy.Configuration(namespace=NAMESPACE, kubeconfig=api.kubeconfig)
        path: str = asyncio.run(helm_sdkpy.Package(configuration).run(chart, folder))
    return path


def validate(objects: list[dict[str, Any]], version: str) -> list[str]:
    """Return the errors in *objects* for this version of Kubernetes. Unknown fields are errors."""
    found = []
    for item in objects:
        where = f"{item['kind']}/{item['metadata']['name']}"
        try:
            if item["apiVersion"].startswith("monitoring.coreos.com/"):
                jsonschema.validate(item["spec"], _spec_schema(item["kind"]))
            else:
                kubernetes_validate.validate(item, version, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            found.append(f"{where}: {error.message} at {'.'.join(map(str, error.path))}")
    return found


@functools.cache
def _spec_schema(kind: str) -> dict[str, Any]:
    """Return the schema of a custom resource's ``spec``, made strict, from the models of Prometheus Operator's CRDs."""
    from cloudcoil.models.prometheus_operator import v1 as prometheus_operator  # takes a second

    schema: dict[str, Any] = getattr(prometheus_operator, kind).model_json_schema()
    for part in schema["$defs"].values():
        if "properties" in part:
            part["additionalProperties"] = False
    spec = json.dumps({"$defs": schema["$defs"], **schema["properties"]["spec"]})
    # Go allows a flag anywhere in a pattern, Python only at the start.
    strict: dict[str, Any] = json.loads(spec.replace("^(?i)", "(?i)^"))
    return strict


_TASKS: dict[str, Callable[..., Any]] = {"install": install, "lint": lint, "package": package, "validate": validate}


def main() -> None:
    """Answer until the input ends. What Helm prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        task = json.loads(line)
        try:
            answer = {"result": _TASKS[task.pop("task")](**task)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
