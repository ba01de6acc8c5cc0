"""Messages that calls send at a node without the role `messaging`: taken on by a node that has it."""

import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec

from trunkline.cluster.peers import PeerError, PeerUnavailable
from trunkline.model.errors import ApiError

SEND: Final = "message/from-call"
ANSWER_S: Final = 10.0

Handle = Callable[[str, Callable[[str, bytes], Awaitable[bytes]]], None]


class Send(Protocol):
    """`trunkline.messaging.from_calls.FromCalls`."""

    def __call__(
        self, account: str, from_: str, to: str, body: str, *, media: Sequence[str], status_callback: str
    ) -> Awaitable[tuple[str, str]]: ...


class Peers(Protocol):
    """The way to the other nodes (trunkline.bootstrap_cluster)."""

    def with_role(self, role: str) -> list[str]:
        """The other live nodes that have a role."""

    def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> Awaitable[bytes]:
        """`trunkline.cluster.peers.Peers.call`."""


class Wanted(msgspec.Struct, array_like=True):
    """A message that crosses."""

    account: str
    from_: str
    to: str
    body: str
    media: list[str]
    status_callback: str


class Told(msgspec.Struct, array_like=True):
    """What became of it: its SID and status, or why it was refused."""

    sid: str = ""
    status: str = ""
    http_status: int = 0
    code: int | None = None
    message: str = ""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Wanted).decode
_decode_told: Final = msgspec.msgpack.Decoder(Told).decode


class FromCallsElsewhere:
    """Callable as `trunkline.voice.verbs.sms.SendMessage`."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers

    async def __call__(
        self, account: str, from_: str, to: str, body: str, *, media: Sequence[str], status_callback: str
    ) -> tuple[str, str]:
        """See `FromCalls`. Raises ApiError; 20503 also when it is not known whether the message was taken on."""
        nodes = self._peers.with_role("messaging")
        if not nodes:
            raise ApiError.of(20503, message="No live node has the role messaging, please try again")
        wanted = Wanted(account, from_, to, body, list(media), status_callback)
        random.shuffle(nodes)
        for node in nodes:
            try:
                told = _decode_told(await self._peers.call(node, SEND, _encode(wanted), ANSWER_S))
            except PeerUnavailable as error:
                if error.sent:
                    break
            except PeerError:
                break
            else:
                if told.http_status:
                    raise ApiError(told.http_status, told.code, told.message)
                return told.sid, told.status
        raise ApiError.of(20503)


def serve(handle: Handle, send: Send) -> None:
    """Take on what calls of other nodes send."""

    async def answer(node: str, payload: bytes) -> bytes:
        asked = _decode(payload)
        try:
            sid, status = await send(
                asked.account, asked.from_, asked.to, asked.body, media=asked.media,
                status_callback=asked.status_callback,
            )  # fmt: skip
        except ApiError as error:
            return _encode(Told(http_status=error.status, code=error.code, message=error.message))
        return _encode(Told(sid, status))

    handle(SEND, answer)
