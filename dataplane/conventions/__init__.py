"""Tag conventions: how producers stamp their rows. One file each; this package registers them all.

A convention is a :class:`~dataplane.conventions.base.Convention` object. Every module of this package that defines
``CONVENTION`` adds one. :func:`register` adds another, for example from your own program.
"""

import importlib
import pkgutil
from collections.abc import Iterator

from dataplane.conventions.base import COMMON_FIELDS, Account, Convention, Group, KeyRule, Memory
from dataplane.conventions.registry import AUTO, Registry
from dataplane.tags import TagSchema

__all__ = [
    "AUTO",
    "COMMON_FIELDS",
    "Account",
    "Convention",
    "Group",
    "KeyRule",
    "Memory",
    "check",
    "detect",
    "get",
    "names",
    "register",
    "schema",
    "unregister",
]


def _shipped() -> Iterator[Convention]:
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        convention = getattr(importlib.import_module(module.name), "CONVENTION", None)
        if convention is not None:
            yield convention


_registry = Registry(_shipped())

names = _registry.names
check = _registry.check
get = _registry.get
detect = _registry.detect
register = _registry.register
unregister = _registry.unregister


def schema() -> TagSchema:
    """Return the schema of the tags that the registered conventions read."""
    return _registry.schema
