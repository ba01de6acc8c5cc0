"""Media files' bytes behind signed links: who has the link needs no login, and it expires.

The Media resource redirects to `/media/ME...?Expires=<Unix seconds>&Signature=<hex>`. The signature is an HMAC of SID
and expiry under a key derived from the master key, so a link can neither be guessed nor prolonged, and it outlives
restarts and key rotations. `MediaFront` serves these paths in front of the REST API, which knows no request without
a login. A deleted file's links are dead at once.
"""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlencode

from trunkline.api import respond
from trunkline.api.form import parse_urlencoded
from trunkline.api.respond import Format, Headers, Response
from trunkline.api.services import Services
from trunkline.model.errors import ApiError
from trunkline.model.numbers import Media
from trunkline.model.sid import MEDIA, is_sid

PATH = "/media/"
LINK_SECONDS = 900
"""How long a link works."""
MAX_FIELDS = 10
"""Query fields that are looked at."""
MAX_QUERY_BYTES = 1024
_INLINE = ("image/", "audio/", "video/")
"""Types that browsers may show in place; anything else is offered as a download."""
_ACTIVE = frozenset({"image/svg+xml"})
"""Images that can run scripts."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def signature(pepper: bytes, sid: str, expires_s: int) -> str:
    """Hex HMAC-SHA256 of a link."""
    key = hmac.digest(pepper, b"trunkline media link", "sha256")
    return hmac.digest(key, f"{sid}.{expires_s}".encode(), "sha256").hex()


def link(pepper: bytes, sid: str, now_ms: int) -> str:
    """Path and query of a file's signed link."""
    expires_s = now_ms // 1000 + LINK_SECONDS
    query = urlencode({"Expires": expires_s, "Signature": signature(pepper, sid, expires_s)})
    return f"{PATH}{sid}?{query}"


def verify(pepper: bytes, sid: str, query: bytes, now_ms: int) -> int:
    """Seconds that a link still works; raises 20403 for a forged or expired one."""
    fields = parse_urlencoded(query, MAX_FIELDS) if len(query) <= MAX_QUERY_BYTES else {}
    expires, given = (fields.get(name, [""])[-1] for name in ("Expires", "Signature"))
    if not (expires.isascii() and expires.isdecimal() and len(expires) <= 12 and given.isascii()):
        raise ApiError.of(20403)
    left = int(expires) - now_ms // 1000
    if not hmac.compare_digest(signature(pepper, sid, int(expires)), given) or left <= 0:
        raise ApiError.of(20403)
    return left


def headers(media: Media, cache_s: int) -> Headers:
    """What goes with the bytes: nothing that a file says of itself is believed or run."""
    kind = media.content_type
    inline = kind.startswith(_INLINE) and kind not in _ACTIVE
    return (
        respond.header("Content-Type", kind),
        respond.header("Content-Disposition", f'{"inline" if inline else "attachment"}; filename="{media.sid}"'),
        respond.header("X-Content-Type-Options", "nosniff"),
        respond.header("Content-Security-Policy", "default-src 'none'; sandbox"),
        respond.header("Cache-Control", f"private, max-age={cache_s}"),
    )


class MediaFront:
    """See the module. Everything else is passed on to `app`."""

    def __init__(self, app: App, services: Services) -> None:
        self._app = app
        self._services = services

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """One ASGI connection."""
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            return self._app(scope, receive, send)
        return self._serve(scope, send)

    async def _serve(self, scope: Scope, send: Send) -> None:
        try:
            response = await self._answer(scope)
        except ApiError as error:
            response = respond.error(error, Format.JSON)
        length = (b"content-length", b"%d" % len(response.body))
        await send({"type": "http.response.start", "status": response.status, "headers": [*response.headers, length]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body})

    async def _answer(self, scope: Scope) -> Response:
        """The file; raises 20004, 20403, 20404."""
        if scope["method"] not in ("GET", "HEAD"):
            raise ApiError.of(20004, headers=(("Allow", "GET, HEAD"),))
        services = self._services
        path: str = scope["path"]
        sid = path.removeprefix(PATH)
        if not is_sid(sid, MEDIA):
            raise ApiError.not_found(path)
        left = verify(services.secrets.pepper, sid, scope["query_string"], services.clock.now_ms())
        media = await services.database.get(Media, sid)
        content = None if media is None else await services.blobs.get(sid)
        if media is None or content is None:
            raise ApiError.not_found(path)
        return Response(200, content, headers(media, left))
