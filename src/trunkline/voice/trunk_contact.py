"""The user part of the Contact that a trunk registers: calls that come in for it are the trunk's.

Where the operator names none, it is one that nobody can guess, and stays the same over restarts.
"""

import hashlib
import hmac
from typing import Final

from trunkline.settings import Trunk

HEX_CHARACTERS: Final = 20
"""Of randomness in the user part: 80 bits."""


def contact_user(trunk: Trunk, secret: bytes) -> str:
    """E.g. `acme-0123456789abcdef0123`."""
    if trunk.contact_user:
        return trunk.contact_user
    digest = hmac.new(secret, b"contact of trunk " + trunk.name.encode(), hashlib.sha256).hexdigest()
    return f"{trunk.name}-{digest[:HEX_CHARACTERS]}"


def is_secret(trunk: Trunk) -> bool:
    """Whether knowing the Contact proves that an INVITE comes from where we have registered."""
    return trunk.register and not trunk.contact_user
