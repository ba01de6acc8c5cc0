"""The SMPP connector with its SMSC under the test's control."""

import asyncio
import ssl
import subprocess
from pathlib import Path
from typing import Any

from tests.messaging.connectors.contract import (
    OUR_NUMBER,
    WINDOW,
    MemorySink,
    Outcomes,
    message,
)
from tests.messaging.connectors.smsc import MO_ID, Smsc
from trunkline.messaging.connectors.base import Submission
from trunkline.messaging.connectors.smpp import SmppConnector
from trunkline.messaging.connectors.table import Context, make
from trunkline.settings import Smpp
from trunkline.smpp import constants as c

PHONE = "+15555550123"
LONG = "Long message number one. " * 12  # 300 septets: two segments


class SmppRig:
    features = frozenset({"refuse", "busy", "lose", "hold", "down"})
    to = PHONE

    def __init__(self, smsc: Smsc, **settings: Any) -> None:
        self.smsc = smsc
        self.sink = MemorySink()
        given = {
            "name": "carrier",
            "host": "127.0.0.1",
            "port": smsc.port,
            "system_id": "trunk",
            "password": "secret",
            "window": WINDOW,
            "reconnect_first_s": 0.02,
            "reconnect_longest_s": 0.1,
            **settings,
        }
        made = make(Smpp(**given), Context())
        assert isinstance(made, SmppConnector)
        self.connector = made
        self.wakes: list[None] = []

    async def start(self) -> "SmppRig":
        self.connector.start(self.sink, lambda: self.wakes.append(None))
        await self.up()
        return self

    async def up(self) -> None:
        async with asyncio.timeout(60):
            while not self.connector.capacity():
                await asyncio.sleep(0.001)

    def treat(self, how: str) -> None:
        smsc = self.smsc
        if how == "refuse":
            smsc.answer = lambda pdu: c.ESME_RINVDSTADR
        elif how == "busy":
            smsc.answer = lambda pdu: c.ESME_RTHROTTLED
        elif how == "hold":
            smsc.answer = lambda pdu: None
        elif how == "lose":
            smsc.lose = True
        elif how == "down":
            smsc.bind_status = c.ESME_RBINDFAIL
            for link in self.connector._links:
                assert link.connection is not None
                link.connection.abort("network gone")

    async def reached(self) -> None:
        await self.smsc.until(lambda: self.smsc.seen)

    def release(self) -> None:
        self.smsc.answer = lambda pdu: 0
        asyncio.ensure_future(self._release())

    async def _release(self) -> None:
        await self.smsc.until(lambda: self.smsc.held)
        self.smsc.release()

    async def receipt(self, carrier_id: str) -> bool:
        return await self.smsc.receipt(carrier_id) == 0

    async def inbound(self, text: str) -> bool:
        return await self.smsc.message(text, tlvs=(MO_ID,)) == 0

    def submit(self, body: str = "Hello", *, sender: str = OUR_NUMBER, **fields: Any) -> Outcomes:
        outcomes = Outcomes()
        record = message(self.to, body)
        for name, value in fields.items():
            setattr(record, name, value)
        self.connector.submit(Submission(record, sender, outcomes.done))
        return outcomes

    async def outcome(self, body: str = "Hello", **fields: Any) -> Any:
        return (await self.submit(body, **fields).first())[0]


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A server's context with a certificate of its own for localhost, and the file to trust it by."""
    key, chain = str(folder / "key.pem"), str(folder / "certificate.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", chain],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    return context, chain
