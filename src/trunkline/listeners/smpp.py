"""The SMPP server: accounts' own SMPP clients (ESMEs) bind here with their system_id and password.

What they submit is accepted like a REST request (`smpp_submit`), long messages part by part (`smpp_parts`); receipts
and received messages go back to them durably (`smpp_deliver`); query_sm and cancel_sm are in `smpp_query`. replace_sm
is answered with ESME_RREPLACEFAIL: what was accepted is not changed any more. docs/howto/smpp-clients.md is the
customer's view of it.
"""

import asyncio
import hmac
import logging
import socket
import ssl as ssl_module
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any, Final, Protocol

from trunkline.accounts.alerts import Alerts
from trunkline.accounts.directory import Directory
from trunkline.cluster.failed_logins import FailedLogins
from trunkline.cluster.telling import Handle, Peers
from trunkline.inflight.store import Inflight
from trunkline.listeners.smpp_deliver import Deliverer, Sending, abandon, pump
from trunkline.listeners.smpp_elsewhere import Elsewhere
from trunkline.listeners.smpp_parts import Parts
from trunkline.listeners.smpp_query import Owners, Queries
from trunkline.listeners.smpp_submit import Intake
from trunkline.messaging import smpp_clients
from trunkline.messaging.outbound import Outbound
from trunkline.messaging.reader import Reader
from trunkline.model.account import Account
from trunkline.settings import Settings
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp import transport
from trunkline.smpp.session import Limits
from trunkline.smpp.transport import Connection
from trunkline.storage.queue import Owed, Queue
from trunkline.webhooks.delivery import Delivery, Handler, Result

DELIVER_WINDOW: Final = 50
"""deliver_sm of one bind that wait for the client's answer."""
MAX_FAILED_BINDS: Final = 20
"""Of one address in a minute; then its connections are closed unheard."""
FAILED_BIND_WINDOW_S: Final = 60.0
MAX_FAILED_SOURCES: Final = 10_000
"""Addresses with failed binds that are remembered; the longest unseen goes first."""
FAILED_BIND_DELAY_S: Final = 1.0
"""A wrong system_id or password is answered after this time."""
CHECK_S: Final = 5.0
"""How often it is looked whether the accounts of bound clients may still be, and for incomplete long messages."""
EXPIRE_CHECKS: Final = 60
"""Checks between looks at what is owed to clients that do not come."""
EXPIRE_PAGE: Final = 500

log = logging.getLogger(__name__)


class Members(Peers, Owners, Protocol):
    """The other nodes of a cluster."""


class Client(transport.Handler):
    """One connection of a client."""

    def __init__(self, server: "SmppServer") -> None:
        self._server = server
        self.connection: Connection
        self.account_sid = ""
        """Empty until it is bound."""
        self.system_id = ""
        self.password = ""
        self.receives = False
        self.waiting: deque[tuple[p.DeliverSm, Sending]] = deque()

    def on_connected(self, connection: Connection) -> None:
        """A connection stands."""
        self.connection = connection
        self._unheard()

    def on_bind_request(self, connection: Connection, sequence: int, pdu: p.Bind) -> None:
        """Who is it?"""
        if self._unheard():  # by now: the connection may have stood before its address failed too often
            return
        status = self._server.bind(self, pdu)
        if status == c.ESME_ROK:
            connection.accept_bind(sequence, self._server.system_id)
            self._server.bound(self)
        elif status == c.ESME_RINVPASWD:
            asyncio.get_running_loop().call_later(FAILED_BIND_DELAY_S, self._refuse, connection, sequence, status)
        else:
            self._refuse(connection, sequence, status)

    def _unheard(self) -> bool:
        """Whether its address has failed too often; then it is cut off."""
        banned = self._server.banned(source_of(self.connection))
        if banned:
            self.connection.abort("too many failed binds")
        return banned

    def _refuse(self, connection: Connection, sequence: int, status: int) -> None:
        if connection.refuse_bind(sequence, status):
            connection.close()

    def on_request(self, connection: Connection, sequence: int, pdu: p.Request) -> None:
        """A submit or a question."""
        self._server.request(self, sequence, pdu)

    def on_room(self, connection: Connection) -> None:
        """The client has answered, or reads again."""
        pump(self)

    def on_closed(self, connection: Connection, reason: str) -> None:
        """It is gone."""
        self._server.gone(self, reason)
        abandon(self)


class SmppServer:
    """See the module. `attach` it to the delivery, then `start`."""

    def __init__(
        self,
        settings: Settings,
        directory: Directory,
        outbound: Outbound,
        inflight: Inflight,
        reader: Reader,
        alerts: Alerts,
    ) -> None:
        self._settings = settings.smpp_server
        self._give_up_ms = int(settings.webhooks.give_up_s * 1000)
        self._directory = directory
        self._queue = inflight.queue
        self._clock = inflight.clock
        self._parts = Parts(settings.messaging, inflight, outbound, reader)
        self._intake = Intake(directory, outbound, inflight.clock, self._parts)
        self._queries = Queries(inflight, outbound, reader)
        self._deliverer = Deliverer(self.receivers, reader, alerts)
        self.handlers: dict[str, Handler] = {
            smpp_clients.RECEIPT: self._deliverer,
            smpp_clients.INBOUND: self._deliverer,
        }
        """For the delivery, by kind."""
        self.system_id = self._settings.system_id
        self._clients: dict[str, list[Client]] = {}
        self.failures = FailedLogins(
            MAX_FAILED_BINDS, FAILED_BIND_WINDOW_S, MAX_FAILED_SOURCES, inflight.clock.monotonic
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._delivery: Delivery | None = None
        self.elsewhere: Elsewhere | None = None
        """In a cluster: the clients of other nodes."""
        self.given: Sequence[socket.socket] = ()
        """Sockets that listen already (the supervisor's), instead of host and port."""
        self._listener: transport.Listener | None = None

    # -- life -------------------------------------------------------------------------------------------------

    def attach(self, delivery: Delivery) -> None:
        """Tell the delivery that lanes of clients are closed until one is bound. Before its `recover`."""
        self._delivery = delivery
        delivery.starts_closed = lambda name: (
            name.startswith(smpp_clients.SCHEME) and not self._reachable(name.removeprefix(smpp_clients.SCHEME))
        )

    def join(self, peers: Members, handle: Handle) -> Elsewhere:
        """Deliver by other nodes of a cluster too. Before the delivery gets the `handlers`."""
        self._queries.join(peers, handle)
        self.elsewhere = Elsewhere(peers, self._deliverer, lambda sid: bool(self.receivers(sid)), self._look_at)
        self.elsewhere.serve(handle)
        self.handlers = dict.fromkeys(self.handlers, self.elsewhere)
        return self.elsewhere

    async def start(self) -> None:
        """Take up stored parts, and listen if the settings say so. Raises OSError or ValueError when it cannot."""
        await self.recover()
        self._spawn(self._run())
        own = self._settings
        if not own.enabled:
            return
        limits = Limits(
            window=DELIVER_WINDOW,
            max_inbound=own.window,
            response_timeout_s=own.response_timeout_s,
            bind_timeout_s=own.bind_timeout_s,
            # Silence for half the time is asked about twice in the other half.
            enquire_link_interval_s=own.idle_s / 2,
            enquire_link_timeout_s=own.idle_s / 4,
        )
        self._listener = await transport.listen(
            own.host,
            own.port,
            lambda: Client(self),
            limits=limits,
            ssl=tls_context(own.tls_cert, own.tls_key),
            max_connections=own.max_connections,
            given=self.given,
        )
        log.info("SMPP server listens on %s port %d", own.host, self._listener.port)

    async def recover(self, queue: Queue | None = None) -> None:
        """Take up stored parts (in this partition of the queue)."""
        await self._parts.restore(queue)

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Unbind every client; what they submitted and was not answered is answered first."""
        if self._listener is not None:
            await self._listener.close(timeout_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """The port it listens on; 0 when it does not."""
        return self._listener.port if self._listener is not None else 0

    @property
    def bound_clients(self) -> int:
        """Clients bound now."""
        return sum(map(len, self._clients.values()))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- binds ------------------------------------------------------------------------------------------------

    def bind(self, client: Client, pdu: p.Bind) -> int:
        """The status of a bind; the client is the account's when it is ESME_ROK."""
        account = self._directory.by_smpp_system_id(pdu.system_id) if pdu.system_id else None
        wanted = account.smpp_password if account is not None else ""
        # Compared even where there is no such account, so that time does not tell.
        right = hmac.compare_digest(pdu.password.encode(), wanted.encode()) and bool(wanted)
        if account is None or not right:
            self.failures.record(source_of(client.connection))
            log.warning("bind of %r from %s refused", pdu.system_id[:40], client.connection.peer)
            return c.ESME_RINVPASWD
        if account.status != "active":
            return c.ESME_RBINDFAIL
        if len(self._clients.get(account.sid, ())) >= account.smpp_max_binds:
            return c.ESME_RALYBND
        client.account_sid = account.sid
        client.system_id, client.password = pdu.system_id, pdu.password
        client.receives = not isinstance(pdu, p.BindTransmitter)
        self._clients.setdefault(account.sid, []).append(client)
        return c.ESME_ROK

    def bound(self, client: Client) -> None:
        """What it is owed can go out now."""
        log.info("%s bound as %s", client.connection.peer, client.system_id)
        if client.receives:
            self._changed(client.account_sid)

    def gone(self, client: Client, reason: str) -> None:
        """A connection has ended."""
        clients = self._clients.get(client.account_sid)
        if clients is None or client not in clients:
            return
        log.info("%s, bound as %s, has gone: %s", client.connection.peer, client.system_id, reason)
        clients.remove(client)
        if not clients:
            del self._clients[client.account_sid]
        self._changed(client.account_sid)

    def _changed(self, account_sid: str) -> None:
        """The account's receivers here have changed."""
        self._look_at(account_sid)
        if self.elsewhere is not None:
            self.elsewhere.tell([sid for sid in self._clients if self.receivers(sid)])

    def _look_at(self, account_sid: str) -> None:
        """What the account is owed can go out now, or cannot any more."""
        if self._delivery is not None:
            self._delivery.set_lane(smpp_clients.lane(account_sid), closed=not self._reachable(account_sid))

    def _reachable(self, account_sid: str) -> bool:
        """Whether a client of the account receives somewhere."""
        elsewhere = self.elsewhere
        return bool(self.receivers(account_sid)) or bool(elsewhere is not None and elsewhere.node(account_sid))

    def receivers(self, account_sid: str) -> Sequence[Client]:
        """The account's clients that receive."""
        clients = self._clients.get(account_sid, ())
        return [client for client in clients if client.receives and client.connection.bound]

    def banned(self, source: str) -> bool:
        """Whether an address has failed too often."""
        return self.failures.left_s(source) > 0

    # -- requests ---------------------------------------------------------------------------------------------

    def request(self, client: Client, sequence: int, pdu: p.Request) -> None:
        """Answer a request of a bound client, now or later."""
        connection = client.connection
        account = self._directory.account(client.account_sid)
        if account is None or account.status != "active":
            connection.respond(sequence, c.ESME_RSUBMITFAIL)
            connection.close()
        elif isinstance(pdu, p.SubmitSm | p.DataSm):
            self._intake.submit(connection, account, sequence, pdu)
        elif isinstance(pdu, p.SubmitMulti):
            self._later(connection, sequence, self._intake.submit_multi(connection, account, sequence, pdu))
        elif isinstance(pdu, p.QuerySm):
            self._later(connection, sequence, self._queries.query(connection, account, sequence, pdu))
        elif isinstance(pdu, p.CancelSm):
            self._later(connection, sequence, self._queries.cancel(connection, account, sequence, pdu))
        elif isinstance(pdu, p.ReplaceSm):
            connection.respond(sequence, c.ESME_RREPLACEFAIL)
        else:
            connection.respond(sequence, c.ESME_RINVCMDID)

    def _later(self, connection: Connection, sequence: int, work: Coroutine[Any, Any, None]) -> None:
        self._spawn(self._guarded(connection, sequence, work))

    async def _guarded(self, connection: Connection, sequence: int, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            log.exception("a request over SMPP failed")
            connection.respond(sequence, c.ESME_RSYSERR)

    # -- upkeep -----------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        checks = 0
        while True:
            await asyncio.sleep(CHECK_S)
            checks += 1
            try:
                self.check()
                await self._parts.sweep()
                if checks % EXPIRE_CHECKS == 0:
                    await self.expire()
            except Exception:
                log.exception("upkeep of the SMPP server failed; it is tried again")

    def check(self) -> None:
        """Unbind clients whose account is suspended, closed or has another password by now."""
        for sid, clients in list(self._clients.items()):
            account = self._directory.account(sid)
            for client in list(clients):
                if not may_stay(account, client):
                    log.info("%s may not stay bound", client.system_id)
                    client.connection.close()

    async def expire(self) -> None:
        """Give up what waits longer than `webhooks.give_up_s` for clients that are not bound: all of it, lest more come
        than go."""
        for lane, _, _ in await self._queue.owed_hosts():
            if lane.startswith(smpp_clients.SCHEME):
                await self._expire(lane)

    async def _expire(self, lane: str) -> None:
        account = lane.removeprefix(smpp_clients.SCHEME)
        now_ms = self._clock.now_ms()
        oldest_us = (now_ms - self._give_up_ms) * 1000
        given: list[Owed] = []
        count = after = 0
        try:
            while not self._reachable(account):
                page = await self._queue.owed(lane, after, EXPIRE_PAGE, now_ms + self._give_up_ms)
                over = [owed for owed in page if owed.id < oldest_us]
                settled = await self._give_up(over)
                given, count = given or settled[:1], count + len(settled)
                if len(over) < EXPIRE_PAGE:
                    break
                after = over[-1].id
                await asyncio.sleep(0)  # a turn for everything else
        finally:
            for owed in given:
                text = f"no client was bound in time ({count} given up)"
                self._deliverer.exhausted(owed, Result((), False, error=text))

    async def _give_up(self, over: Sequence[Owed]) -> list[Owed]:
        """Those whose end could be written, all in one commit; the others are left to the next time."""
        for owed in over:
            owed.state = "exhausted"
        ended = await asyncio.gather(*(self._queue.settle(owed) for owed in over), return_exceptions=True)
        settled = [owed for owed, failed in zip(over, ended, strict=True) if failed is None]
        failures = [failed for failed in ended if failed is not None]
        if failures:
            log.warning("%d owed to SMPP clients could not be given up: %r", len(failures), failures[0])
        if self._delivery is not None:
            for owed in settled:
                self._delivery.finished(owed)
        return settled


def may_stay(account: Account | None, client: Client) -> bool:
    """Whether a bound client could still bind."""
    return (
        account is not None
        and account.status == "active"
        and account.smpp_system_id == client.system_id
        and hmac.compare_digest(account.smpp_password.encode(), client.password.encode())
    )


def source_of(connection: Connection) -> str:
    """The address a connection comes from."""
    return connection.peer.rpartition(":")[0]


def tls_context(certificate: str, key: str) -> ssl_module.SSLContext | None:
    """TLS for the listener; None when no certificate is set. Raises OSError or ssl.SSLError."""
    if not certificate:
        return None
    context = ssl_module.create_default_context(ssl_module.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key or None)
    return context
