"""query_sm and cancel_sm of accounts' own SMPP clients. A message is named by the id its submit was answered with."""

from typing import Final

from trunkline.inflight.store import Inflight
from trunkline.messaging.outbound import Outbound
from trunkline.messaging.reader import Reader
from trunkline.model.account import Account
from trunkline.model.message import Direction, Status
from trunkline.model.sid import is_sid
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp import times
from trunkline.smpp.transport import Connection

ENROUTE, DELIVERED, EXPIRED, DELETED, UNDELIVERABLE, REJECTED = 1, 2, 3, 4, 5, 8
STATES: Final[dict[str, int]] = {
    Status.ACCEPTED: ENROUTE,
    Status.SCHEDULED: ENROUTE,
    Status.QUEUED: ENROUTE,
    Status.SENDING: ENROUTE,
    Status.SENT: ENROUTE,
    Status.DELIVERED: DELIVERED,
    Status.READ: DELIVERED,
    Status.UNDELIVERED: UNDELIVERABLE,
    Status.FAILED: REJECTED,
    Status.CANCELED: DELETED,
}
"""message_state (SMPP 3.4 §5.2.28) of each status."""
EXPIRED_CODE: Final = 30036
UNNAMED_ERROR: Final = 255


def sid_of(message_id: str) -> str:
    """The SID in an id of ours (`SID` or `SID-PART`); empty for anything else."""
    sid = message_id.partition("-")[0]
    return sid if is_sid(sid, "SM", "MM") else ""


class Queries:
    """See the module."""

    def __init__(self, inflight: Inflight, outbound: Outbound, reader: Reader) -> None:
        self._inflight = inflight
        self._outbound = outbound
        self._reader = reader

    async def query(self, connection: Connection, account: Account, sequence: int, pdu: p.QuerySm) -> None:
        """Answer a query_sm (§4.8): the state, when it became final, and Twilio's error code less 30000."""
        sid = sid_of(pdu.message_id)
        message = await self._reader.get(account.sid, sid) if sid else None
        if message is None or message.direction is Direction.INBOUND:
            connection.respond(sequence, c.ESME_RINVMSGID)
            return
        state = STATES.get(message.status, ENROUTE)
        code = message.error_code
        if state == REJECTED and code == EXPIRED_CODE:
            state = EXPIRED
        error = code - 30_000 if 30_000 <= code < 30_000 + UNNAMED_ERROR else UNNAMED_ERROR if code else 0
        response = p.QuerySmResp(
            message_id=pdu.message_id,
            final_date=times.absolute(message.updated_ms) if state != ENROUTE else "",
            message_state=state,
            error_code=error,
        )
        connection.respond_with(sequence, response)

    async def cancel(self, connection: Connection, account: Account, sequence: int, pdu: p.CancelSm) -> None:
        """Answer a cancel_sm (§4.9) for one message; cancelling by addresses alone is not offered."""
        sid = sid_of(pdu.message_id)
        live = await self._inflight.find(account.sid, sid) if sid else None
        if live is None:
            connection.respond(sequence, c.ESME_RINVMSGID if pdu.message_id else c.ESME_RCANCELFAIL)
            return
        cancelled = live.message.direction is not Direction.INBOUND and await self._outbound.cancel(live)
        connection.respond(sequence, c.ESME_ROK if cancelled else c.ESME_RCANCELFAIL)
