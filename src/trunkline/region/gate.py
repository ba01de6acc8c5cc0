"""What stands before the API of a node while its region is not (or not known to be) the active one."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from trunkline.region.guard import Guard

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

RETRY_AFTER_S = 5
ASKED = frozenset({"/healthz", "/metrics"})
"""Answered whatever the region is."""
READ = frozenset({"GET", "HEAD", "OPTIONS"})


class Gate:
    """An ASGI application before another one. What was done while the gate closed is not acknowledged: whoever has
    heard nothing sends it again, to the region that is active then."""

    def __init__(self, app: App, guard: Guard) -> None:
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in ASKED:
            await self._app(scope, receive, send)
        elif not self._guard.open:
            await refuse(send, self._guard.problem or "the region is not known to be active")
        elif scope["method"] in READ:
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, self._checked(send))

    def _checked(self, send: Send) -> Send:
        refused = False

        async def checked(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] < 500 and not self._guard.acknowledges:
                refused = True
                await refuse(send, self._guard.problem or "the region is not known to be active")
            elif not refused:
                await send(message)

        return checked


async def refuse(send: Send, why: str) -> None:
    """503 with Retry-After, in the shape of the API's errors."""
    body = refusal(why)
    await send({"type": "http.response.start", "status": 503, "headers": headers(body)})
    await send({"type": "http.response.body", "body": body})


def refusal(why: str) -> bytes:
    """The body of a refusal."""
    return orjson.dumps({"code": 20503, "message": why, "more_info": "", "status": 503})


def headers(body: bytes) -> list[tuple[bytes, bytes]]:
    """Its head."""
    return [
        (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)),
        (b"retry-after", b"%d" % RETRY_AFTER_S),
    ]  # fmt: skip
