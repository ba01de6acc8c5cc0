"""Registered phones that the nodes of a cluster share: whichever one takes a REGISTER, all can call the phone.

What a node stores it tells the others; what one of them missed it finds in the `MemoryStore` at its next look. Phones
on a connection (TCP, TLS) without a proxy's Path are reached by the node that has the connection, and by no other.
"""

import asyncio
import logging
from typing import Final

import msgspec

from trunkline.cluster.telling import Handle, Peers, tell_all
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice.registrations import PREFIX, Registrations

REGISTERED: Final = "sip/registered"
TELL_S: Final = 2.0
LOOK_S: Final = 30.0
"""Between two looks at what others have stored."""
MAX_TELLING: Final = 1_000
"""Changes on their way to other nodes; those beyond are found at the next look."""

log = logging.getLogger(__name__)
_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(tuple[str, bytes]).decode


class SharedRegistrations:
    """See the module."""

    def __init__(self, peers: Peers, registrations: Registrations) -> None:
        self._peers = peers
        self._registrations = registrations
        self._telling: set[asyncio.Task[None]] = set()
        registrations.told = self._tell

    def serve(self, handle: Handle) -> None:
        """Answer peers."""
        handle(REGISTERED, self._hear)

    async def run(self) -> None:
        """Look at what others have stored, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._registrations.look_again()
            except (StoreUnavailable, OSError) as error:
                log.info("registered phones of other nodes are looked at later: %s", error)

    def _tell(self, name: str, value: bytes) -> None:
        if len(self._telling) < MAX_TELLING:
            task = asyncio.get_running_loop().create_task(self._tell_all(_encode((name, value))))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell_all(self, payload: bytes) -> None:
        await tell_all(self._peers, REGISTERED, payload, TELL_S)

    async def _hear(self, node: str, payload: bytes) -> bytes:
        name, value = _decode(payload)
        if name.startswith(PREFIX):
            self._registrations.take(name, value)
        return b""
