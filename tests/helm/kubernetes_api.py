"""A fake Kubernetes API on loopback, with what Helm needs to install: it stores objects and runs nothing.

Other tests check the stored objects against Kubernetes' own schemas.
It runs in the environment of the chart tests, so it imports only the standard library.
"""

from __future__ import annotations

import http.server
import json
import re
import threading
from types import TracebackType
from typing import Any

__all__ = ["KubernetesApi"]

_RESOURCES: dict[str, dict[str, str]] = {
    "v1": {
        "configmaps": "ConfigMap",
        "pods": "Pod",
        "secrets": "Secret",
        "serviceaccounts": "ServiceAccount",
        "services": "Service",
    },
    "apps/v1": {"deployments": "Deployment"},
    "monitoring.coreos.com/v1": {
        "podmonitors": "PodMonitor",
        "prometheusrules": "PrometheusRule",
        "servicemonitors": "ServiceMonitor",
    },
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
}
_OBJECT = re.compile(r"/apis?/(?P<group>.+)/namespaces/(?P<namespace>[^/]+)/(?P<resource>[a-z]+)(?:/(?P<name>[^/]+))?")


class KubernetesApi:
    """The API of a cluster with one namespace. Use it in a ``with`` block.

    Attributes:
        objects: The stored objects, by API path.
        writes: Method, path and body of every write, in order.
    """

    def __init__(self, version: str = "v1.31.0") -> None:
        self.version = version
        self.objects: dict[str, dict[str, Any]] = {}
        self.writes: list[tuple[str, str, dict[str, Any]]] = []
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else {}
                status, answer = api.answer(self.command, self.path.partition("?")[0], body)
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def kubeconfig(self) -> str:
        """A kubeconfig for this API, as YAML: Helm would read JSON as a file name."""
        return (
            "apiVersion: v1\nkind: Config\ncurrent-context: here\n"
            f"clusters: [{{name: here, cluster: {{server: 'http://127.0.0.1:{self._server.server_address[1]}'}}}}]\n"
            "contexts: [{name: here, context: {cluster: here, user: nobody}}]\n"
            "users: [{name: nobody, user: {}}]\n"
        )

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and body of the response to one request."""
        if method == "GET" and (found := self._discovery(path)) is not None:
            return 200, found
        match = _OBJECT.fullmatch(path)
        if match is None or match["resource"] not in _RESOURCES.get(match["group"], {}):
            return _status(404, f"there is no {path} here")
        if method == "GET":
            stored = self.objects.get(path)
            return (200, stored) if stored is not None else _status(404, f"{path} is not there")
        self.writes.append((method, path, body))
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                return _status(409, f"{path} is there already")
            self.objects[path] = body
            return 201, body
        if method == "DELETE":
            return (200, self.objects.pop(path)) if path in self.objects else _status(404, f"{path} is not there")
        self.objects[path] = body if method == "PUT" else _merged(self.objects[path], body)
        return 200, self.objects[path]

    def _discovery(self, path: str) -> dict[str, Any] | None:
        groups = [name for name in _RESOURCES if "/" in name]
        if path == "/version":
            major, minor, _ = self.version.lstrip("v").split(".")
            return {"major": major, "minor": minor, "gitVersion": self.version, "platform": "linux/amd64"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            listed = []
            for group in groups:
                version = {"groupVersion": group, "version": group.rpartition("/")[2]}
                listed.append({"name": group.partition("/")[0], "versions": [version], "preferredVersion": version})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}
        group = path.removeprefix("/apis/") if path != "/api/v1" else "v1"
        if group not in _RESOURCES:
            return None
        resources = [
            {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "create", "patch"]}
            for name, kind in _RESOURCES[group].items()
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group, "resources": resources}

    def __enter__(self) -> KubernetesApi:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def _merged(stored: Any, patch: Any) -> Any:
    """Return *stored* after a JSON merge patch (RFC 7386). It replaces lists, unlike Kubernetes' strategic merge."""
    if not (isinstance(stored, dict) and isinstance(patch, dict)):
        return patch
    kept = {key: value for key, value in stored.items() if patch.get(key, ...) is not None}
    return kept | {key: _merged(stored.get(key), value) for key, value in patch.items() if value is not None}


def _status(code: int, message: str) -> tuple[int, dict[str, Any]]:
    reason = {404: "NotFound", 409: "AlreadyExists"}[code]
    return code, {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "code": code,
        "message": message,
    }
