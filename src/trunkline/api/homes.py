"""Requests that another node of the cluster must answer.

A message or a call is changed by the node that owns its partition of the queue, and an Idempotency-Key is seen by its
home alone: only there can a second request with it be told from the first. Such requests are handed over whole to that
node and held open meanwhile, for a bounded time; then 503 with Retry-After. All others are answered where they come in.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final, Protocol

import msgspec

from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.cluster.peers import PeerError, PeerUnavailable
from trunkline.model.errors import ApiError
from trunkline.model.held import HELD, PARTS
from trunkline.model.sid import is_sid
from trunkline.storage.unavailable import StoreUnavailable

HTTP: Final = "http"
FORWARDED: Final = "trunkline.forwarded"
"""In the scope of a request that came from a peer: it is not handed on."""
ANSWER_S: Final = 60.0
"""Longest wait for another node's answer once it has the request."""
AGAIN_S: Final = 0.1
"""Between two tries to reach an owner that is not there."""
MOVED: Final = ("X-Trunkline-Moved", "1")
"""In the answer of a node that a request was handed to when it was the owner no more; nothing was done."""
_MOVED: Final = (b"x-trunkline-moved", b"1")
_FLIGHTS: Final = ("SM", "MM", "CA")

HOME: ContextVar[int | None] = ContextVar("home_shard", default=None)
"""The virtual shard in which what this request makes must lie: that of its Idempotency-Key."""

log = logging.getLogger(__name__)


class Cluster(Protocol):
    """Who owns what, and the way there (trunkline.bootstrap_cluster)."""

    def home(self, account: str, key: str, path: str) -> int:
        """The virtual shard of an Idempotency-Key that comes with a POST to a path."""

    def is_ours(self, shard: int) -> bool:
        """Whether this node owns the partition of a shard."""

    def shard_of(self, sid: str) -> int:
        """The virtual shard of a SID."""

    def spare_shard(self, path: str) -> int | None:
        """A shard of another node for what a POST to a path makes, where this one has no part of the queue for it;
        None: it is made here."""

    def lacks(self, path: str) -> str:
        """The role that a POST to a path needs and no live node has; empty: all is well."""

    def owner(self, shard: int) -> Awaitable[str]:
        """The node that owns a shard's partition, ours included; waits a while for there to be one. Raises
        StoreUnavailable."""

    def call(self, node: str, kind: str, payload: bytes, timeout_s: float) -> Awaitable[bytes]:
        """`trunkline.cluster.peers.Peers.call`."""


class Forwarded(msgspec.Struct, array_like=True):
    """A request that crosses."""

    method: str
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    scheme: str
    client: str


class Answered(msgspec.Struct, array_like=True):
    """Its response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_request: Final = msgspec.msgpack.Decoder(Forwarded).decode
_decode_answer: Final = msgspec.msgpack.Decoder(Answered).decode
_AGAIN: Final = (("Retry-After", "1"),)


class Homes:
    """See the module."""

    def __init__(self, cluster: Cluster, parse_key: Callable[[bytes], str], wait_s: float) -> None:
        """`wait_s`: how long a request is held open for its owner to be there."""
        self._cluster = cluster
        self._wait_s = wait_s
        self._parse_key = parse_key
        self.forwarded = 0

    def shard(self, request: Request, key: bytes | None) -> int | None:
        """The shard that must answer a request; None: any. Raises ApiError for a malformed key."""
        if request.method == "GET":
            return None
        for sid in request.params.values():
            if is_sid(sid, *_FLIGHTS):
                return self._cluster.shard_of(sid)
        if key is not None and request.method == "POST":
            return self._cluster.home(request.account_sid, self._parse_key(key), request.resource_path)
        return self._cluster.spare_shard(request.resource_path) if request.method == "POST" else None

    async def elsewhere(self, request: Request, scope: Any, key: bytes | None) -> Response | None:
        """Another node's answer; None: it is this one's to give. Raises ApiError 20503."""
        if request.method == "POST" and self._cluster.lacks(request.resource_path):
            _hold(scope, request)
            await self._wait_for_role(request.resource_path)
            del scope[HELD]
        shard = self.shard(request, key)
        if shard is None:
            return None
        if not self._cluster.is_ours(shard):
            return await self._forward(request, scope, shard, key)
        HOME.set(shard)
        return None

    async def _wait_for_role(self, path: str) -> None:
        """Hold a request open until a node can answer it. Raises ApiError 20503."""
        end = time.monotonic() + self._wait_s
        while role := self._cluster.lacks(path):
            if time.monotonic() > end:
                raise ApiError.of(20503, message=f"No live node has the role {role}, please try again", headers=_AGAIN)
            await asyncio.sleep(AGAIN_S)

    async def _forward(self, request: Request, scope: Any, shard: int, key: bytes | None) -> Response | None:
        try:
            if scope.get(FORWARDED):
                raise ApiError.of(20503, headers=(*_AGAIN, MOVED))
            answer = await self._asked(request, scope, shard, key)
            if answer is None:
                HOME.set(shard)
                return None
        except (StoreUnavailable, PeerUnavailable, PeerError) as error:
            log.warning("%s %s (%s): %s", request.method, request.path, request.request_id, error)
            raise ApiError.of(20503, headers=_AGAIN) from None
        return Response(answer.status, answer.body, tuple(answer.headers))

    async def _asked(self, request: Request, scope: Any, shard: int, key: bytes | None) -> Answered | None:
        """The owner's answer; None: it is this node by now. While the owner is lost and its heir is not there yet, the
        request waits; one that the lost owner may have acted on is repeated only where its key tells that."""
        end = time.monotonic() + self._wait_s
        payload = _encode(_whole(request, scope))
        while True:
            _hold(scope, request)
            node = await self._cluster.owner(shard)
            if key is None or self._cluster.is_ours(shard):
                del scope[HELD]
            if self._cluster.is_ours(shard):
                return None
            self.forwarded += 1
            try:
                answer = _decode_answer(await self._cluster.call(node, HTTP, payload, ANSWER_S))
            except PeerUnavailable as error:
                if (error.sent and key is None) or time.monotonic() > end:
                    raise
            else:
                if _MOVED not in answer.headers:
                    return answer
                if time.monotonic() > end:
                    raise StoreUnavailable("the partition is on its way from node to node")
            await asyncio.sleep(AGAIN_S)


def _hold(scope: Any, request: Request) -> None:
    """Nothing is done about it for now: a process that replaces this one may answer it instead."""
    scope[HELD], scope[PARTS] = asyncio.current_task(), request.body


def _whole(request: Request, scope: Any) -> Forwarded:
    client = scope.get("client")
    return Forwarded(
        method=scope["method"],
        path=scope.get("raw_path") or scope["path"].encode("utf-8", "replace"),
        query=scope["query_string"],
        headers=list(scope["headers"]),
        body=request.body,
        scheme=scope["scheme"],
        client=client[0] if client else "",
    )


_OURS: Final = frozenset((b"content-length", b"twilio-request-id"))
"""Headers that the node adds which talks to the client."""


async def answer(app: Callable[[Any, Any, Any], Awaitable[None]], payload: bytes) -> bytes:
    """Have `app` (ASGI) answer a request that a peer has handed over."""
    asked = _decode_request(payload)
    scope = {
        "type": "http",
        "method": asked.method,
        "path": asked.path.decode("latin-1"),
        "raw_path": asked.path,
        "query_string": asked.query,
        "headers": asked.headers,
        "scheme": asked.scheme,
        "client": (asked.client, 0) if asked.client else None,
        FORWARDED: True,
    }
    told: dict[str, Any] = {"body": b""}
    given = False

    async def receive() -> dict[str, Any]:
        nonlocal given
        body, given = (b"" if given else asked.body), True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            told.update(status=message["status"], headers=message["headers"])
        else:
            told["body"] += message.get("body", b"")

    await app(scope, receive, send)
    headers = [(name, value) for name, value in told["headers"] if name not in _OURS]
    return _encode(Answered(told["status"], headers, told["body"]))
