"""The conventions that ship: one per module of this package that defines ``CONVENTION``."""

from __future__ import annotations

import functools
import importlib
import pkgutil

from dataplane.conventions.base import Convention

__all__ = ["shipped"]


@functools.cache
def shipped() -> tuple[Convention, ...]:
    """Return the conventions that ship."""
    package = __name__.rpartition(".")[0]
    folders = importlib.import_module(package).__path__
    modules = (importlib.import_module(module.name) for module in pkgutil.iter_modules(folders, f"{package}."))
    found = (getattr(module, "CONVENTION", None) for module in modules)
    return tuple(convention for convention in found if convention is not None)
