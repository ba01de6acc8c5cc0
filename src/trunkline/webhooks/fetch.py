"""The rules of Twilio's webhook requests, on top of the client: what is sent, followed, repeated and recorded.

    outcome = await fetcher.fetch(FetchRequest(url=..., params=..., secret=auth_token, idempotency_token=token))
    outcome.answer           # status, content type, body, the document's URL; None when there is none
    outcome.attempts         # one record a try, for the customer to see

`fetch` makes the whole sequence: the first try and the retries that the URL's overrides ask for, within the total
time. `once` and `attempt_once` make a single try: a durable queue records it and decides on the next itself.

A try is one request, and after it as many as redirects (at most `redirects`) and a 401 challenge take. Every one is
guarded (trunkline.webhooks.guard) and signed anew for its URL. 301, 302 and 303 go on as GET without parameters,
307 and 308 as they were.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import urljoin

import msgspec

from trunkline.model.clock import Clock
from trunkline.settings import Webhooks
from trunkline.webhooks import auth
from trunkline.webhooks.attempt import Attempt, Hop, sample, shown_headers
from trunkline.webhooks.cache import Cache, Entry
from trunkline.webhooks.connection import Response, Timeouts
from trunkline.webhooks.cookies import CookieJar
from trunkline.webhooks.failures import (
    HTTP_RETRIEVAL_FAILURE,
    BodyTooLarge,
    Failure,
    InvalidUrl,
    TooManyRedirects,
    TotalTimeout,
)
from trunkline.webhooks.guard import Guard
from trunkline.webhooks.http import Client, Origin, build_request
from trunkline.webhooks.overrides import DEFAULTS, RETRY_4XX, RETRY_5XX, Overrides, split
from trunkline.webhooks.params import encode_form
from trunkline.webhooks.sign import SIGNATURE_HEADER, signer
from trunkline.webhooks.target import Target, target

USER_AGENT: Final = "TwilioProxy/1.1"
IDEMPOTENCY_HEADER: Final = "I-Twilio-Idempotency-Token"
FORM_TYPE: Final = "application/x-www-form-urlencoded; charset=UTF-8"
MAX_LOGINS: Final = 8  # origins a conversation stays logged in at
_CNONCE_BYTES: Final = 16
_NOT_MODIFIED: Final = 304
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_KEEPS_METHOD: Final = frozenset({307, 308})

Params = Sequence[tuple[str, str]]


class Session(msgspec.Struct):
    """What one conversation (a call, an exchange of messages) keeps between its requests. Can be stored."""

    cookies: CookieJar = msgspec.field(default_factory=CookieJar)
    logins: dict[str, auth.Login] = {}


class FetchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook to request. `url` is as configured, overrides included; `secret` is the account's auth token.

    Without a secret it is not signed. `headers` are sent besides. `idempotency_token` is the same on every try of one
    webhook. `document` False: the answer is only looked at, a longer one is cut instead of failing; `audio` True: a
    longer one of type audio/* is cut (it is fetched again to be played). `cache_scope` (the account's SID) allows to
    cache a GET.
    """

    url: str
    secret: str
    method: str = "POST"
    params: Params = ()
    headers: Params = ()
    idempotency_token: str = ""
    verify_tls: bool = True
    document: bool = True
    audio: bool = False
    cache_scope: str = ""
    session: Session | None = None


class Answer(NamedTuple):
    """A response that came, whatever its status. `url` is the document's: after redirects, without parameters' query
    that we added, with userinfo (relative URLs resolve against it)."""

    status: int
    content_type: str
    body: bytes
    url: str


class Outcome(msgspec.Struct):
    """How a webhook ended: `error_code` 0 with an `answer` of status 2xx, or why not. `retry` tells whether the
    overrides' policy covers the failure of the last try."""

    attempts: list[Attempt]
    answer: Answer | None = None
    error_code: int = 0
    error: str = ""
    retry: bool = False


class _Step(NamedTuple):
    """One request of a try."""

    target: Target
    method: str
    params: Params


class _Try:
    """One try under way."""

    __slots__ = ("attempt", "deadline", "first", "overrides", "request", "step", "timeouts")

    def __init__(self, request: FetchRequest, first: Target, timeouts: Timeouts, deadline: float, attempt: Attempt):
        self.request = request
        self.first = first
        self.overrides = split(request.url)[1]
        self.timeouts = timeouts
        self.deadline = deadline
        self.attempt = attempt
        self.step = _Step(first, "GET" if request.method.upper() == "GET" else "POST", request.params)


class Fetcher:
    """See the module. `allow_http` False refuses plain http:// URLs."""

    def __init__(
        self,
        client: Client,
        guard: Guard,
        clock: Clock,
        settings: Webhooks | None = None,
        *,
        allow_http: bool = True,
        cache: Cache | None = None,
    ) -> None:
        self._client = client
        self._guard = guard
        self._clock = clock
        self._settings = settings or Webhooks()
        self._allow_http = allow_http
        self._cache = cache or Cache()

    async def fetch(self, request: FetchRequest) -> Outcome:
        """Request a webhook with the retries its overrides ask for. Never raises on what the other side does."""
        overrides = split(request.url)[1]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeouts_of(overrides, self._settings).total_s
        attempts: list[Attempt] = []
        for _ in range(overrides.retries + 1):
            outcome = await self.once(request, deadline=deadline)
            attempts += outcome.attempts
            if not outcome.retry or loop.time() >= deadline:
                break
        outcome.attempts = attempts
        return outcome

    async def attempt_once(self, request: FetchRequest) -> Attempt:
        """One try, as its record."""
        return (await self.once(request)).attempts[0]

    async def once(self, request: FetchRequest, *, deadline: float | None = None) -> Outcome:
        """One try, redirects and log-in included, until `deadline` (the loop's time) or the total time is over."""
        loop = asyncio.get_running_loop()
        started = self._clock.monotonic()  # finer than the loop's time, which uvloop keeps in milliseconds
        overrides = split(request.url)[1]
        timeouts = timeouts_of(overrides, self._settings)
        attempt = Attempt(_shown(request.url), request.method, self._clock.now_ms(), params=request.params)
        outcome = Outcome([attempt])
        try:
            run = _Try(request, target(request.url), timeouts, deadline or loop.time() + timeouts.total_s, attempt)
            outcome.answer = await self._follow(run)
        except Failure as failure:
            attempt.failure = failure.kind
            outcome.error_code, outcome.error = failure.code, str(failure)
            outcome.retry = failure.retry in overrides.retry_on
        else:
            status = outcome.answer.status
            if not 200 <= status < 300:
                outcome.error_code = HTTP_RETRIEVAL_FAILURE
                outcome.error = f"the server answered with HTTP status {status}"
                outcome.retry = status_policy(status) in overrides.retry_on
        attempt.error_code, attempt.error = outcome.error_code, outcome.error
        attempt.total_ms = (self._clock.monotonic() - started) * 1000
        return outcome

    async def _follow(self, run: _Try) -> Answer:
        """The answer behind all redirects."""
        for _ in range((self._settings.redirects or 0) + 1):
            response = await self._logged_in(run)
            attempt = run.attempt
            attempt.status = response.status
            attempt.response_headers = shown_headers(
                (k.decode("latin-1"), v.decode("latin-1")) for k, v in response.headers
            )
            attempt.response_body = sample(response.body)
            following = _redirected(run.step, response)
            if following is None:
                content_type = response.header("content-type")
                return Answer(response.status, content_type, response.body, run.step.target.url)
            attempt.redirects.append(Hop(run.step.target.shown, response.status))
            run.step = following
        raise TooManyRedirects(f"redirected more than {self._settings.redirects} times")

    async def _logged_in(self, run: _Try) -> Response:
        """The response to a step; a 401 is answered with the URL's credentials, a stale nonce once more."""
        user, password = _credentials(run)
        session = run.request.session
        to = run.step.target
        place = f"{to.scheme}://{to.host}:{to.port}"
        login = session.logins.get(place) if session is not None and user else None
        response = await self._exchange(run, self._authorization(run, login, user, password))
        for round_ in range(2):
            if response.status != 401 or not user:
                break
            challenge = auth.choose(response.header_list("www-authenticate"))
            if challenge is None or (round_ and not challenge.stale):
                break
            response = await self._exchange(run, self._authorization(run, challenge, user, password))
            login = challenge
        if session is not None and login is not None:
            session.logins.pop(place, None)
            if response.status != 401 and len(session.logins) < MAX_LOGINS:
                session.logins[place] = login
        return response

    def _authorization(self, run: _Try, login: auth.Login | None, user: str, password: str) -> str | None:
        if login is None:
            return None
        cnonce = secrets.token_hex(_CNONCE_BYTES)
        return auth.authorization(login, user, password, run.step.method, _path_and_url(run.step)[0], cnonce)

    async def _exchange(self, run: _Try, authorization: str | None) -> Response:
        """One request and its response, or what the cache has when the server says that it is current."""
        loop = asyncio.get_running_loop()
        request, step, to = run.request, run.step, run.step.target
        if to.scheme != "https" and not self._allow_http:
            raise InvalidUrl("plain http:// URLs are not allowed here")
        key = (request.cache_scope, _path_and_url(step)[1])
        cacheable = bool(request.cache_scope) and step.method == "GET" and authorization is None
        entry = self._cache.get(key) if cacheable else None
        payload = self._payload(run, authorization, entry)
        connect_s = min(run.timeouts.connect_s, _left(run, loop.time()))
        address = await self._guard.resolve(to.host, connect_s)
        try:
            response = await self._client.request(
                Origin(to.scheme, to.host, to.port, address, run.overrides.sni, request.verify_tls),
                payload,
                timeouts=run.timeouts._replace(total_s=_left(run, loop.time())),
                max_body_bytes=self._settings.response_bytes,
                truncate=request.audio or not request.document,
            )
        except Failure as failure:
            if failure.kind in ("connect-timeout", "connection-failed"):
                self._guard.demote(to.host, address)
            raise
        self._after(run, response)
        if response.truncated and request.document and not response.header("content-type").startswith("audio/"):
            raise BodyTooLarge(f"the response's body is longer than {self._settings.response_bytes} bytes")
        if entry is not None and response.status == _NOT_MODIFIED:
            run.attempt.from_cache = True
            return entry.response._replace(timing=response.timing)
        if cacheable:
            self._cache.put(key, response)
        return response

    def _after(self, run: _Try, response: Response) -> None:
        attempt, to = run.attempt, run.step.target
        attempt.connect_ms, attempt.first_byte_ms = response.timing.connect_ms, response.timing.first_byte_ms
        if run.request.session is not None:
            jar = run.request.session.cookies
            jar.store(to.host, to.path, response.header_list("set-cookie"), self._clock.now_ms())

    def _payload(self, run: _Try, authorization: str | None, entry: Entry | None) -> bytes:
        """The bytes of a step's request; what is sent is noted in the attempt."""
        request, step, to = run.request, run.step, run.step.target
        path, url = _path_and_url(step)
        post = step.method == "POST"
        headers = [("User-Agent", USER_AGENT), ("Accept", "*/*")]
        if post:
            headers.append(("Content-Type", FORM_TYPE))
        if request.secret:
            headers.append((SIGNATURE_HEADER, signer(request.secret).sign(url, step.params if post else ())))
        headers += request.headers
        if request.idempotency_token:
            headers.append((IDEMPOTENCY_HEADER, request.idempotency_token))
        if authorization is not None:
            headers.append(("Authorization", authorization))
        if request.session is not None:
            cookie = request.session.cookies.header(to.scheme, to.host, path, self._clock.now_ms())
            if cookie:
                headers.append(("Cookie", cookie))
        if entry is not None:
            headers += entry.conditions()
        attempt = run.attempt
        attempt.url, attempt.method, attempt.params = to.shown, step.method, step.params
        attempt.request_headers = shown_headers(headers)
        body = encode_form(step.params).encode("ascii") if post else b""
        return build_request(step.method, path, to.host_header, headers, body)


def timeouts_of(overrides: Overrides, settings: Webhooks) -> Timeouts:
    """The settings' timeouts, with what the URL asks for instead."""
    return Timeouts(
        settings.connect_timeout_s if overrides.connect_ms == DEFAULTS.connect_ms else overrides.connect_ms / 1000,
        settings.read_timeout_s if overrides.read_ms == DEFAULTS.read_ms else overrides.read_ms / 1000,
        settings.total_timeout_s if overrides.total_ms == DEFAULTS.total_ms else overrides.total_ms / 1000,
    )


def status_policy(status: int) -> str:
    """The class of the retry policy that covers a status, empty for none."""
    return RETRY_4XX if 400 <= status < 500 else RETRY_5XX if status >= 500 else ""


def _left(run: _Try, now: float) -> float:
    """Seconds of the total time that are left."""
    if now >= run.deadline:
        raise TotalTimeout(f"no complete response within {run.timeouts.total_s:g} s")
    return run.deadline - now


def _path_and_url(step: _Step) -> tuple[str, str]:
    """The request line's target and the URL to sign: a GET carries its parameters in both."""
    path, url = step.target.path, step.target.url
    if step.method == "POST" or not step.params:
        return path, url
    query = encode_form(step.params)
    joint = "" if path.endswith(("?", "&")) else "&" if "?" in path else "?"
    return f"{path}{joint}{query}", f"{url}{joint}{query}"


def _credentials(run: _Try) -> tuple[str, str]:
    """User and password for a step: its URL's own, or the webhook's as long as the origin is the same."""
    to, first = run.step.target, run.first
    if to.user or to[1:4] != first[1:4]:
        return to.user, to.password
    return first.user, first.password


def _redirected(step: _Step, response: Response) -> _Step | None:
    """The request a redirect asks for, None when the response is none."""
    location = response.header("location")
    if response.status not in _REDIRECTS or not location:
        return None
    try:
        location = location.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        location = response.header("location")
    try:
        to = target(urljoin(step.target.url, location))
    except ValueError:
        raise InvalidUrl("the server redirected to a URL that cannot be read") from None
    if response.status in _KEEPS_METHOD:
        return _Step(to, step.method, step.params if step.method == "POST" else ())
    return _Step(to, "GET", ())


def _shown(url: str) -> str:
    """A URL for a record, without the password, even if it cannot be requested."""
    try:
        return target(url).shown
    except Failure:
        return url[:200] if "@" not in url else url[:200].rpartition("@")[2]
