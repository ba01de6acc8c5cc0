"""Where carriers' own HTTP requests come in: `/connectors/NAME/receipt` and `/connectors/NAME/inbound`.

An ASGI application in front of the REST API; everything else is passed on. Beside the connectors it serves the
simulator's control surface (`/_simulator/...`) where one is given.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from trunkline.messaging.connectors.incoming import AGAIN, MAX_BODY_BYTES, TEXT, Answer, Mounted

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
CONNECTORS = "/connectors/"
SIMULATOR = "/_simulator/"
MAX_BODIES = 500
"""Bodies that are received at once, each of at most MAX_BODY_BYTES; more get 503."""


class CarrierFront:
    """See the module."""

    def __init__(self, app: App, connectors: Mapping[str, Mounted], simulator: Mounted | None = None) -> None:
        self._app = app
        self._connectors = connectors
        self._simulator = simulator
        self._bodies = 0

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """One ASGI connection."""
        path: str = scope["path"] if scope["type"] == "http" else ""
        if path.startswith(CONNECTORS):
            return self._serve(self._connector(scope, path, receive), send)
        if self._simulator is not None and path.startswith(SIMULATOR):
            return self._serve(self._ask(self._simulator, path[len(SIMULATOR) :], scope, receive), send)
        return self._app(scope, receive, send)

    async def _serve(self, answer: Awaitable[Answer], send: Send) -> None:
        await _send(send, await answer)

    async def _connector(self, scope: Scope, path: str, receive: Receive) -> Answer:
        name, _, kind = path[len(CONNECTORS) :].partition("/")
        connector = self._connectors.get(name)
        if connector is None or kind not in ("receipt", "inbound"):
            return 404, TEXT, b"no such connector"
        return await self._ask(connector, kind, scope, receive)

    async def _ask(self, mounted: Mounted, kind: str, scope: Scope, receive: Receive) -> Answer:
        if self._bodies >= MAX_BODIES:
            return 503, AGAIN, b"not now"
        self._bodies += 1
        try:
            body = await _body(receive)
        finally:
            self._bodies -= 1
        if body is None:
            return 413, TEXT, f"at most {MAX_BODY_BYTES} bytes".encode()
        return await mounted.handle(kind, scope["method"], dict(scope["headers"]), scope["query_string"], body)


async def _body(receive: Receive) -> bytes | None:
    """The whole body, or None when it is too large or the client left."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body"):
            return bytes(body)


async def _send(send: Send, answer: Answer) -> None:
    status, headers, body = answer
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})
