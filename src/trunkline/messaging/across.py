"""What crosses from node to node: submits to a carrier that another holds, receipts of messages that another owns.

Theory. A message belongs to the node that owns its partition of the queue, a carrier's binds to the node that holds
the connector (trunkline.messaging.leased). So the outcome of a submit crosses back to the owner of the
message, and a receipt crosses from the holder of the binds to it. The carrier is acknowledged when the owner has
committed the receipt; when it cannot be reached, the carrier sends again.

A receipt may come before the owner has committed the carrier's id: the holder remembers for a while whom it lent each
id to. One that came before even the carrier's answer is parked here and goes after it.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

from trunkline.cluster.peers import PeerError, PeerUnavailable
from trunkline.messaging.connectors.base import (
    Connector,
    InboundPart,
    Outcome,
    Receipt,
    Submission,
    Submitted,
    Unavailable,
)
from trunkline.messaging.leased import (
    AGAIN_S,
    HEALTH,
    SUBMIT,
    Handed,
    Health,
    Holders,
    LeasedConnector,
    Told,
    encode,
)
from trunkline.messaging.receipts import Receipts
from trunkline.model import message as codec
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.storage.written import Kept

RECEIPT: Final = "receipt"
RECEIPT_S: Final = 20.0
"""Longest wait for the owner of a message to commit a receipt."""
MAX_LENT_IDS: Final = 200_000
"""Carrier ids whose borrower is remembered; the oldest is forgotten first: by then its owner has committed it."""
MAX_CROSSING: Final = 2_000
"""Receipts on their way to other nodes; more are refused, and sent again by the carrier."""

log = logging.getLogger(__name__)
_decode_handed: Final = msgspec.msgpack.Decoder(Handed).decode
_decode_receipt: Final = msgspec.msgpack.Decoder(Receipt).decode


class Parts(Protocol):
    """Who owns what part of the queue (trunkline.bootstrap_cluster)."""

    def find(self, connector: str, carrier_id: str) -> tuple[str, bool] | None:
        """The SID that a carrier's id belongs to, and whether it is this node's; None: not known anywhere yet."""

    def owner(self, sid: str) -> Awaitable[str]:
        """The node that owns a SID's partition; waits a while for there to be one. Raises StoreUnavailable."""


Handle = Callable[[str, Callable[[str, bytes], Awaitable[bytes]]], None]


class Across:
    """See the module; a `Sink` for connectors."""

    def __init__(
        self,
        holders: Holders,
        parts: Parts,
        receipts: Receipts,
        receive: Callable[[InboundPart], Kept],
        connectors: Mapping[str, Connector],
    ) -> None:
        self._holders = holders
        self._parts = parts
        self._receipts = receipts
        self._connectors = connectors
        self._lent: OrderedDict[tuple[str, str], str] = OrderedDict()
        self._crossing: set[asyncio.Task[None]] = set()
        self.inbound = receive

    def serve(self, handle: Handle) -> None:
        """Answer peers."""
        handle(SUBMIT, self._submit)
        handle(HEALTH, self._health)
        handle(RECEIPT, self._take_receipt)

    # -- as the holder of a carrier ---------------------------------------------------------------------------

    async def _submit(self, node: str, payload: bytes) -> bytes:
        handed = _decode_handed(payload)
        leased = self._connectors.get(handed.connector)
        if not isinstance(leased, LeasedConnector):
            return encode(Told.of(Unavailable("no such carrier", burns_attempt=False, retry_after_s=AGAIN_S)))
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(told: Outcome) -> None:
            if isinstance(told, Submitted):  # now: its receipt may be the next thing that the carrier's bind brings
                self._remember(handed.connector, told, node)
            if not outcome.done():
                outcome.set_result(told)

        leased.admit(node, Submission(message=codec.decode(handed.message), sender=handed.sender, done=done))
        return encode(Told.of(await outcome))

    def _remember(self, connector: str, told: Submitted, node: str) -> None:
        for carrier_id in told.ids:
            self._lent[connector, carrier_id] = node
        while len(self._lent) > MAX_LENT_IDS:
            self._lent.popitem(last=False)
        self._receipts.named(connector, told.ids)

    async def _health(self, node: str, payload: bytes) -> bytes:
        connector = self._connectors.get(payload.decode())
        held = not isinstance(connector, LeasedConnector) or connector.real is not None
        up, text = connector.health() if connector is not None and held else (False, "not held here")
        return encode(Health(up, text))

    def lost(self, node: str) -> None:
        """A node has gone before it committed the ids that were lent to it: its messages are in doubt, and go again.
        What carriers say of those ids is kept as of any whose message is not known."""
        self._lent = OrderedDict((pair, borrower) for pair, borrower in self._lent.items() if borrower != node)
        for connector in self._connectors.values():
            if isinstance(connector, LeasedConnector):
                connector.forget(node)

    # -- receipts ---------------------------------------------------------------------------------------------

    def receipt(self, receipt: Receipt) -> Kept:
        """See `base.Sink`."""
        found = self._parts.find(receipt.connector, receipt.carrier_id)
        if found is None:
            node = self._lent.get((receipt.connector, receipt.carrier_id))
            return self._receipts.apply(receipt) if node is None else self._cross(receipt, "", node)
        sid, ours = found
        return self._receipts.apply(receipt) if ours else self._cross(receipt, sid, "")

    def _cross(self, receipt: Receipt, sid: str, node: str) -> Kept:
        if len(self._crossing) >= MAX_CROSSING:
            refused: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            refused.set_exception(StoreUnavailable("too many receipts wait for other nodes"))
            return refused
        task = asyncio.get_running_loop().create_task(self._give(receipt, sid, node))
        self._crossing.add(task)
        task.add_done_callback(self._crossing.discard)
        return task

    async def _give(self, receipt: Receipt, sid: str, node: str) -> None:
        """Have the owner of a message commit a receipt. Raises StoreUnavailable."""
        owner = node or await self._parts.owner(sid)
        try:
            await self._holders.call(owner, RECEIPT, encode(receipt), RECEIPT_S)
        except (PeerUnavailable, PeerError) as error:
            raise StoreUnavailable(f"node {owner} did not take a receipt: {error}") from None

    async def _take_receipt(self, node: str, payload: bytes) -> bytes:
        await self._receipts.apply(_decode_receipt(payload))
        return b""
