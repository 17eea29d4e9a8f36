"""The errors that a data plane client raises: :mod:`.types`. How exceptions become them: :mod:`.translation`."""

from dataplane.errors.types import *  # noqa: F403 - all that it declares public
from dataplane.errors.types import __all__ as __all__
