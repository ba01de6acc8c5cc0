"""What may go wrong in the SIP core; bytes from a peer raise nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trunkline.sip.message import Request


class MalformedMessage(Exception):
    """A message, or a header of one, that cannot be understood.

    `status` and `reason` are what to answer (RFC 3261 section 8.2). `partial` is the request as far as it was read,
    when enough of it was (its topmost Via at least) for `Response.make`; `None` for responses and for what cannot be
    answered: drop those.
    """

    def __init__(self, status: int, reason: str, partial: Request | None = None) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.partial = partial


class NotAcceptable(Exception):
    """No common ground for media in an offer or an answer. `status` is what to answer: 488."""

    status = 488


class MalformedSdp(NotAcceptable):
    """A session description that cannot be understood, or is larger than its limits. `status` is 400."""

    status = 400
