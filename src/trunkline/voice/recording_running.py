"""One recording that runs, or whose file is being finished, and what is needed of its call."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from trunkline.media import protocol
from trunkline.media.protocol import Recorded
from trunkline.model.call import Call
from trunkline.model.recording import Recording


class MediaSide(Protocol):
    """What is needed of a leg's media side (trunkline.voice.media_leg.MediaLeg)."""

    def send(self, command: protocol.Command) -> None: ...


class Recordable(Protocol):
    """What is needed of a live call (trunkline.voice.live.LiveCall)."""

    @property
    def record(self) -> Call: ...

    @property
    def is_up(self) -> bool: ...

    @property
    def reached(self) -> bool:
        """False while a call that was taken over waits for its peer."""

    @property
    def abandoned(self) -> bool:
        """Whether another host has it now."""

    @property
    def audio(self) -> MediaSide: ...

    def note(self, kind: str, what: str, **details: Any) -> None:
        """Write into the timeline."""


class Running:
    """A recording that runs, or whose file is being finished."""

    __slots__ = ("call", "carried", "done", "finished", "lock", "row", "stored")

    def __init__(self, row: Recording, call: Recordable | None) -> None:
        self.row = row
        self.call = call
        """None: the call has ended with a process before this one."""
        self.carried = False
        """A host that is lost has begun it, be it this one before it was started anew: what there is of that on our
        disk is not its end."""
        self.lock = asyncio.Lock()
        """Held while the row is written: each write needs the rev of the one before."""
        loop = asyncio.get_running_loop()
        self.stored: asyncio.Future[None] = loop.create_future()
        """Done once the row is in the database."""
        self.done: asyncio.Future[Recorded] = loop.create_future()
        """What the media side said of its end."""
        self.finished: asyncio.Future[None] = loop.create_future()
        """Done once the audio is kept and the row says so."""

    def send(self, command: protocol.Command) -> None:
        """Tell the media side."""
        if self.call is not None:
            self.call.audio.send(command)

    def note(self, what: str, **details: Any) -> None:
        """Write into the call's timeline."""
        if self.call is not None:
            self.call.note("recording", what, **details)
