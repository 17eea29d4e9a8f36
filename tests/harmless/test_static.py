"""Static check: no code that the exporter can reach creates, closes or kills a controller.

Reachability is decided by names. Reached are all of ``exporter`` except its demo and the command that submits the
exporter to Ray, the functions and classes of ``dataplane`` that this code imports, and whatever their bodies name in
turn (a class with all its methods and bases).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READ_ONLY_ACTOR_METHODS = {"get_zmq_server_info", "get_config"}
READ_ONLY_CLIENT_CALLS = {"async_kv_list", "async_get_partition_list"}
MAKES_OR_ENDS = {
    "start",
    "attach",
    "release",
    "_create",
    "_end",
    "build_data_plane_client",
    "AttachedCalls",
    "TQDataPlaneClient",
}

Definition = tuple[str, str]
"""A module and a name in it. The name is empty for the module's own statements."""


def violations(tree: ast.AST) -> list[str]:
    """Return the calls in *tree* that could create, end or change a controller."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "bootstrap":
            found.append("bootstrap=")
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("ray", "transfer_queue"):
            found += [
                f"from {node.module} import {name.name}"
                for name in node.names
                if name.name in ("init", "close", "kill")
            ]
        if isinstance(node, ast.Attribute) and _is_suspect(node.attr, ast.unparse(node.value).split(".")[-1]):
            found.append(ast.unparse(node))
    return found


def _is_suspect(name: str, owner: str) -> bool:
    return any(
        (
            name in ("init", "close") and owner in ("tq", "_tq", "transfer_queue", "interface"),
            name == "remote" and owner not in READ_ONLY_ACTOR_METHODS,
            name in ("kill", "remote", "shutdown", "cancel") and owner == "ray",
            name in ("__ray_call__", "__ray_terminate__"),
            name.startswith("async_") and name not in READ_ONLY_CLIENT_CALLS,
        )
    )


@pytest.mark.parametrize(
    "source",
    [
        "tq.init(conf)",
        "self._tq.close()",
        "transfer_queue.interface.init()",
        "from transfer_queue import init",
        "import ray\nray.kill(handle)",
        "kill = ray.kill",
        "handle.clear.remote()",
        "ray.remote(TransferQueueController)",
        "TransferQueueController.options(name='x').remote()",
        "handle.__ray_call__.remote(lambda _: None)",
        "build(cfg, bootstrap=True)",
        "client.async_kv_clear(keys)",
    ],
)
def test_such_a_call_would_be_seen(source: str) -> None:
    assert violations(ast.parse(source))


def test_nothing_that_the_exporter_reaches_makes_ends_or_changes_a_controller() -> None:
    found = {where: seen for where, node in _reached().items() if (seen := violations(node))}
    assert found == {}


def test_what_reads_is_reached_and_what_makes_or_ends_is_not() -> None:
    names = {name for _, name in _reached()}
    assert {"WireMetadataReader", "TransferQueueMetadataReader", "close_client", "_look", "StorageUnitReader"} <= names
    assert not MAKES_OR_ENDS & {name for module, name in _reached() if module.startswith("dataplane")}
    adapter = "dataplane.adapters.transfer_queue"
    defined = {name for module in ("session", "client") for name in _scope(f"{adapter}.{module}")}
    assert {"start", "attach", "release", "_create", "_end", "TQDataPlaneClient"} <= defined


def test_the_look_up_connects_to_a_named_ray_alone() -> None:
    calls = [
        node
        for reached in _reached().values()
        for node in ast.walk(reached)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ray.init"
    ]
    assert len(calls) == 1
    assert "address" in {keyword.arg for keyword in calls[0].keywords}


@cache
def _reached() -> dict[Definition, ast.AST]:
    todo: list[Definition] = []
    for path in (ROOT / "exporter").rglob("*.py"):
        if not {"demo", "ray_submit.py"} & set(path.relative_to(ROOT).parts):
            module = _module_name(path)
            todo += [(module, ""), *((module, name) for name in _scope(module))]
    reached: dict[Definition, ast.AST] = {}
    while todo:
        definition = _defined_in(todo.pop())
        if definition in reached:
            continue
        node = _node(definition)
        if node is not None:
            reached[definition] = node
            todo += _named_by(definition[0], node)
    return reached


def _named_by(module: str, node: ast.AST) -> Iterator[Definition]:
    """Yield the project's definitions that *node* in *module* names."""
    imported = _imports(module, _tree(module)) | _imports(module, node)
    scope = _scope(module)
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            if part.id in imported:
                yield imported[part.id]
            elif part.id in scope:
                yield module, part.id
        elif isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id in imported:
            owner, name = imported[part.value.id]
            if not name or _path(f"{owner}.{name}"):
                yield (f"{owner}.{name}" if name else owner), part.attr


def _imports(module: str, node: ast.AST) -> dict[str, Definition]:
    """Return the names that the imports in *node* bind to definitions of the project."""
    bound: dict[str, Definition] = {}
    for part in ast.walk(node):
        if isinstance(part, ast.ImportFrom) and (part.module or "").split(".")[0] in ("dataplane", "exporter"):
            assert part.module is not None
            assert part.level == 0, f"{module}: relative imports are not followed"
            for alias in part.names:
                bound[alias.asname or alias.name] = (part.module, alias.name)
        elif isinstance(part, ast.Import):
            ours = [alias.name for alias in part.names if alias.name.split(".")[0] in ("dataplane", "exporter")]
            assert not ours, f"{module}: import of {ours} is not followed"
    return bound


def _node(definition: Definition) -> ast.AST | None:
    module, name = definition
    if _path(module) is None or module.startswith(("exporter.demo", "exporter.ray_submit")):
        return None
    if not name:
        body = [node for node in _tree(module).body if not isinstance(node, _DEFINES)]
        return ast.Module(body=body, type_ignores=[])
    return _scope(module).get(name)


def _defined_in(definition: Definition) -> Definition:
    """Follow a re-exported name to the module that defines it."""
    module, name = definition
    if not name or _path(module) is None or name in _scope(module):
        return definition
    passed_on = _imports(module, _tree(module)).get(name, definition)
    return definition if passed_on == definition else _defined_in(passed_on)


_DEFINES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@cache
def _scope(module: str) -> dict[str, ast.AST]:
    """Return the functions, classes and variables of a module by name."""
    scope: dict[str, ast.AST] = {}
    for node in _tree(module).body:
        if isinstance(node, _DEFINES):
            scope[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                scope |= {part.id: node for part in ast.walk(target) if isinstance(part, ast.Name)}
    return scope


@cache
def _tree(module: str) -> ast.Module:
    path = _path(module)
    assert path is not None, module
    return ast.parse(path.read_text())


def _path(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
