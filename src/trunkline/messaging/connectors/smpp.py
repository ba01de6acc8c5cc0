"""A carrier over SMPP 3.4: several binds, each with its window and pace, as one connector.

Submits go to the least loaded bind. Receipts and inbound messages are acknowledged when the sink has committed them,
and refused with ESME_RX_T_APPN when it could not, so that the SMSC sends them again. docs/howto/smpp-carrier.md tells
what each setting does.
"""

import asyncio
import logging
import socket
import ssl as ssl_module
from collections.abc import Callable
from functools import partial
from typing import Final

from trunkline.messaging.connectors.base import Outcome, Receipt, Rejected, Sink, Submission, Unavailable
from trunkline.messaging.connectors.smpp_encode import Encoder
from trunkline.messaging.connectors.smpp_errors import NOT_BY_THIS_ROUTE, TOO_LONG, UNKNOWN_ERROR, Statuses
from trunkline.messaging.connectors.smpp_link import LOOKAHEAD_S, Job, Link, Rate
from trunkline.messaging.connectors.smpp_read import ID_DIALECTS, Reader
from trunkline.messaging.connectors.table import Context
from trunkline.model.message import Message
from trunkline.settings import Smpp
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp import receipt
from trunkline.smpp.addresses import AddressError
from trunkline.smpp.session import Limits
from trunkline.smpp.transport import Connection
from trunkline.sms.segment import TooManySegmentsError
from trunkline.storage.written import Kept

MAX_UNACKNOWLEDGED: Final = 1000
"""deliver_sm of one bind that wait for their commit; more get ESME_RX_T_APPN."""
ENQUIRE_TIMEOUT_S: Final = 15.0
UNBIND_TIMEOUT_S: Final = 1.0
_VERSIONS: Final = {"3.3": 0x33, "3.4": c.INTERFACE_VERSION_34, "5.0": c.INTERFACE_VERSION_50}
_KINDS: Final[dict[str, tuple[type[p.Bind], ...]]] = {
    "trx": (p.BindTransceiver,),
    "tx+rx": (p.BindTransmitter, p.BindReceiver),
}
_LABELS: Final = {p.BindTransceiver: "trx", p.BindTransmitter: "tx", p.BindReceiver: "rx"}

log = logging.getLogger(__name__)


class SmppConnector:
    """See the module. Raises ValueError for settings that cannot work (statuses, TLS files)."""

    def __init__(self, settings: Smpp, context: Context) -> None:
        self.name = settings.name
        self.rate = Rate(settings.mps)
        self.statuses = Statuses(settings.statuses, settings.errors)
        self.normal_id = receipt.normaliser(ID_DIALECTS[settings.submit_id])
        self.may_send = context.may_send
        self._settings = settings
        self._clock = context.clock
        self._encoder = Encoder(settings)
        self._reader = Reader(settings)
        self._ssl = tls_context(settings) if settings.tls else None
        self._links: list[Link] = []
        self._senders: list[Link] = []
        self._sink: Sink | None = None
        self._wake: Callable[[], None] = lambda: None
        self._running = False
        self._under_way = 0
        self._order = 0
        self._idle = asyncio.Event()
        self._given: dict[str, tuple[socket.socket, bytes]] = {}
        self.watch: Callable[[Message, int, list[p.SubmitSm]], None] | None = None
        """Told what each message becomes (learning mode; else None)."""
        self.received = 0
        """Receipts and inbound messages handed to the sink."""
        self.refused = 0
        """Of those, not kept: the SMSC was asked to send them again."""

    # -- base.Connector ---------------------------------------------------------------------------------------

    def start(self, sink: Sink, wake: Callable[[], None]) -> None:
        """See `base.Connector`."""
        self._sink = sink
        self._wake = wake
        self._running = True
        settings = self._settings
        limits = Limits(
            window=settings.window,
            max_inbound=MAX_UNACKNOWLEDGED,
            response_timeout_s=settings.response_timeout_s,
            bind_timeout_s=settings.connect_timeout_s,
            unbind_timeout_s=UNBIND_TIMEOUT_S,
            enquire_link_interval_s=settings.enquire_link_s,
            enquire_link_timeout_s=min(ENQUIRE_TIMEOUT_S, settings.enquire_link_s),
        )
        for number in range(1, settings.binds + 1):
            for kind in _KINDS[settings.bind]:
                link = Link(
                    self,
                    f"{_LABELS[kind]}{number}",
                    bind_pdu(settings, kind),
                    (settings.host, settings.port),
                    self._ssl,
                    limits,
                    (settings.reconnect_first_s, settings.reconnect_longest_s),
                )
                self._links.append(link)
        self._senders = [link for link in self._links if link.sends]
        for link in self._links:
            link.given = self._given.pop(link.mark, None)
            link.start()
        self.drop_given()

    def take(self, mark: str, connection: socket.socket, state: bytes) -> None:
        """Before `start`: a bind that another process has let go of."""
        self._given[mark] = connection, state

    def drop_given(self) -> None:
        """Close binds of another process that this one has no use for."""
        for connection, _ in self._given.values():
            connection.close()
        self._given.clear()

    def capacity(self) -> int:
        """See `base.Connector`. Counted in segments, of which most messages have one."""
        if not self._running:
            return 0
        room = queued = 0
        for link in self._senders:
            room += link.room
            queued += link.queued
        if self.rate.per_s:
            room = min(room, max(1, int(self.rate.per_s * LOOKAHEAD_S)) - queued)
        return max(0, room)

    def submit(self, submission: Submission) -> None:
        """See `base.Connector`."""
        self._under_way += 1
        self._order += 1
        message = submission.message
        try:
            if message.media:
                raise AddressError("SMPP carries no media")
            now_ms = self._clock.now_ms()
            pdus = self._encoder.encode(message, submission.sender, now_ms)
        except AddressError as error:
            self._soon(submission, Rejected(NOT_BY_THIS_ROUTE, str(error), try_elsewhere=True))
        except TooManySegmentsError as error:
            self._soon(submission, Rejected(TOO_LONG, str(error)))
        except Exception as error:
            log.exception("%s: %s could not be encoded", self.name, message.sid)
            self._soon(submission, Rejected(UNKNOWN_ERROR, f"not encoded: {error}"[:200], try_elsewhere=True))
        else:
            if self.watch is not None:
                self.watch(message, now_ms, pdus)
            self._place(Job(submission, pdus, self._order))

    async def let_go(self, grace_s: float) -> list[tuple[str, int, bytes]]:
        """As `stop`, but binds are left to another process, where that can be: mark, descriptor, state of each."""
        await self._finish_all(grace_s)
        left = await asyncio.gather(*[link.let_go(UNBIND_TIMEOUT_S) for link in self._links])
        self._sink = None
        return [(link.mark, *one) for link, one in zip(self._links, left, strict=True) if one is not None]

    async def stop(self, grace_s: float) -> None:
        """See `base.Connector`."""
        self.drop_given()
        await self._finish_all(grace_s)
        await asyncio.gather(*[link.stop(UNBIND_TIMEOUT_S) for link in self._links])
        self._sink = None

    def cut(self, reason: str) -> None:
        """End every bind at once, by a TCP reset and without a word of SMPP: they are another node's to have. What is
        unanswered is in doubt; what the SMSC delivered and was not told that it is kept it sends again."""
        self.drop_given()
        self._running = False
        for link in self._links:
            link.cut(reason)
        self._sink = None

    async def _finish_all(self, grace_s: float) -> None:
        """Send nothing more, and wait for answers."""
        self._running = False
        for link in self._senders:
            link.hand_back_all(Unavailable("the connector is stopping", burns_attempt=False))
        self._idle.clear()
        if self._under_way:
            try:
                await asyncio.wait_for(self._idle.wait(), grace_s)
            except TimeoutError:
                log.warning("%s: %d answers were not waited for", self.name, self._under_way)

    def health(self) -> tuple[bool, str]:
        """See `base.Connector`."""
        if not self._links:
            return False, "stopped"
        up = [link for link in self._links if link.is_up]
        sending = any(link.sends for link in up)
        text = f"{len(up)} of {len(self._links)} binds up, {self._under_way} under way"
        down = next((link for link in self._links if not link.is_up), None)
        if down is not None:
            text += f"; {down.label}: {down.state if down.connection is None else 'silent'}"
        paced = [link.pace for link in up if link.pace is not None]
        if paced:
            text += f"; throttled by the SMSC, paced to {sum(paced):.3g}/s"
        return sending, text

    def binds(self) -> list[tuple[str, bool]]:
        """What each bind is (`trx`, `tx`, `rx`) and whether it is up."""
        return [(link.label.rstrip("0123456789"), link.is_up) for link in self._links]

    # -- links' owner -----------------------------------------------------------------------------------------

    def finished(self, job: Job, outcome: Outcome) -> None:
        """See `smpp_link.Owner`."""
        self._finish(job.submission, outcome)

    def orphaned(self, job: Job) -> None:
        """See `smpp_link.Owner`: another bind takes it on, else it goes back."""
        self._place(job)

    def changed(self) -> None:
        """See `smpp_link.Owner`."""
        if self._running:
            self._wake()

    def delivered(self, connection: Connection, sequence: int, pdu: p.Request) -> None:
        """A deliver_sm or data_sm. Next: trunkline.messaging.connectors.base.Sink.receipt"""
        sink = self._sink
        if not isinstance(pdu, p.DeliverSm | p.DataSm):
            connection.respond(sequence, c.ESME_RINVCMDID)
            return
        if sink is None:
            connection.respond(sequence, c.ESME_RX_T_APPN)
            return
        found = self._reader.read(pdu)
        if found is None:
            log.warning("%s: a receipt without a message id was dropped", self.name)
            connection.respond(sequence)
            return
        self.received += 1
        try:
            kept = sink.receipt(found) if type(found) is Receipt else sink.inbound(found)  # type: ignore[arg-type]
        except Exception:
            log.exception("%s: what the SMSC delivered was not kept", self.name)
            self.refused += 1
            connection.respond(sequence, c.ESME_RX_T_APPN)
            return
        if kept.done():
            self._kept(connection, sequence, kept)
        else:
            kept.add_done_callback(partial(self._kept, connection, sequence))

    def _kept(self, connection: Connection, sequence: int, kept: Kept) -> None:
        error = None if kept.cancelled() else kept.exception()
        if error is None and not kept.cancelled():
            connection.respond(sequence)
            return
        log.warning("%s: what the SMSC delivered was not kept: %s", self.name, error or "cancelled")
        self.refused += 1
        connection.respond(sequence, c.ESME_RX_T_APPN)

    # -- inside -----------------------------------------------------------------------------------------------

    def _place(self, job: Job) -> None:
        """Give a job to the least loaded bind."""
        best: Link | None = None
        for link in self._senders:
            if link.is_up and (best is None or link.open + link.queued < best.open + best.queued):
                best = link
        if best is not None and self._running:
            best.take(job)
            return
        reason = "no bind is up" if self._running else "the connector is not running"
        self._soon(job.submission, Unavailable(reason, burns_attempt=False, sent_segments=job.taken))

    def _soon(self, submission: Submission, outcome: Outcome) -> None:
        """Tell an outcome that is known at once, but not from within `submit`."""
        asyncio.get_running_loop().call_soon(self._finish, submission, outcome)

    def _finish(self, submission: Submission, outcome: Outcome) -> None:
        self._under_way -= 1
        try:
            submission.done(outcome)
        except Exception:
            log.exception("%s: the outcome of %s was not taken", self.name, submission.message.sid)
        if not self._under_way:
            self._idle.set()
        if self._running:
            self._wake()


def bind_pdu(settings: Smpp, kind: type[p.Bind]) -> p.Bind:
    """The bind request."""
    return kind(
        system_id=settings.system_id,
        password=settings.password,
        system_type=settings.system_type,
        interface_version=_VERSIONS[settings.version],
        addr_ton=settings.address_ton,
        addr_npi=settings.address_npi,
        address_range=settings.address_range,
    )


def tls_context(settings: Smpp) -> ssl_module.SSLContext:
    """TLS as the settings say. Raises ValueError when the authority's file cannot be used."""
    try:
        context = ssl_module.create_default_context(cafile=settings.tls_ca or None)
    except OSError as error:
        raise ValueError(f"tls_ca {settings.tls_ca!r}: {error}") from None
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl_module.CERT_NONE
    return context
