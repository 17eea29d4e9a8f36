"""Tag conventions: how producers stamp their rows. One file each; this is the registry of them all.

A convention is a :class:`~dataplane.conventions.base.Convention` object. :func:`register` adds one, for example to a
program of your own; those that ship are in ``_registry`` below.
"""

from dataplane.conventions.base import COMMON_FIELDS, Account, Convention, Group, KeyRule
from dataplane.conventions.nemo_rl import NemoRL
from dataplane.conventions.recovery import Recovery
from dataplane.conventions.registry import AUTO, Registry
from dataplane.conventions.verl import Verl
from dataplane.tags import TagSchema

__all__ = [
    "AUTO",
    "COMMON_FIELDS",
    "Account",
    "Convention",
    "Group",
    "KeyRule",
    "check",
    "detect",
    "get",
    "names",
    "register",
    "schema",
    "unregister",
]

# In the order in which ``auto`` asks them: verl's prompt marker or step range settles it, then any tag that only
# ``recovery`` has. NeMo RL's rows carry a version or nothing.
_registry = Registry((Verl(), Recovery(), NemoRL()))

names = _registry.names
check = _registry.check
get = _registry.get
detect = _registry.detect
register = _registry.register
unregister = _registry.unregister


def schema() -> TagSchema:
    """Return the schema of the tags that the registered conventions read."""
    return _registry.schema
