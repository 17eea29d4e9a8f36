"""Tag conventions: how producers stamp their rows. One file each; this package registers them all.

A convention is a :class:`~dataplane.conventions.base.Convention` object. Every module of this package that defines
``CONVENTION`` adds one. :func:`register` adds another, for example from your own program; :class:`ConfiguredConvention`
makes one from the names of the tags.
"""

import functools

from dataplane.conventions.base import COMMON_FIELDS, Account, Convention, Group, KeyRule, Memory
from dataplane.conventions.configured import (
    BadConvention,
    ConfiguredConvention,
    ConventionTags,
    GroupFrom,
    TagNamed,
    TagWith,
)
from dataplane.conventions.registry import AUTO, Registry
from dataplane.conventions.shipped import shipped
from dataplane.tags import TagSchema

__all__ = [
    "AUTO",
    "COMMON_FIELDS",
    "Account",
    "BadConvention",
    "ConfiguredConvention",
    "Convention",
    "ConventionTags",
    "Group",
    "GroupFrom",
    "KeyRule",
    "Memory",
    "Registry",
    "TagNamed",
    "TagWith",
    "check",
    "detect",
    "get",
    "names",
    "register",
    "registry",
    "schema",
    "unregister",
]


_registry = Registry(shipped())

names = _registry.names
check = _registry.check
get = _registry.get
detect = _registry.detect
register = _registry.register
unregister = _registry.unregister


def schema() -> TagSchema:
    """Return the schema of the tags that the registered conventions read."""
    return _registry.schema


def registry(more: tuple[Convention, ...] = ()) -> Registry:
    """Return the registered conventions, and *more* that nobody else sees: ``auto`` asks them first, in this order."""
    return _extended(more, _registry.conventions) if more else _registry


# So that the readers of one exporter share a schema, and its decoders.
@functools.lru_cache(maxsize=4)
def _extended(more: tuple[Convention, ...], registered: tuple[Convention, ...]) -> Registry:
    return Registry((*more, *registered))
