"""query_sm and cancel_sm of accounts' own SMPP clients. A message is named by the id its submit was answered with."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from trunkline.cluster.peers import PeerError, PeerUnavailable
from trunkline.inflight.store import Inflight
from trunkline.messaging.outbound import Outbound
from trunkline.messaging.reader import Reader
from trunkline.model.account import Account
from trunkline.model.message import Direction, Status
from trunkline.model.sid import is_sid, shard_of
from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp import times
from trunkline.smpp.transport import Connection
from trunkline.storage.unavailable import StoreUnavailable

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


CANCEL: Final = "smpp/cancel"
CANCEL_S: Final = 10.0
"""Longest wait for the owner of a message to cancel it."""
TRIES: Final = 3
"""Owners that are asked, while the message goes from one to another."""

log = logging.getLogger(__name__)
_encode: Final = msgspec.msgpack.Encoder().encode
_decode_asked: Final = msgspec.msgpack.Decoder(tuple[str, str]).decode
_decode_status: Final = msgspec.msgpack.Decoder(int).decode

Handle = Callable[[str, Callable[[str, bytes], Awaitable[bytes]]], None]


class Owners(Protocol):
    """Whose a message is (trunkline.bootstrap_cluster)."""

    def is_our_sid(self, sid: str) -> bool:
        """Whether it is this node's."""

    def owner(self, shard: int) -> Awaitable[str]:
        """The node that owns a shard, ours included; waits a while for there to be one. Raises StoreUnavailable."""

    def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> Awaitable[bytes]:
        """`trunkline.cluster.peers.Peers.call`."""


class Queries:
    """See the module. Whoever is asked for a message's state reads it; its owner alone cancels it."""

    def __init__(self, inflight: Inflight, outbound: Outbound, reader: Reader) -> None:
        self._inflight = inflight
        self._outbound = outbound
        self._reader = reader
        self._owners: Owners | None = None

    def join(self, owners: Owners, handle: Handle) -> None:
        """Be one of several nodes: have a message's owner cancel it, and cancel ours for the others."""
        self._owners = owners
        handle(CANCEL, self._cancel_for)

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
        if not sid:
            connection.respond(sequence, c.ESME_RINVMSGID if pdu.message_id else c.ESME_RCANCELFAIL)
        else:
            connection.respond(sequence, await self._cancel_where_it_is(account.sid, sid))

    async def _cancel_where_it_is(self, account: str, sid: str) -> int:
        """The command_status of the answer."""
        owners = self._owners
        if owners is None or owners.is_our_sid(sid):
            return await self._cancel(account, sid)
        for _ in range(TRIES):
            try:
                node = await owners.owner(shard_of(sid))
                if owners.is_our_sid(sid):
                    return await self._cancel(account, sid)
                return _decode_status(await owners.call(node, CANCEL, _encode((account, sid)), CANCEL_S))
            except (StoreUnavailable, PeerUnavailable, PeerError) as error:
                log.warning("%s cannot be cancelled now: %s", sid, error)
        return c.ESME_RSYSERR

    async def _cancel(self, account: str, sid: str) -> int:
        live = await self._inflight.find(account, sid)
        if live is None:
            return c.ESME_RINVMSGID
        cancelled = live.message.direction is not Direction.INBOUND and await self._outbound.cancel(live)
        return c.ESME_ROK if cancelled else c.ESME_RCANCELFAIL

    async def _cancel_for(self, node: str, payload: bytes) -> bytes:
        account, sid = _decode_asked(payload)
        if self._owners is not None and not self._owners.is_our_sid(sid):
            raise StoreUnavailable(f"{sid} is another node's")
        return _encode(await self._cancel(account, sid))
