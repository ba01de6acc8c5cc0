"""The REST API as one raw ASGI application: locate, match, log in, read the form, call the handler, answer.

Every refusal, wherever it arises, is an `ApiError` and becomes Twilio's error body in the request's format; what
nobody foresaw is logged and becomes 500 with code 20500. Nothing here waits except for the body and the handler.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any

from trunkline.api import address, known_paths, respond, router
from trunkline.api.auth import Authenticator, refuse_standard_key
from trunkline.api.deadlines import Deadlines
from trunkline.api.form import parse_body, unquote
from trunkline.api.homes import FORWARDED, Homes
from trunkline.api.idempotency import HEADER as IDEMPOTENCY_HEADER
from trunkline.api.idempotency import Idempotency
from trunkline.api.limits import ApiLimits
from trunkline.api.rate import RequestRate
from trunkline.api.request import Request
from trunkline.api.respond import Format, Response, Streamed
from trunkline.api.route import Route
from trunkline.api.router import Endpoint
from trunkline.api.unknown import Unknown
from trunkline.model.errors import ApiError
from trunkline.model.held import ANSWER, HELD, MOVED, PARTS
from trunkline.storage.unavailable import StoreUnavailable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Mount = Callable[[Request], Awaitable[Response]]
Observe = Callable[[str, str, int, float], None]
"""Called after each response with method, route template (or ``), status and seconds."""

log = logging.getLogger("trunkline.api")

ID_POOL_BYTES = 16 * 256
"""Random bytes drawn at once; a request id takes 16."""


class _Gone(Exception):
    """The client left before its request was whole."""


class Api:
    """The application. `services` is handed to every handler as it is.

    `mounts` are exact paths outside Twilio's API (`/healthz`, `/readyz`, `/metrics`), served to GET without a login;
    of their request only method, path and headers are filled in. `public`: routes that may do without a login (the
    audio of recordings) are served without one. `homes`: which requests another node of a cluster answers.
    `unknown`: what a node of a cluster looks for before it refuses.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        services: Any,
        authenticator: Authenticator,
        idempotency: Idempotency,
        *,
        limits: ApiLimits | None = None,
        mounts: Mapping[str, Mount] | None = None,
        trusted_proxies: tuple[str, ...] = (),
        observe: Observe | None = None,
        public: bool = False,
        homes: Homes | None = None,
        unknown: Unknown | None = None,
    ) -> None:
        self._tries = router.build(routes)
        self._services = services
        self._authenticator = authenticator
        self.failures = authenticator.failures
        self._idempotency = idempotency
        self._limits = limits or ApiLimits()
        self._mounts = dict(mounts or {})
        self._proxies = address.Proxies(trusted_proxies)
        self._observe = observe
        self._public = public
        self._homes = homes
        self._unknown = unknown
        self._deadlines = Deadlines(self._limits.body_seconds)
        per_second = self._limits.requests_per_second
        self.rate = RequestRate(per_second, time.monotonic) if per_second else None
        self._held_bytes = 0
        self._hosts: dict[bytes, address.Host] = {}
        self._random = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection: an HTTP exchange, the lifespan, or a WebSocket (refused)."""
        if scope["type"] != "http":
            await _other(scope, receive, send)
            return
        began = time.perf_counter()
        request = Request(scope["method"], scope["path"])
        request.request_id = self._request_id()
        endpoint: list[Endpoint] = []
        try:
            response = await self._answer(scope, receive, request, endpoint)
        except _Gone:
            return
        except asyncio.CancelledError:
            if MOVED not in scope:
                raise
            return
        except ApiError as error:
            response = respond.error(error, request.format)
        except StoreUnavailable as unavailable:
            response = _later(request, unavailable)
        except Exception:
            log.exception("%s %s failed (%s)", scope["method"], request.path, request.request_id)
            response = respond.error(ApiError.of(20500), request.format)
        finally:
            self._held_bytes -= request.reserved_bytes
        await _send(scope, send, response, request.request_id)
        if self._observe is not None:
            template = endpoint[0].route.template if endpoint else ""
            self._observe(request.method, template, response.status, time.perf_counter() - began)

    def _request_id(self) -> str:
        pool = self._random
        if len(pool) < 16:
            pool = os.urandom(ID_POOL_BYTES)
        self._random = pool[16:]
        return "RQ" + pool[:16].hex()

    async def _answer(self, scope: Scope, receive: Receive, request: Request, matched: list[Endpoint]) -> Response:
        """The response; raises ApiError to refuse. `matched` receives the endpoint, once known."""
        request.headers = dict(scope["headers"])
        mount = self._mounts.get(request.path)
        if mount is not None and request.method in ("GET", "HEAD"):
            return await mount(request)
        segments = self._locate(scope, request)
        endpoint = self._match(request, segments)
        matched.append(endpoint)
        if self._unknown is None:
            self._log_in(request, endpoint, segments, scope)
        else:
            await self._enter(self._unknown, request, endpoint, segments, scope)
        if endpoint.names:
            request.params = {name: segments[at] for name, at in endpoint.names}
        if request.format is Format.CSV:
            raise ApiError(406, None, "CSV is not available here: ask for .json or .xml")
        del segments  # a body that comes slowly holds what is here
        body = request.body = await self._body(scope, receive, request)
        if self._homes is not None and request.method != "GET":
            answer = await self._homes.elsewhere(request, scope, request.headers.get(IDEMPOTENCY_HEADER))
            if answer is not None:
                return answer
        if request.method == "POST":
            request.form = parse_body(request.headers.get(b"content-type", b""), body, self._limits.fields)
            if self._unknown is not None:
                await self._unknown.named(request)
            key = request.headers.get(IDEMPOTENCY_HEADER)
            if key is not None:
                return await self._once(request, endpoint, key)
        elif request.method == "GET":
            scope[HELD], scope[PARTS] = asyncio.current_task(), body
        request.token = request.request_id[2:]
        return await endpoint.route.handler(request, self._services)

    async def _once(self, request: Request, endpoint: Endpoint, key: bytes) -> Response:
        """A POST with an idempotency key."""
        claim = await self._idempotency.begin(request, key)
        if isinstance(claim, Response):
            return claim
        try:
            try:
                response = await endpoint.route.handler(request, self._services)
            except Exception:
                await self._idempotency.abandon(claim)
                raise
            await self._idempotency.finish(claim, response)
            return response
        finally:
            self._idempotency.over(claim)

    # --- steps ---

    def _locate(self, scope: Scope, request: Request) -> list[str]:
        """Fill in where the request was sent; returns the path's segments, percent-decoded."""
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
        headers = request.headers
        request.query_string = scope["query_string"]
        request.max_fields = self._limits.fields
        path = request.path = raw_path.decode("latin-1")
        if request.method == "HEAD":
            request.method = "GET"
        scheme: str = scope["scheme"]
        raw_host: bytes = headers.get(b"host", b"")
        request.client = scope["client"][0] if scope.get("client") else ""
        if self._proxies and self._proxies.trusts(request.client):
            scheme, raw_host = address.forwarded(headers, scheme, raw_host)
            request.client = self._proxies.client(request.client, headers)
        host = self._hosts.get(raw_host) or self._new_host(raw_host)
        place = address.locate(path, host.product)
        request.product = place.product
        request.format = place.format
        if len(raw_path) > self._limits.path_bytes or len(request.query_string) > self._limits.query_bytes:
            raise ApiError(414, None, "The request's path or query is too long")
        if host.text == "" and raw_host:
            raise ApiError.invalid("Host", "malformed header")
        request.base_url = f"{scheme}://{host.text}{place.prefix}"
        segments = place.segments
        request.resource_path = "/" + "/".join(segments)
        return [unquote(segment) for segment in segments] if "%" in path else segments

    def _new_host(self, raw: bytes) -> address.Host:
        """A Host header seen for the first time; one that is malformed has no text and is not remembered."""
        host = address.parse_host(raw)
        if host is None:
            return address.Host("", "")
        if len(self._hosts) >= self._limits.host_cache:
            self._hosts.clear()
        self._hosts[raw] = host
        return host

    def _match(self, request: Request, segments: list[str]) -> Endpoint:
        """The endpoint; raises 20404, 20004 (405), or 501 for what only Twilio has."""
        trie = self._tries.get(request.product)
        found = None if trie is None else trie.find(segments)
        endpoint = None if found is None else found.get(request.method)
        if endpoint is not None:
            return endpoint
        elsewhere = known_paths.methods(request.product, segments)
        if request.method in elsewhere:
            raise ApiError(
                501,
                None,
                f"{request.method} {request.path} exists at Twilio, but this server does not offer it",
            )
        allowed = sorted({*(found or ()), *elsewhere})
        if allowed:
            raise ApiError.of(20004, headers=(("Allow", ", ".join(allowed)),))
        raise ApiError.not_found(request.path)

    async def _enter(
        self, unknown: Unknown, request: Request, endpoint: Endpoint, segments: list[str], scope: Scope
    ) -> None:
        """Log in; what another node may know better is looked for before it is refused."""
        try:
            self._log_in(request, endpoint, segments, scope, final=False)
        except ApiError as refusal:
            if not unknown.may_help(refusal):
                raise
            account_sid = segments[endpoint.account_segment] if endpoint.account_segment >= 0 else ""
            await unknown.login(request.headers.get(b"authorization"), account_sid)
            self._log_in(request, endpoint, segments, scope)

    def _log_in(
        self, request: Request, endpoint: Endpoint, segments: list[str], scope: Scope, *, final: bool = True
    ) -> None:
        """Fill in who asks and for which account; raises 20003, 20005, 20008, 20404 or 20429. What a peer has handed
        over was counted there."""
        authenticator = self._authenticator
        public = endpoint.route.public if self._public else None
        if public is not None and b"authorization" not in request.headers and public(request.path):
            request.account_sid = segments[endpoint.account_segment]
            request.account = authenticator.anonymous(request.account_sid, request.path)
            return
        principal = authenticator.authenticate(request.headers.get(b"authorization"), request.client, final=final)
        request.principal = principal
        if endpoint.main_only:
            refuse_standard_key(principal)
        if endpoint.account_segment < 0:
            request.account_sid = principal.sid
            request.account = principal.account
        else:
            sid = request.account_sid = segments[endpoint.account_segment]
            if endpoint.is_account:
                request.account = authenticator.subject(principal, sid)
            else:
                request.account = authenticator.authorise(principal, sid, request.method)
        if principal.is_test and not endpoint.route.test_credentials:
            raise ApiError.of(20008)
        if self.rate is not None and not scope.get(FORWARDED):
            self.rate.take(principal.account.sid)

    async def _body(self, scope: Scope, receive: Receive, request: Request) -> bytes:
        """The whole body; raises 20413, 20503 when too many are under way, or 408 when it does not come in time."""
        declared = request.headers.get(b"content-length")
        if declared is None and b"transfer-encoding" not in request.headers:
            return b""
        self._reserve(request, declared)
        task = scope[HELD] = self._deadlines.enter()
        try:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                body: bytes = message.get("body", b"")
            else:
                body = await _rest(scope, message, receive, self._limits.body_bytes)
        except asyncio.CancelledError:
            if not self._deadlines.ended(task):
                raise
            raise ApiError(408, None, "The request's body did not arrive in time", headers=_CLOSE) from None
        finally:
            self._deadlines.leave(task)
            del scope[HELD]
        if len(body) > self._limits.body_bytes:
            raise _too_large(self._limits.body_bytes)
        return body

    def _reserve(self, request: Request, declared: bytes | None) -> None:
        """Set memory aside for a body of the declared size (of the largest, where none is declared)."""
        limit = size = self._limits.body_bytes
        if declared is not None and declared.isdigit():
            if len(declared) > 12 or int(declared) > limit:
                raise _too_large(limit)
            size = int(declared)
        if self._held_bytes + size > self._limits.held_body_bytes:
            raise ApiError.of(20503, headers=(("Retry-After", "1"), *_CLOSE))
        self._held_bytes += size
        request.reserved_bytes = size


_CLOSE = (("Connection", "close"),)
_AGAIN = (("Retry-After", "5"),)


def _later(request: Request, unavailable: StoreUnavailable) -> Response:
    """Nothing was kept (the disk is full, say): 503, to be sent again."""
    log.warning("%s %s refused (%s): %s", request.method, request.path, request.request_id, unavailable)
    return respond.error(ApiError.of(20503, headers=_AGAIN), request.format)


def _too_large(limit: int) -> ApiError:
    return ApiError.of(20413, limit=limit, headers=_CLOSE)


async def _rest(scope: Scope, message: Message, receive: Receive, limit: int) -> bytes:
    """A body that comes in pieces."""
    body = scope[PARTS] = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise _Gone
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()


async def _send(scope: Scope, send: Send, response: Response, request_id: str) -> None:
    body, is_streamed = response.body, isinstance(response, Streamed)
    headers = [*response.headers, (b"twilio-request-id", request_id.encode("ascii"))]
    if response.status != 204:
        headers.append((b"content-length", b"%d" % (response.length if isinstance(response, Streamed) else len(body))))
    if scope["method"] == "HEAD":
        body, is_streamed = b"", False
    if not is_streamed and ANSWER in scope.get("extensions", ()):
        await send({"type": ANSWER, "status": response.status, "headers": headers, "body": body})
        return
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if isinstance(response, Streamed) and is_streamed:
        async for chunk in response.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": body})


async def _other(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the lifespan protocol (there is nothing to start here); refuse WebSockets."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    while True:
        message = await receive()
        kind = message["type"].removeprefix("lifespan.")
        await send({"type": f"lifespan.{kind}.complete"})
        if kind == "shutdown":
            return
