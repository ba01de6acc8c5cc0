"""The no-op provider: an SMSC that takes every message, keeps its octets for the comparison, and does nothing else.

It runs in the keeper, so that a candidate cannot say that it has written what it has not.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from trunkline.smpp import constants as c

MAX_PDU: Final = 70_000
MAX_TAKEN: Final = 256
"""PDUs kept for one message."""
_HEADER: Final = struct.Struct(">IIII")
_RESPONSE: Final = 0x80000000
_STATUS_OF: Final = {c.status_name(number): number for number in range(1, 0x500)}
NAME: Final = b"learner\0"


class Sink:
    """One connector's provider."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        """The submits since `expect`."""
        self._refusals: deque[int] = deque()
        self._server: asyncio.Server | None = None
        self._ids = 0
        self.port = 0

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Session(self._answer), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    def expect(self, refusals: Iterable[str]) -> None:
        """Another message comes: what the provider refused it with before it took it, by the names of the statuses."""
        self.taken = []
        self._refusals = deque(_STATUS_OF[name] for name in refusals if name in _STATUS_OF)

    def _answer(self, pdu: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a submit."""
        if len(self.taken) < MAX_TAKEN:
            self.taken.append(pdu)
        if self._refusals:
            return self._refusals.popleft(), b""
        self._ids += 1
        return 0, b"%d\0" % self._ids


def knows(status: str) -> bool:
    """Whether a refusal can be given back."""
    return status in _STATUS_OF


class _Session(asyncio.Protocol):
    def __init__(self, answer: Callable[[bytes], tuple[int, bytes]]) -> None:
        self._answer = answer
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A bind is to come."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        assert self._transport is not None
        buffer = self._buffer + data
        at = 0
        while len(buffer) - at >= _HEADER.size:
            length, command, _, sequence = _HEADER.unpack_from(buffer, at)
            if not _HEADER.size <= length <= MAX_PDU:
                self._transport.abort()
                return
            if len(buffer) - at < length:
                break
            pdu = buffer[at : at + length]
            at += length
            if command & _RESPONSE:
                continue
            status, body = 0, b""
            if command == c.SUBMIT_SM:
                status, body = self._answer(pdu)
            elif command in (c.BIND_TRANSCEIVER, c.BIND_TRANSMITTER, c.BIND_RECEIVER):
                body = NAME
            self._transport.write(_HEADER.pack(16 + len(body), command | _RESPONSE, status, sequence) + body)
        self._buffer = buffer[at:]
