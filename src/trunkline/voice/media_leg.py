"""The media side of one leg: its port, what it plays, the keys it hears. A thin layer over the control protocol.

    leg.lease()            a port pair, before the SDP that names it is written
    leg.open(negotiated)   from now on the media process has the leg
    played = leg.play(items, barge="123")    a future; `await session.wait(played)`
    leg.close()            `on_closed` gets the numbers

Everything is a message without an answer to wait for, except where a future is returned.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final, Protocol

import msgspec

from trunkline.media import protocol
from trunkline.media.protocol import Command, Event, Item, Played
from trunkline.model.call import MediaQuality

PLAYS_JUMP: Final = 1000
"""Plays that the lost process may have begun after it stored their number: a name must never come twice, or the end of
the old play would be taken for that of the new one."""

log = logging.getLogger(__name__)


class Keys(Protocol):
    """Of SRTP (trunkline.sip.sdes.Srtp)."""

    @property
    def suite(self) -> str: ...
    @property
    def ours(self) -> str: ...
    @property
    def theirs(self) -> str: ...


class Negotiation(Protocol):
    """What of a negotiated session (trunkline.sip.offer_answer.Negotiated) the media side needs."""

    @property
    def codec(self) -> str: ...
    @property
    def payload_types(self) -> dict[int, str]: ...
    @property
    def send_payload_type(self) -> int: ...
    @property
    def dtmf_payload_type(self) -> int: ...
    @property
    def ptime(self) -> int: ...
    @property
    def remote(self) -> tuple[str, int] | None: ...
    @property
    def remote_rtcp(self) -> tuple[str, int] | None: ...
    @property
    def direction(self) -> str: ...
    @property
    def srtp(self) -> Keys | None: ...


class Media(Protocol):
    """The node's connection to the media process (trunkline.media.client.MediaClient)."""

    @property
    def available(self) -> bool: ...

    @property
    def epoch(self) -> int: ...

    def take_slot(self) -> tuple[int, int] | None: ...

    def give_back(self, slot: int) -> None: ...

    def send(self, command: Command) -> Any: ...

    def watch(self, leg: str, callback: Callable[[Any], None]) -> None: ...

    def unwatch(self, leg: str) -> None: ...


class MediaLeg:
    """See the module. `name` is the call's SID; the `on_` callbacks are the owner's to set."""

    __slots__ = (
        "_media", "_missed", "_played", "adopted", "barge", "is_open", "name", "on_closed", "on_digit", "on_flowing",
        "on_other", "on_refused", "on_timeout", "plays", "port", "slot",
    )  # fmt: skip

    def __init__(self, media: Media, name: str) -> None:
        self._media = media
        self.plays = 0
        self._played: tuple[str, asyncio.Future[Played]] | None = None
        self._missed: Played | None = None
        self.name = name
        self.slot = -1
        self.port = 0
        self.is_open = False
        self.adopted = ""
        """Name of the play that was under way when the leg was taken over from another process of ours."""
        self.barge = ""
        """Keys that end what is played now."""
        self._ignore_all()

    def _ignore_all(self) -> None:
        self.on_digit: Callable[[str, str], None] = _ignore
        self.on_closed: Callable[[dict[str, Any]], None] = _ignore
        self.on_timeout: Callable[[], None] = _ignore
        self.on_refused: Callable[[str, str], None] = _ignore
        self.on_flowing: Callable[[], None] = _ignore
        self.on_other: Callable[[Event], None] = _ignore
        """Gets what is left: `Recorded`, `Silent`, `Quality`."""

    @property
    def epoch(self) -> int:
        """Of the media process's memory."""
        return self._media.epoch

    # -- life ------------------------------------------------------------------------------------------------

    def lease(self) -> bool:
        """Take a port; False when there is none (or no media process)."""
        if self.slot >= 0:
            return True
        taken = self._media.take_slot() if self._media.available else None
        if taken is None:
            return False
        self.slot, self.port = taken
        return True

    def open(
        self, negotiated: Negotiation | None, codec: str, *, source: str, rtp_timeout_ms: int, cname: str = ""
    ) -> None:
        """Hand the leased port to the media process. `negotiated` None: not known yet (late offer), `modify` follows.

        `source`: where the signalling comes from, which may be latched to beside the address of the SDP.
        """
        self._media.watch(self.name, self.event)
        self.is_open = True
        command = protocol.Open(
            leg=self.name, slot=self.slot, codec=codec, rtp_timeout_ms=rtp_timeout_ms, cname=cname,
            latch_from=(source,) if source else (),
        )  # fmt: skip
        if negotiated is not None:
            _apply(command, negotiated)
        self._media.send(command)

    def take_up(self, slot: int, port: int, plays: int) -> None:
        """Go on with a leg that another process of ours opened; `slot` -1: on another host, it has none here."""
        self.slot, self.port, self.plays = slot, port, plays + PLAYS_JUMP
        self.is_open = slot >= 0
        if self.is_open:
            self._media.watch(self.name, self.event)

    def modify(self, negotiated: Negotiation, *, source: str) -> None:
        """What a re-INVITE or a late answer changed."""
        command = protocol.Modify(leg=self.name, latch_from=(source,) if source else ())
        _apply(command, negotiated)
        self._media.send(command)

    def close(self) -> None:
        """End the leg; `on_closed` follows, at once if it was never open: then nothing else does, and the owner is let
        go of."""
        self._settle("stopped")
        if self.is_open:
            self.is_open = False
            self._media.send(protocol.Close(leg=self.name))
            return
        if self.slot >= 0:
            self._media.give_back(self.slot)
            self.slot = -1
        on_closed = self.on_closed
        self._ignore_all()
        on_closed({})

    def forget(self) -> None:
        """No event of the leg is wanted any more. The owner is let go of, so that it goes with its last user."""
        self._media.unwatch(self.name)
        self._ignore_all()

    # -- playing ---------------------------------------------------------------------------------------------

    def play(
        self, items: Sequence[Item], *, loop: int = 1, barge: str = "", start_item: int = 0, start_ms: int = 0
    ) -> "asyncio.Future[Played]":
        """Play instead of what is played now; the future says how it ended, `stopped` also when the leg closes."""
        self._settle("stopped")
        self.plays += 1
        name = str(self.plays)
        future: asyncio.Future[Played] = asyncio.get_running_loop().create_future()
        self._played = name, future
        self.barge = barge
        self._media.send(
            protocol.Play(
                leg=self.name, play=name, items=list(items), loop=loop, start_item=start_item, start_ms=start_ms,
                barge=barge,
            )
        )  # fmt: skip
        return future

    def follow(self, name: str, barge: str = "") -> "asyncio.Future[Played] | None":
        """The end of a play that another process of ours began, which may have come already; None if the media process
        knows nothing of it."""
        future: asyncio.Future[Played] = asyncio.get_running_loop().create_future()
        if self._missed is not None and self._missed.play == name:
            future.set_result(self._missed)
            return future
        if not self.adopted or name != self.adopted:
            return None
        self.adopted = ""
        self._played = name, future
        self.barge = barge
        return future

    def stop(self) -> None:
        """End what is played, if anything is."""
        if self._played is not None:
            self._settle("stopped")
            self._media.send(protocol.Stop(leg=self.name))

    def send(self, command: Command) -> None:
        """Any other command about this leg (recording, bridging)."""
        self._media.send(command)

    def _settle(self, why: str) -> None:
        played, self._played = self._played, None
        self.barge = ""
        if played is not None and not played[1].done():
            played[1].set_result(Played(leg=self.name, play=played[0], why=why))

    # -- events ----------------------------------------------------------------------------------------------

    def event(self, event: Event) -> None:
        """One event of the leg."""
        if isinstance(event, protocol.Digit):
            self.on_digit(event.digit, event.how)
        elif isinstance(event, Played):
            self._ended(event)
        elif isinstance(event, protocol.Closed):
            self.on_closed(event.numbers)
        elif isinstance(event, protocol.TimedOut):
            self.on_timeout()
        elif isinstance(event, protocol.Flowing):
            self.on_flowing()
        elif isinstance(event, protocol.Refused):
            if event.what == "play":
                self._settle("failed")
            self.on_refused(event.what, event.reason)
        else:
            self.on_other(event)

    def _ended(self, event: Played) -> None:
        played = self._played
        if played is None or played[0] != event.play:
            self._missed = event  # of an earlier play, or one that is not followed yet
            if self.adopted == event.play:
                self.adopted = ""
            return
        self._played = None
        self.barge = ""
        if not played[1].done():
            played[1].set_result(event)


def _apply(command: protocol.Open | protocol.Modify, negotiated: Negotiation) -> None:
    command.codec = negotiated.codec
    command.payload_types = negotiated.payload_types
    command.send_payload_type = negotiated.send_payload_type
    command.dtmf_payload_type = negotiated.dtmf_payload_type
    command.ptime = negotiated.ptime
    command.remote = _numeric(negotiated.remote)
    command.remote_rtcp = _numeric(negotiated.remote_rtcp)
    command.direction = negotiated.direction
    keys = negotiated.srtp
    command.srtp = protocol.Srtp(suite=keys.suite, ours=keys.ours, theirs=keys.theirs) if keys is not None else None


def _numeric(address: tuple[str, int] | None) -> tuple[str, int] | None:
    """An address and port; None for a name, which is not looked up: that peer is found where its audio comes from."""
    if address is None:
        return None
    try:
        ip_address(address[0].partition("%")[0])
    except ValueError:
        return None
    return address


def _ignore(*_details: object) -> None:
    """Nobody listens."""


def quality_of(numbers: dict[str, Any], before: MediaQuality | None) -> MediaQuality:
    """The media process's numbers as a call's record has them; `before` where they cannot be read."""
    try:
        found = msgspec.convert(numbers, MediaQuality, strict=False)
    except msgspec.ValidationError:
        log.warning("the media process's numbers cannot be read: %s", numbers)
        return before or MediaQuality()
    if before is not None and not found.codec:
        found.codec = before.codec
    return found
