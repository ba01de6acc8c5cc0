"""Carriers' HTTP requests that come to a node without the role `messaging`: handed whole to one that has it."""

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import msgspec

from trunkline.cluster.peers import PeerError, PeerUnavailable
from trunkline.messaging.connectors.incoming import AGAIN, COMMIT_TIMEOUT_S, TEXT, Answer, Mounted

CARRIER: Final = "carrier/http"
ANSWER_S: Final = COMMIT_TIMEOUT_S + 2.0

Handle = Callable[[str, Callable[[str, bytes], Awaitable[bytes]]], None]


class Peers(Protocol):
    """The way to the other nodes (trunkline.bootstrap_cluster)."""

    def with_role(self, role: str) -> list[str]:
        """The other live nodes that have a role."""

    def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> Awaitable[bytes]:
        """`trunkline.cluster.peers.Peers.call`."""


class Carried(msgspec.Struct, array_like=True):
    """A request that crosses."""

    connector: str
    kind: str
    method: str
    headers: list[tuple[bytes, bytes]]
    query: bytes
    body: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Carried).decode
_decode_answer: Final = msgspec.msgpack.Decoder(Answer).decode


class Elsewhere:
    """One connector of another node, as `Mounted`."""

    def __init__(self, connector: str, peers: Peers) -> None:
        self._connector = connector
        self._peers = peers

    async def handle(self, kind: str, method: str, headers: Mapping[bytes, bytes], query: bytes, body: bytes) -> Answer:
        """As the other node answers; 503 when none does: the carrier sends it again."""
        nodes = self._peers.with_role("messaging")
        if not nodes:
            return 503, AGAIN, b"no live node has the role messaging"
        carried = Carried(self._connector, kind, method, list(headers.items()), query, body)
        try:
            told = await self._peers.call(random.choice(nodes), CARRIER, _encode(carried), ANSWER_S)
        except (PeerUnavailable, PeerError):
            return 503, AGAIN, b"not now"
        answer: Answer = _decode_answer(told)
        return answer


def serve(handle: Handle, connectors: Mapping[str, Mounted]) -> None:
    """Answer what other nodes hand over."""

    async def answer(node: str, payload: bytes) -> bytes:
        asked = _decode(payload)
        connector = connectors.get(asked.connector)
        if connector is None:
            return _encode((404, TEXT, b"no such connector"))
        return _encode(await connector.handle(asked.kind, asked.method, dict(asked.headers), asked.query, asked.body))

    handle(CARRIER, answer)
