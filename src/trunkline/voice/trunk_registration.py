"""Registrations at carriers: one at each registrar of each trunk that wants it, kept up until the node stops.

Each has a timer. When it is due the registrar's name is looked up, the best server gets the REGISTER, and the next one
in its turn where that does not answer. A change is logged once. Calls then come in for our Contact
(trunkline.voice.trunk_contact), over the connection that is kept alive for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from trunkline.settings import Trunk
from trunkline.sip.flow import Flow, Target
from trunkline.sip.identity import sip_uri
from trunkline.sip.register_client import RegisterClient, State
from trunkline.sip.uri import Uri
from trunkline.voice.trunk_contact import contact_user

if TYPE_CHECKING:
    from trunkline.sip.message import Response

START_SPREAD_S: Final = 1.0
"""Within which the registrations of a start go out."""
UNREGISTER_S: Final = 2.0
"""How long a stop waits for registrars to confirm."""
LOOKUP_RETRY_S: Final = 30.0
"""Wait after a name could not be looked up."""
CONTACT_SCHEMES: Final = ("<sip:", "<sips:")

log = logging.getLogger(__name__)


class Sip(Protocol):
    """trunkline.sip.transport.SipTransport, as far as it is needed."""

    @property
    def stack(self) -> Any: ...

    async def resolve(self, host: str, port: int | None, transport: str = "", secure: bool = False) -> list[Target]: ...

    def hold(self, flow: Flow) -> None: ...

    def release(self, flow: Flow) -> None: ...


class Standing(NamedTuple):
    """One registration, for people."""

    trunk: str
    registrar: str
    address: str
    """What is registered."""
    state: str
    up: bool
    since: float
    detail: str
    expires_s: float
    seen: str


class Registration:
    """One trunk at one registrar."""

    def __init__(self, trunk: Trunk, registrar: str, user: str, sip: Sip, random: Random, now: Callable[[], float]):
        self.trunk = trunk
        self.registrar = Uri.parse(registrar)
        self._user = user
        self._sip = sip
        self._now = now
        host = trunk.domain or self.registrar.host
        self.address = sip_uri(trunk.register_user or trunk.username, host)
        self._target_uri = f"sip:{host}"
        self.client = RegisterClient(int(trunk.register_s), sip.stack.token(), random.uniform)
        self.since = now()
        self.on_change: Callable[[], None] = lambda: None
        self._shown: State | None = None
        self._targets: list[Target] = []
        self._next_target = 0
        self._held: Flow | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending: asyncio.Future[None] | None = None

    def start(self, after_s: float) -> None:
        """Register after so many seconds, and stay registered."""
        self._ending = None
        self._timer = asyncio.get_running_loop().call_later(after_s, self._due)

    def _due(self) -> None:
        self._timer = None
        self._task = asyncio.get_running_loop().create_task(self._register())

    async def _register(self) -> None:
        uri = self.registrar
        try:
            if not self._targets:
                transport = "" if uri.scheme == "sips" else uri.transport
                found = await self._sip.resolve(uri.bare_host, uri.port, transport, uri.scheme == "sips")
                self._targets, self._next_target = found, 0
        except OSError as error:
            self.client.answered(503, None, self._user, self._now())
            self.client.detail = f"{uri.host} cannot be resolved: {error}"
            self.client.due = self._now() + LOOKUP_RETRY_S
            self._after()
            return
        self._send(end=False)

    def _send(self, *, end: bool) -> None:
        target = self._targets[self._next_target % len(self._targets)]
        stack, client, trunk = self._sip.stack, self.client, self.trunk
        flow = stack.flow_to(target)
        headers = client.request(self.contact(flow), end=end)
        told = self._ended if end else lambda status, response: self._answered(flow, status, response)
        stack.request(
            "REGISTER", self._target_uri, to=f"<{self.address}>", from_=f"<{self.address}>", target=flow,
            headers=headers, credentials=(trunk.username, str(trunk.password)), call_id=client.call_id,
            cseq=client.cseq, on_response=told,
        )  # fmt: skip

    def contact(self, flow: Flow) -> str:
        """Our Contact with the user that tells the trunk."""
        contact: str = self._sip.stack.contact(flow)
        scheme = next(one for one in CONTACT_SCHEMES if contact.startswith(one))
        return f"{scheme}{self._user}@{contact[len(scheme) :]}"

    def _answered(self, flow: Flow, status: int, response: Response | None) -> None:
        client = self.client
        client.answered(status, response, self._user, self._now())
        if client.state is State.REGISTERED and not client.detail:
            self._hold(flow)
        elif response is None or status >= 500:
            self._elsewhere()
        self._after()

    def _elsewhere(self) -> None:
        """The next server of the name; at once while there is one, else after a new look-up."""
        self._next_target += 1
        if self._next_target < len(self._targets):
            self.client.due = self._now()
        else:
            self._targets = []

    def _after(self) -> None:
        if self._ending is not None:
            return
        self._tell()
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self.client.due - self._now()), self._due)

    def _tell(self) -> None:
        state, client = self.client.state, self.client
        if state is self._shown or state is State.TRYING:
            return
        self._shown, self.since = state, self._now()
        what = f"trunk {self.trunk.name}: {self.address} at {self.registrar}"
        if state is State.REGISTERED:
            log.info("%s is registered for %d s", what, client.granted_s)
        else:
            log.warning("%s is not registered: %s", what, client.detail)
        self.on_change()

    def _hold(self, flow: Flow) -> None:
        """Keep the way alive by which calls come in."""
        if not flow.reliable or flow == self._held:
            return
        self._release()
        self._held = flow
        self._sip.hold(flow)

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._sip.release(held)

    def halt(self) -> None:
        """Register no more, without a word: another node does."""
        self._ending = asyncio.get_running_loop().create_future()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        self._release()
        self.client.ended()

    async def stop(self) -> None:
        """Take the registration back, as far as the registrar answers in time."""
        self._ending = asyncio.get_running_loop().create_future()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self.client.stands(self._now()) and self._targets:
            self._send(end=True)
            await asyncio.wait([self._ending], timeout=UNREGISTER_S)
        self._release()
        self.client.ended()

    def _ended(self, status: int, response: Response | None) -> None:
        if self._ending is not None and not self._ending.done():
            self._ending.set_result(None)

    @property
    def hosts(self) -> Iterable[str]:
        """Addresses of the registrar, as far as they are known."""
        return [target.host for target in self._targets]

    def standing(self) -> Standing:
        """For people."""
        client, now = self.client, self._now()
        left = max(0.0, client.expires_at - now)
        return Standing(
            self.trunk.name, str(self.registrar), self.address, client.state, client.stands(now), self.since,
            client.detail, left, client.seen,
        )  # fmt: skip


class TrunkRegistrations:
    """See the module. `secret` makes Contacts that nobody guesses. Where `leased`, a trunk is registered by the one
    node that holds it (`gain`, `release`, `lose`)."""

    def __init__(
        self, trunks: Sequence[Trunk], sip: Sip, secret: bytes, random: Random, now: Callable[[], float]
    ) -> None:
        self._random = random
        self.leased = False
        self._held: set[str] = set()
        self._on_change: Callable[[], None] | None = None
        """Set while they run."""
        self._all = [
            Registration(trunk, registrar, contact_user(trunk, secret), sip, random, now)
            for trunk in trunks
            if trunk.register
            for registrar in registrars(trunk)
        ]

    def __iter__(self) -> Iterator[Registration]:
        return iter(self._all)

    def start(self, on_change: Callable[[], None] = lambda: None) -> None:
        """Register. `on_change` is called when one has begun to stand, or no longer does."""
        self._on_change = on_change
        for one in self._all:
            one.on_change = on_change
            if not self.leased or one.trunk.name in self._held:
                one.start(self._random.uniform(0, START_SPREAD_S))

    def gain(self, trunk: str) -> None:
        """This node registers a trunk from now on."""
        self._held.add(trunk)
        if self._on_change is not None:
            for one in self._of(trunk):
                one.start(0.0)

    async def release(self, trunk: str) -> None:
        """Take a trunk's registrations back: another node registers it."""
        self._held.discard(trunk)
        await asyncio.gather(*(one.stop() for one in self._of(trunk)))
        self._tell()

    def lose(self, trunk: str) -> None:
        """Another node registers a trunk already."""
        self._held.discard(trunk)
        for one in self._of(trunk):
            one.halt()
        self._tell()

    def _of(self, trunk: str) -> list[Registration]:
        return [one for one in self._all if one.trunk.name == trunk]

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change()

    async def stop(self) -> None:
        """Take all back; within UNREGISTER_S."""
        self._on_change = None
        ours = [one for one in self._all if not self.leased or one.trunk.name in self._held]
        stops: list[Awaitable[None]] = [one.stop() for one in ours]
        await asyncio.gather(*stops)


def registrars(trunk: Trunk) -> tuple[str, ...]:
    """Where a trunk registers: its `registrars`, else its first gateway."""
    return trunk.registrars or tuple(one.uri for one in trunk.gateway_list[:1])
