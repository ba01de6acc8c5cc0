"""The door of a node without the role `api`: customers' requests are told to go to another one.

Health, metrics and carriers' own requests are answered; peers come by another way.
"""

from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any, Final

from trunkline.api import respond
from trunkline.api.respond import Format
from trunkline.model.errors import ApiError

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]
REFUSAL: Final = "This node does not answer the API (node.roles), please ask another one"


class Closed:
    """See the module. `paths` are passed on to `app`."""

    def __init__(self, app: App, paths: Collection[str]) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._response = respond.error(
            ApiError.of(20503, message=REFUSAL, headers=(("Retry-After", "1"),)), Format.JSON
        )

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """One ASGI connection."""
        if scope["type"] != "http" or scope["path"] in self._paths:
            await self._app(scope, receive, send)
            return
        response = self._response
        headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body})
