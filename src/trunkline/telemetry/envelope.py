"""The envelope: what travels with a piece of work over every hand-over between stages.

It is no object of its own: the record of a flight (`model.message.Message`, `model.call.Call`) is one, so that it lies
in the store, goes to other nodes and comes back after a crash together with the work.
"""

from typing import Protocol


class Envelope(Protocol):
    """See the module. Times are Unix milliseconds."""

    sid: str
    account_sid: str
    token: str
    """Given out at the edge; every later stage derives its own from it."""
    traceparent: str
    """W3C Trace Context, where the request brought one or sampling chose the work; else empty."""
    created_ms: int
    stages: dict[str, int]
    """Stage -> milliseconds from `created_ms` to its end (its last, where it was passed more than once)."""

    @property
    def deadline_ms(self) -> int:
        """After this time it is not worth doing any more; 0: none."""

    @property
    def origin(self) -> str:
        """Where it came from: `outbound-api`, `inbound`, ..."""
