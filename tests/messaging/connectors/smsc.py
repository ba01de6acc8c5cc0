"""A small SMSC for tests: takes, refuses, holds, loses; its receipts and messages wait for their acknowledgement."""

import asyncio
import itertools
import ssl
from collections.abc import Callable
from typing import Any

from trunkline.smpp import constants as c
from trunkline.smpp import pdu as p
from trunkline.smpp.session import Limits
from trunkline.smpp.transport import Connection, Handler, Listener, listen


class Smsc(Handler):
    """One handler for all connections. `answer(pdu)` gives the status of a submit, or None to leave it open."""

    def __init__(self) -> None:
        self.answer: Callable[[p.SubmitSm], int | None] = lambda pdu: 0
        self.write_id: Callable[[int], str] = lambda number: f"id-{number}"
        self.lose = False
        self.bind_status = 0
        self.binds: list[p.Bind] = []
        self.taken: list[p.SubmitSm] = []
        self.seen: list[p.SubmitSm] = []
        self.held: list[tuple[Connection, int]] = []
        self.bound: list[Connection] = []
        self.ids: dict[str, p.SubmitSm] = {}
        self.answers: list[tuple[Connection, int]] = []
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()
        self._listener: Listener | None = None
        self.port = 0

    async def start(self, context: ssl.SSLContext | None = None) -> "Smsc":
        self._listener = await listen(
            "127.0.0.1", self.port, lambda: self, limits=Limits(window=1000, unbind_timeout_s=0.2), ssl=context
        )
        self.port = self._listener.port
        return self

    async def stop(self) -> None:
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.close(0.3)

    def drop(self) -> None:
        """Cut every connection."""
        for connection in list(self._listener.connections if self._listener else ()):
            connection.abort("dropped")

    # -- Handler

    def on_bind_request(self, connection: Connection, sequence: int, pdu: p.Bind) -> None:
        self.binds.append(pdu)
        if self.bind_status:
            connection.refuse_bind(sequence, self.bind_status)
        else:
            connection.accept_bind(sequence, "smsc")
            self.bound.append(connection)
        self._changed.set()

    def on_request(self, connection: Connection, sequence: int, pdu: p.Request) -> None:
        assert isinstance(pdu, p.SubmitSm)
        self.seen.append(pdu)
        self._changed.set()
        if self.lose:
            connection.abort("lost")
            return
        status = self.answer(pdu)
        if status is None:
            self.held.append((connection, sequence))
            self.taken.append(pdu)
        elif status:
            connection.respond(sequence, status)
        else:
            self.taken.append(pdu)
            self._accept(connection, sequence, pdu)

    def _accept(self, connection: Connection, sequence: int, pdu: p.SubmitSm) -> None:
        message_id = self.write_id(next(self._numbers))
        self.ids[message_id] = pdu
        connection.respond(sequence, message_id=message_id)

    def on_closed(self, connection: Connection, reason: str) -> None:
        if connection in self.bound:
            self.bound.remove(connection)
        self._changed.set()

    # -- for the test

    def release(self, status: int = 0) -> None:
        """Answer what was held."""
        held, self.held = self.held, []
        for connection, sequence in held:
            if status:
                connection.respond(sequence, status)
            else:
                self._accept(connection, sequence, self.taken[0])

    async def until(self, check: Callable[[], Any]) -> None:
        """Wait until `check` holds; asked after everything that comes."""
        async with asyncio.timeout(60):
            while not check():
                self._changed.clear()
                await self._changed.wait()

    def receiver(self) -> Connection:
        return next(one for one in self.bound if one.state.value in ("bound_rx", "bound_trx"))

    async def deliver(self, pdu: p.DeliverSm | p.DataSm) -> int:
        """Hand it to the receiver; the status of its answer."""
        outcome = await self.receiver().request(pdu)
        return outcome.pdu.status  # type: ignore[union-attr]

    async def receipt(self, message_id: str, stat: str = "DELIVRD", err: str = "000") -> int:
        dates = "submit date:2401011200 done date:2401011201"
        text = f"id:{message_id} sub:001 dlvrd:001 {dates} stat:{stat} err:{err} text:Hi"
        return await self.deliver(
            p.DeliverSm(source="12025550142", destination="15555550123", esm_class=4, message=text.encode())
        )

    async def message(self, text: str, **fields: Any) -> int:
        given = {"data_coding": 8, "message": text.encode("utf-16-be"), **fields}
        return await self.deliver(
            p.DeliverSm(source_ton=1, source_npi=1, source="15555550123", destination="12025550142", **given)
        )


MO_ID = (c.TAG_RECEIPTED_MESSAGE_ID, b"mo-1\0")
