"""A simulated phone: a number, how it behaves, and its calls."""

import asyncio
import time
from typing import TYPE_CHECKING, Final

from trunkline.testing.phones.call import PhoneCall
from trunkline.testing.phones.line import Line
from trunkline.testing.phones.things import Behaviour, CallState, Dial, Registered, Registration

if TYPE_CHECKING:
    from trunkline.sip.server_invite import ServerInvite
    from trunkline.testing.phones.exchange import PhoneExchange

MAX_CALLS: Final = 100
"""Calls that a phone keeps; ended ones leave first, the oldest of them."""


class TooMany(OverflowError):
    """The phone has as many calls as it can."""


class Phone:
    """See the module. Made by `PhoneExchange.phone`."""

    def __init__(self, number: str, exchange: "PhoneExchange") -> None:
        self.number = number
        self.behaviour = Behaviour()
        self.calls: dict[int, PhoneCall] = {}
        self.counted = 0
        """Calls so far."""
        self.line: Line | None = None
        """Its own account at a SIP domain; None: it is behind the simulated trunk."""
        self._exchange = exchange
        self._waiting: list[asyncio.Future[None]] = []

    def behaves(self, behaviour: Behaviour) -> None:
        """Do this with calls from now on, and with those that ring undecided."""
        self.behaviour = behaviour
        for call in list(self.calls.values()):
            call.behave(behaviour)

    @property
    def registered(self) -> Registered:
        """How its registration went."""
        return self.line.state if self.line is not None else Registered()

    async def register(self, wanted: Registration) -> Registered:
        """Register with a SIP domain, once more, or leave; how it went."""
        line = self.line
        if line is None or line.wanted.user != wanted.user or line.wanted.domain != wanted.domain:
            if line is not None:
                line.stop()
            line = self.line = Line(self._exchange, self.number, wanted)
        line.wanted = wanted
        return await line.register()

    async def dial(self, wanted: Dial) -> PhoneCall:
        """Make a call. Raises TooMany, NotPossible, OSError."""
        call = self._new("out", wanted.to)
        try:
            await call.place(wanted)
        except OSError:
            self.calls.pop(call.state.id, None)
            raise
        return call

    def take(self, invite: "ServerInvite") -> None:
        """A call comes in."""
        try:
            call = self._new("in", remote_of(invite))
        except TooMany:
            invite.reject(486)
            return
        call.take(invite, self.behaviour)
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def incoming(self, after: int, wait_s: float) -> list[CallState]:
        """Calls with a higher number than `after`; waits for one to come in when there is none."""
        end = time.monotonic() + wait_s
        while True:
            found = [call.snapshot() for number, call in self.calls.items() if number > after]
            left = end - time.monotonic()
            if found or left <= 0:
                return found
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await asyncio.wait_for(future, left)
            except TimeoutError:
                return []
            finally:
                if future in self._waiting:
                    self._waiting.remove(future)

    def drop_all(self) -> None:
        """Hang up every call, without waiting for what the other sides say; refresh no registration."""
        if self.line is not None:
            self.line.stop()
        for call in list(self.calls.values()):
            call.drop()

    def _new(self, direction: str, remote: str) -> PhoneCall:
        if len(self.calls) >= MAX_CALLS:
            ended = next((number for number, call in self.calls.items() if call.over), None)
            if ended is None:
                raise TooMany(f"{self.number} has {MAX_CALLS} calls already")
            del self.calls[ended]
        self.counted += 1
        state = CallState(id=self.counted, phone=self.number, direction=direction, remote=remote, started_s=time.time())
        call = self.calls[self.counted] = PhoneCall(self._exchange, state, self.line)
        return call


def remote_of(invite: "ServerInvite") -> str:
    """Who calls, as the phone's display shows it."""
    sender = invite.request.from_
    uri = sender.uri
    return uri.user if uri.user else str(uri)
