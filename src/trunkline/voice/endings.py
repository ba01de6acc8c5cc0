"""What the final response to an INVITE of ours means for its call: how it ends, or that another way is tried."""

from collections.abc import Container
from typing import Final

from trunkline.model.call import Status

TIMED_OUT: Final = 408
NO_PORT: Final = 503
SERVER_ERRORS: Final = range(500, 600)
"""Responses after which a `sip:` URI's next one is tried."""

ENDINGS: Final[dict[int, Status]] = {
    486: Status.BUSY,
    600: Status.BUSY,
    603: Status.BUSY,
    480: Status.NO_ANSWER,
    408: Status.NO_ANSWER,
    487: Status.NO_ANSWER,
}
"""How final responses end a call; all others above 299 end it `failed`. `voice.busy_on_decline` may change 603."""


def ending(status: int, *, busy_on_decline: bool) -> Status:
    """The last status of a call whose INVITE got this final response."""
    if status == 603 and not busy_on_decline:
        return Status.NO_ANSWER
    return ENDINGS.get(status, Status.FAILED)


def elsewhere(status: int, *, answered: bool, rang: bool, again: Container[int] = SERVER_ERRORS) -> bool:
    """Whether another way may be tried: `answered` tells a far end's response from a failure of the transport, `again`
    has the responses after which the trunk wants that."""
    if rang:
        return False
    return status in again if answered else status in (TIMED_OUT, NO_PORT)
