"""The exchange of the simulated phones: one SIP port, the gateway of Trunkline's simulated trunk.

A call to any number reaches the phone with that number. What happens with numbers that nobody plays is `unknown`
(404 by default), but for those that end in 9900NNN: they are refused with the SIP status NNN.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from trunkline.sip.core import Answer, StackConfig
from trunkline.sip.flow import Flow
from trunkline.sip.message import Request
from trunkline.sip.server_invite import ServerInvite
from trunkline.sip.stack import Stack
from trunkline.sip.transport import SipTransport
from trunkline.testing.phones.call import PhoneCall
from trunkline.testing.phones.phone import Phone
from trunkline.testing.phones.rtp_peer import Pacer
from trunkline.testing.phones.things import STATUSES, Behaviour

MAX_PHONES: Final = 1000
MAX_KEPT_AUDIO: Final = 50
"""Ended calls whose audio is kept; that of older ones is dropped."""
MAX_TASKS: Final = 1000
UNKNOWN: Final = Behaviour(does="rejects", status=404)
REFUSED: Final = re.compile(r"9900([4-6]\d\d)$")

log = logging.getLogger(__name__)


class TooManyPhones(OverflowError):
    """There is no room for another phone."""


class PhoneExchange:
    """See the module. Use from one event loop."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        """SIP port, UDP and TCP, once started."""
        self.platform: tuple[str, int] | None = None
        """Where calls go to: Trunkline's SIP listener."""
        self.credentials: tuple[str, str] | None = None
        """Digest user and password towards it."""
        self.unknown = UNKNOWN
        self.phones: dict[str, Phone] = {}
        self.pacer = Pacer()
        self._transport: SipTransport | None = None
        self._ended: deque[PhoneCall] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- life --------------------------------------------------------------------------------------------------

    async def start(self, port: int = 0) -> None:
        """Listen; 0 lets the system choose a port. Raises OSError."""
        transport = SipTransport(StackConfig(user_agent="Trunkline phones"), self)
        await transport.start(self.host, port)
        self._transport, self.port = transport, transport.port

    async def stop(self) -> None:
        """Hang up everything and stop."""
        for phone in self.phones.values():
            phone.drop_all()
        for task in self._tasks:
            task.cancel()
        if self._transport is not None:
            await self._transport.close()

    @property
    def stack(self) -> Stack:
        assert self._transport is not None
        return self._transport.stack

    # -- phones ------------------------------------------------------------------------------------------------

    def phone(self, number: str) -> Phone:
        """The phone with this number, from now on played by somebody. Raises TooManyPhones."""
        found = self.phones.get(number)
        if found is None:
            if len(self.phones) >= MAX_PHONES:
                raise TooManyPhones(f"at most {MAX_PHONES} phones")
            found = self.phones[number] = Phone(number, self)
        return found

    def uri_of(self, to: str) -> str:
        """The SIP URI that a phone dials."""
        if to.lower().startswith(("sip:", "sips:")):
            return to
        host, port = self.platform or (self.host, self.port)
        return f"sip:{to}@{_bracketed(host)}:{port}"

    def own_uri(self, number: str) -> str:
        """A phone's own URI."""
        if number == "anonymous":
            return "sip:anonymous@anonymous.invalid"
        return f"sip:{number}@{_bracketed(self.host)}:{self.port}"

    def target(self, to: str, transport: str) -> tuple[str, str, int] | None:
        """Where the INVITE is sent: to the platform, whatever the URI says; to the URI's host without one."""
        if self.platform is None:
            return None if to.lower().startswith("sip:") else (transport, self.host, self.port)
        return transport, *self.platform

    def ended(self, call: PhoneCall) -> None:
        """A call ended: the audio of the oldest is dropped when there is too much."""
        self._ended.append(call)
        if len(self._ended) > MAX_KEPT_AUDIO:
            self._ended.popleft().forget()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this beside everything else."""
        if len(self._tasks) >= MAX_TASKS:
            work.close()
            log.warning("too much is going on: something scripted was left out")
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.warning("a phone could not do as it was told: %s", task.exception())

    # -- from the stack (sip.core.Core) ------------------------------------------------------------------------

    def on_invite(self, invite: ServerInvite) -> None:
        """A call for one of the phones."""
        number = invite.request.request_uri.user
        phone = self.phones.get(number)
        if phone is not None:
            phone.take(invite)
            return
        refused = REFUSED.search(number)
        if refused is not None:
            invite.reject(int(refused[1]))
        elif self.unknown.does in ("rejects", "declines", "busy", "off"):
            invite.reject(STATUSES.get(self.unknown.does, self.unknown.status))
        else:
            try:
                phone = self.phone(number)
            except TooManyPhones:
                invite.reject(503)
                return
            phone.behaviour = self.unknown
            phone.take(invite)

    def on_request(self, request: Request, flow: Flow) -> Answer | None:
        """OPTIONS and the like: as the stack answers them."""
        return None

    def permitted(self, request: Request, flow: Flow) -> bool:
        """Everything is looked at: the exchange is on the developer's own machine."""
        return True


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
