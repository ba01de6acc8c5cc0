"""What an account's SMPP client submits: read, checked, accepted like a REST request, answered after the commit.

The answer carries the message's SID (34 of the 64 octets that SMPP allows), the same that the REST API knows it by.
Next: trunkline.messaging.outbound.Outbound.accept
"""

import asyncio
import logging
from asyncio import Future
from collections.abc import Awaitable
from functools import partial
from typing import Any, Final

from trunkline.accounts.directory import Directory
from trunkline.listeners.smpp_parts import Parts, PartSubmit
from trunkline.messaging import smpp_clients
from trunkline.messaging.connectors.smpp_read import concat_of, text_of
from trunkline.messaging.outbound import NewMessage, Outbound
from trunkline.messaging.smpp_clients import Wish
from trunkline.model import phone
from trunkline.model.account import Account
from trunkline.model.clock import Clock
from trunkline.model.errors import ApiError
from trunkline.model.phone import SenderKind
from trunkline.model.sid import MESSAGE_SMS, new_sid
from trunkline.smpp import addresses, times
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.transport import Connection
from trunkline.storage.queue import Exists

RINVDLNAME: Final = 0x34
RINVDCS: Final = 0x104
RINVSCHED: Final = 0x61
RINVEXPIRY: Final = 0x62
RINVDFTMSGID: Final = 0x63

MAX_BODY_CHARS: Final = 1600
"""Longest text (Twilio: 1,600 characters)."""
STATUS_OF: Final[dict[int, int]] = {
    20429: c.ESME_RTHROTTLED,
    20503: c.ESME_RMSGQFUL,  # nothing new is taken on just now
    21611: c.ESME_RTHROTTLED,  # this sender's queue is full
    21201: c.ESME_RINVDSTADR,
    21211: c.ESME_RINVDSTADR,
    21266: c.ESME_RINVDSTADR,
    21408: c.ESME_RINVDSTADR,  # no route goes there
    21604: c.ESME_RINVDSTADR,
    21610: c.ESME_RINVDSTADR,  # the recipient has opted out
    21612: c.ESME_RINVDSTADR,
    21614: c.ESME_RINVDSTADR,
    21910: c.ESME_RINVDSTADR,
    21212: c.ESME_RINVSRCADR,
    21603: c.ESME_RINVSRCADR,
    21606: c.ESME_RINVSRCADR,
    63007: c.ESME_RINVSRCADR,
    21602: c.ESME_RINVMSGLEN,
    21605: c.ESME_RINVMSGLEN,
    21617: c.ESME_RINVMSGLEN,
}
"""REST error -> command_status; of the others a 5xx is ESME_RSYSERR and a refusal ESME_RSUBMITFAIL."""

Submit = p.SubmitSm | p.DataSm

log = logging.getLogger(__name__)


class Refused(Exception):
    """The submit is answered with `status`."""

    def __init__(self, status: int) -> None:
        super().__init__(c.status_name(status))
        self.status = status


def status_of(error: BaseException | None) -> int:
    """What to answer for an exception."""
    if isinstance(error, Refused):
        return error.status
    if isinstance(error, ApiError):
        known = STATUS_OF.get(error.code or 0)
        return known or (c.ESME_RSYSERR if error.status >= 500 else c.ESME_RSUBMITFAIL)
    return c.ESME_RSYSERR


class Intake:
    """See the module."""

    def __init__(self, directory: Directory, outbound: Outbound, clock: Clock, parts: Parts) -> None:
        self._directory = directory
        self._outbound = outbound
        self._clock = clock
        self._parts = parts
        self.accepted = 0
        self.refused = 0

    def submit(self, connection: Connection, account: Account, sequence: int, pdu: Submit) -> None:
        """Answer a submit_sm or data_sm, at once when it is refused, else after the commit."""
        try:
            message_id, written = self._accept(account, pdu)
        except Exception as error:
            self._refuse(connection, sequence, error)
            return
        future = asyncio.ensure_future(written)
        future.add_done_callback(partial(self._written, connection, sequence, message_id))

    def _refuse(self, connection: Connection, sequence: int, error: BaseException | None) -> None:
        self.refused += 1
        status = status_of(error)
        if status == c.ESME_RSYSERR:
            log.error("a submit over SMPP failed", exc_info=error)
        connection.respond(sequence, status)

    def _written(self, connection: Connection, sequence: int, message_id: str, future: "Future[Any]") -> None:
        error = None if future.cancelled() else future.exception()
        if future.cancelled() or (error is not None and not isinstance(error, Exists)):
            self._refuse(connection, sequence, error)
            return
        self.accepted += 1
        connection.respond(sequence, message_id=message_id)

    def _accept(self, account: Account, pdu: Submit) -> tuple[str, Awaitable[Any]]:
        self._outbound.check_room()  # parts are stored, too
        header, payload, concat = concat_of(pdu)
        text = self._text(pdu.data_coding, payload, header, whole=concat is None)
        sender, validity_s = self._sender(account, pdu.source_ton, pdu.source), 0
        to = recipient(pdu.destination_ton, pdu.destination)
        if to == sender:
            raise Refused(c.ESME_RINVDSTADR)
        if isinstance(pdu, p.SubmitSm):
            validity_s = self._check(pdu)
        if concat is not None:
            part = PartSubmit(account.sid, sender, to, concat, text, pdu.registered_delivery, validity_s)
            return self._parts.receive(part)
        message, written = self._outbound.accept(
            NewMessage(
                account_sid=account.sid,
                from_=sender,
                to=to,
                body=text,
                validity_s=validity_s,
                status_callback=smpp_clients.callback(account.sid, Wish(pdu.registered_delivery)),
            )
        )
        return message.sid, written

    # -- submit_multi -----------------------------------------------------------------------------------------

    async def submit_multi(self, connection: Connection, account: Account, sequence: int, pdu: p.SubmitMulti) -> None:
        """One message each; their receipts bear the one id of the answer, as §4.5.2 has it."""
        try:
            header, payload, concat = concat_of(pdu)
            if concat is not None:
                raise Refused(c.ESME_RINVESMCLASS)
            text = self._text(pdu.data_coding, payload, header, whole=True)
            sender, validity_s = self._sender(account, pdu.source_ton, pdu.source), self._check(pdu)
        except Exception as error:
            self._refuse(connection, sequence, error)
            return
        message_id = new_sid(MESSAGE_SMS, self._clock.now_ms())
        callback = smpp_clients.callback(account.sid, Wish(pdu.registered_delivery, 0, message_id))
        unsuccessful: list[tuple[p.Address, int]] = []
        under_way: list[tuple[p.Address, Awaitable[None]]] = []
        for each in pdu.destinations:
            if isinstance(each, str):
                unsuccessful.append((p.Address(0, 0, each), RINVDLNAME))
                continue
            try:
                new = NewMessage(
                    account_sid=account.sid,
                    from_=sender,
                    to=recipient(each.ton, each.address),
                    body=text,
                    validity_s=validity_s,
                    status_callback=callback,
                    sid="" if under_way else message_id,
                )
                under_way.append((each, self._outbound.accept(new)[1]))
            except Exception as error:
                unsuccessful.append((each, status_of(error)))
        results = await asyncio.gather(*[written for _, written in under_way], return_exceptions=True)
        for (each, _), result in zip(under_way, results, strict=True):
            if isinstance(result, BaseException):
                unsuccessful.append((each, status_of(result)))
        self.accepted += len(pdu.destinations) - len(unsuccessful)
        self.refused += len(unsuccessful)
        response = p.SubmitMultiResp(message_id=message_id, unsuccessful=tuple(unsuccessful))
        connection.respond_with(sequence, response)

    # -- checks -----------------------------------------------------------------------------------------------

    def _text(self, coding: int, payload: bytes, header: Any, *, whole: bool) -> str:
        if not payload:
            raise Refused(c.ESME_RINVMSGLEN)
        text, _ = text_of(coding, payload, header, "gsm7", whole=whole)
        if len(text) > MAX_BODY_CHARS:
            raise Refused(c.ESME_RINVMSGLEN)
        return text

    def _check(self, pdu: p.SubmitSm | p.SubmitMulti) -> int:
        """Seconds of validity asked for, 0 for the default. Raises Refused for what is not offered."""
        if pdu.schedule_delivery_time:
            raise Refused(RINVSCHED)
        if pdu.default_message_id:
            raise Refused(RINVDFTMSGID)
        if not pdu.validity_period:
            return 0
        now_ms = self._clock.now_ms()
        try:
            until_ms = times.parse(pdu.validity_period, now_ms)
        except times.TimeFormatError:
            raise Refused(RINVEXPIRY) from None
        if until_ms is None or until_ms <= now_ms:
            raise Refused(RINVEXPIRY)
        return max(1, (until_ms - now_ms) // 1000)

    def _sender(self, account: Account, ton: int, address: str) -> str:
        """The account's own number or short code, or an alphanumeric sender."""
        sender = phone.parse_from(addresses.number(ton, address))
        if sender.kind is SenderKind.ALPHANUMERIC:
            return sender.address
        found = self._directory.owned_sender(account.sid, sender.address)
        if found is None or not getattr(found, "sms_enabled", True):
            raise Refused(c.ESME_RINVSRCADR)
        return sender.address


def recipient(ton: int, address: str) -> str:
    """E.164 of a destination. Raises ApiError 21211."""
    return phone.parse_to(addresses.number(ton, address))
