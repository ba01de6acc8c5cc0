"""What comes next: the values that verbs return, and what interrupts their waits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Goto:
    """Go on with the document at a URL: as written in the present document (relative, empty: the document itself).

    `params` are sent beside the standard ones.
    """

    url: str
    method: str = "POST"
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Inline:
    """Go on with a document that the API gave; it has no URL, so that relative ones in it cannot be resolved."""

    twiml: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End the call, or what a whisper document says; `why` is for the timeline."""

    why: str = "hangup"


Next = Goto | Inline | Stop
Source = Goto | Inline


class CallEnded(Exception):
    """The call is over."""


class Redirected(Exception):
    """A live update: go on with `to` at once."""

    def __init__(self, to: Source) -> None:
        super().__init__(to)
        self.to = to
