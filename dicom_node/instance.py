"""The name of this part of the node among others that share its database.

A host is one instance, unless several parts of the node run on it; a container or a pod has a host
name of its own. Claims, boots and the lock on the data folder bear the name.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence

from dicom_node.errors import WrongUseError

INSTANCE_ENV = "DICOM_NODE_INSTANCE"
"""Hands the name from the supervisor to its processes."""
ROLES = ("worker", "delivery", "web", "receiver")
"""The parts of a node in the order of their start: the DICOM port opens last."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


def instance_name() -> str:
    """Return the name under which this process claims work."""
    return os.environ.get(INSTANCE_ENV) or platform.node()


def chosen_instance(given: str, roles: Sequence[str]) -> str:
    """Return the name of a node that is started; parts of a node bear their roles in it.

    Raises:
        WrongUseError: the name given cannot be one of a file.
    """
    if given and not _NAME.fullmatch(given):
        raise WrongUseError(
            f"'{given}' cannot name an instance", "letters, digits, dot, dash and underscore"
        )
    if given or len(roles) == len(ROLES):
        return given or platform.node()
    return "-".join((platform.node(), *roles))


def chosen_roles(text: str) -> tuple[str, ...]:
    """Return the roles named in a list with commas, in the order of their start.

    Raises:
        WrongUseError: a name is none of ``ROLES``, or there is none.
    """
    named = {part.strip() for part in text.split(",")} - {""}
    if not named or not named <= set(ROLES):
        raise WrongUseError(f"no such roles: '{text}'", f"of {', '.join(sorted(ROLES))}, commas")
    return tuple(role for role in ROLES if role in named)
