"""Receipts and received messages to accounts' own SMPP clients: the delivery handlers of `smpp-receipt` and
`smpp-inbound`.

An attempt is one deliver_sm (or several: the parts of a long message, the receipts of one submitted in parts) to one
bound receiver of the account; it has worked when every one is answered with ESME_ROK. The client's own refusals
ESME_RX_P_APPN and ESME_RX_R_APPN are final, everything else is tried again until `webhooks.give_up_s`.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

import msgspec

from trunkline.accounts.alerts import Alerts
from trunkline.accounts.callbacks import StatusRequest
from trunkline.messaging import smpp_clients
from trunkline.messaging.reader import Reader
from trunkline.model.message import Message
from trunkline.model.sid import created_ms, is_sid
from trunkline.smpp import addresses, events
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.errors import SmppError
from trunkline.smpp.transport import Connection
from trunkline.smpp.transport import Outcome as Answer
from trunkline.sms import data_coding, segment, udh
from trunkline.storage.queue import Owed, made_ms
from trunkline.webhooks.delivery import Result

MAX_TRIES: Final = 10_000
"""Attempts while a client is bound; time (`webhooks.give_up_s`) ends them earlier."""
NOT_DELIVERED: Final = 15003
"""Code of the alert for a receipt that was given up; Twilio has none for SMPP."""
NOT_RECEIVED: Final = 11200
"""Code of the alert for a received message that was given up."""
EXPIRED_CODES: Final = frozenset({30036, 30001})
_REFUSED: Final = frozenset({c.ESME_RX_P_APPN, c.ESME_RX_R_APPN})
_STATES: Final[dict[str, tuple[str, int]]] = {
    "delivered": ("DELIVRD", 2),
    "undelivered": ("UNDELIV", 5),
    "failed": ("REJECTD", 8),
    "canceled": ("DELETED", 4),
    "sent": ("ENROUTE", 1),
}
_EXPIRED: Final = ("EXPIRED", 3)

_decode = msgspec.json.Decoder(StatusRequest).decode

log = logging.getLogger(__name__)

Done = Callable[[Result], None]


class Receiver(Protocol):
    """A bound client that takes deliver_sm."""

    connection: Connection
    waiting: deque[tuple[p.DeliverSm, "Sending"]]


class Sending:
    """One attempt."""

    __slots__ = ("_done", "_left", "_status")

    def __init__(self, count: int, done: Done) -> None:
        self._left = count
        self._done = done
        self._status = ""

    def answered(self, status: int) -> None:
        """One PDU's answer."""
        if status:
            self._end(c.status_name(status), retry=status not in _REFUSED)
            return
        self._left -= 1
        if not self._left:
            self._tell(Result((), True))

    def failed(self, reason: str) -> None:
        """One PDU got no answer."""
        self._end(reason, retry=True)

    def _end(self, reason: str, *, retry: bool) -> None:
        self._tell(Result((), False, retry=retry, error=reason, max_tries=MAX_TRIES))

    def _tell(self, result: Result) -> None:
        done, self._done = self._done, _nobody
        done(result)


def _nobody(result: Result) -> None:
    """The attempt has ended before."""


class Deliverer:
    """See the module. `receivers(account)` are the clients bound now that receive."""

    def __init__(self, receivers: Callable[[str], Sequence[Receiver]], reader: Reader, alerts: Alerts) -> None:
        self._receivers = receivers
        self._reader = reader
        self._alerts = alerts
        self._tasks: set[asyncio.Task[None]] = set()

    # -- webhooks.delivery.Handler ----------------------------------------------------------------------------

    def begin(self, owed: Owed, done: Done) -> None:
        """One attempt."""
        if owed.kind == smpp_clients.INBOUND:
            task = asyncio.get_running_loop().create_task(self._inbound(owed, done))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        try:
            pdus = receipts(owed)
        except (ValueError, KeyError, SmppError) as error:
            done(Result((), False, error=f"cannot be written as SMPP: {error}"))
            return
        self._send(owed.account, pdus, done)

    def exhausted(self, owed: Owed, result: Result) -> None:
        """It was given up."""
        inbound = owed.kind == smpp_clients.INBOUND
        what = "message" if inbound else "receipt"
        self._alerts.raise_(
            owed.account,
            NOT_RECEIVED if inbound else NOT_DELIVERED,
            resource_sid=owed.sid,
            text=f"{what} not taken over SMPP: {result.error}",
        )

    # -- inside -----------------------------------------------------------------------------------------------

    async def _inbound(self, owed: Owed, done: Done) -> None:
        try:
            message = await self._reader.get(owed.account, owed.sid)
            if message is None:  # deleted meanwhile
                done(Result((), True))
                return
            self._send(owed.account, received(message), done)
        except Exception as error:
            log.exception("a received message could not be delivered over SMPP")
            done(Result((), False, retry=True, error=str(error), max_tries=MAX_TRIES))

    def _send(self, account: str, pdus: Sequence[p.DeliverSm], done: Done) -> None:
        receivers = self._receivers(account)
        if not receivers:
            done(Result((), False, retry=True, error="no client is bound", max_tries=MAX_TRIES))
            return
        receiver = min(receivers, key=lambda one: one.connection.session.outstanding + len(one.waiting))
        sending = Sending(len(pdus), done)
        for pdu in pdus:
            receiver.waiting.append((pdu, sending))
        pump(receiver)


def pump(receiver: Receiver) -> None:
    """Send what the client's window has room for."""
    waiting, connection = receiver.waiting, receiver.connection
    while waiting and connection.room > 0:
        pdu, sending = waiting.popleft()
        try:
            connection.submit(pdu, _answered, sending)
        except SmppError as error:
            sending.failed(str(error))


def abandon(receiver: Receiver) -> None:
    """The client has gone: what it was to get is tried again."""
    while receiver.waiting:
        receiver.waiting.popleft()[1].failed("the client has gone")


def _answered(sending: Sending, answer: Answer) -> None:
    if isinstance(answer, events.ResponseReceived):
        if not answer.late:
            sending.answered(answer.pdu.status)
    else:
        sending.failed("no answer in time" if answer.reason == "timeout" else "the connection was lost")


# -- PDUs ---------------------------------------------------------------------------------------------------------


def receipts(owed: Owed) -> list[p.DeliverSm]:
    """The receipts (SMPP 3.4 appendix B, and TLVs) for one status. Raises ValueError, KeyError or AddressError."""
    request = _decode(owed.request)
    params = dict(request.params)
    wish = smpp_clients.read(request.url)
    sid, status = params["MessageSid"], params["MessageStatus"]
    code = int(params.get("ErrorCode", "0"))
    stat, state = _EXPIRED if status == "failed" and code in EXPIRED_CODES else _STATES[status]
    submitted = stamp(created_ms(sid)) if is_sid(sid) else ""
    done_date = params.get("RawDlrDoneDate", "") or stamp(made_ms(owed.id))
    err = f"{code - 30_000:03d}" if 30_000 <= code < 31_000 else "999" if code else "000"
    ids = [f"{sid}-{number}" for number in range(1, wish.parts + 1)] or [wish.message_id or sid]
    source = addresses.address(params["To"])
    destination = addresses.address(params["From"])
    made = []
    for message_id in ids:
        text = (
            f"id:{message_id} sub:001 dlvrd:{int(status == 'delivered'):03d} submit date:{submitted} "
            f"done date:{done_date} stat:{stat} err:{err} text:"
        )
        octets = message_id.encode("latin-1")
        made.append(
            p.DeliverSm(
                source_ton=source[0],
                source_npi=source[1],
                source=source[2],
                destination_ton=destination[0],
                destination_npi=destination[1],
                destination=destination[2],
                esm_class=c.ESM_INTERMEDIATE if status == "sent" else c.ESM_RECEIPT,
                message=text.encode("latin-1"),
                tlvs=((c.TAG_RECEIPTED_MESSAGE_ID, octets + b"\0"), (c.TAG_MESSAGE_STATE, bytes((state,)))),
            )
        )
    return made


def stamp(at_ms: int) -> str:
    """YYMMDDhhmm in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%y%m%d%H%M")


def received(message: Message) -> list[p.DeliverSm]:
    """A received message, in as many deliver_sm as its text needs: GSM 7-bit unpacked, or UCS-2. The SID is in the
    receipted_message_id TLV, so that a repetition can be told. Raises AddressError."""
    plan = segment.plan(message.body)
    source = addresses.address(message.from_)
    destination = addresses.address(message.to)
    sid = (c.TAG_RECEIPTED_MESSAGE_ID, message.sid.encode() + b"\0")
    reference = int(message.sid[-2:], 16)
    return [
        p.DeliverSm(
            source_ton=source[0],
            source_npi=source[1],
            source=source[2],
            destination_ton=destination[0],
            destination_npi=destination[1],
            destination=destination[2],
            esm_class=c.ESM_UDHI if plan.count > 1 else 0,
            data_coding=data_coding.data_coding_for(plan.encoding),
            message=(udh.concat_header(reference, plan.count, number) if plan.count > 1 else b"") + body,
            tlvs=(sid,),
        )
        for number, body in enumerate(plan.segments, 1)
    ]
