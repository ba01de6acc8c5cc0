"""Status callbacks: the handler of owed webhooks of kind `status`.

Two go out per message and up to four per call, so the usual case is one straight piece of code without a task: what
depends on the URL's scheme and authority is prepared once in a `_Site`, the body is signed and written to a kept-alive
connection, and `on_done` turns the answer into a `Result`. A URL that is not plain (overrides, a login, redirects) has
a `_Plan` of its own. What is not usual goes to a task: a host whose address is not known, redirects, authentication.

Policy: without `#rc`/`#rp` in the URL an attempt is repeated (as often as the settings say) unless the answer says that
repeating cannot help: a 4xx other than 408, 425 and 429, or a URL that may not be requested. With them it is exactly
what the customer asked for. A failed first attempt raises an alert, and so does giving up.
Source: Twilio's status callbacks (messages: always POST; calls and recordings: GET too), connection overrides,
warning 15003.
"""

import asyncio
import re
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
import orjson

from trunkline.accounts.alerts import Alerts
from trunkline.model.account import Account
from trunkline.model.clock import Clock
from trunkline.settings import Webhooks
from trunkline.storage.queue import Owed
from trunkline.telemetry.traceparent import HEADER, of_attempt
from trunkline.webhooks.attempt import Attempt, sample
from trunkline.webhooks.connection import Response
from trunkline.webhooks.delivery import Result
from trunkline.webhooks.failures import (
    ConnectionFailed,
    ConnectTimeout,
    Failure,
    HostUnknown,
    InvalidUrl,
    ReadTimeout,
    TlsFailed,
)
from trunkline.webhooks.fetch import FORM_TYPE, USER_AGENT, Fetcher, FetchRequest, status_policy, timeouts_of
from trunkline.webhooks.guard import Guard
from trunkline.webhooks.http import Client, Origin
from trunkline.webhooks.overrides import Overrides, split
from trunkline.webhooks.params import encode_form
from trunkline.webhooks.sign import signer
from trunkline.webhooks.target import MAX_URL_CHARACTERS, Target, target

CALLBACK_WARNING = 15003
"""Twilio's "Warning Response to Callback URL"."""
MAX_PLANS = 4096
"""Prepared URLs kept."""
MAX_RECORDED_BODY = 1024
"""Characters of a failing answer's body that are kept with the message."""
MAX_ANSWER_BYTES = 64 * 1024
"""Read of an answer to a status callback; the rest is cut off."""
PASSING = frozenset({408, 425, 429})
"""Client errors that may pass by themselves."""
REDIRECTS = frozenset({301, 302, 303, 307, 308})
"""Answers that ask for another request: the full client makes it, and all later ones to that URL."""
LASTING = frozenset({"invalid-url", "host-refused"})
"""Kinds of failure that do not pass by themselves."""


class StatusRequest(msgspec.Struct):
    """What messages, calls and recordings store in `Owed.request`."""

    url: str
    params: list[tuple[str, str]]
    token: str
    method: str = "POST"
    """GET: the parameters go into the query."""
    traceparent: str = ""
    """Of the work that it tells of."""


_decode = msgspec.json.Decoder(StatusRequest).decode
_encode = msgspec.json.Encoder().encode


_PLAIN = re.compile(r"(https?://[A-Za-z0-9.-]{1,253}(?::[0-9]{1,5})?)(/[!$-;=?-Z_a-z~&%]*)")
"""A URL in two parts, authority and path, that needs no other check and no quoting: no userinfo, fragment, quote,
backslash, or anything that is not on the wire."""


class _Plan:
    """A URL, prepared."""

    __slots__ = ("origin", "overrides", "own_policy", "roundabout", "target", "timeouts", "url")

    def __init__(self, url: str, settings: Webhooks) -> None:
        self.url = url
        bare, self.overrides = split(url)
        self.target: Target = target(bare)
        self.roundabout = bool(self.target.user)
        """Whether its requests need the full client: it redirects, or asks for a log-in."""
        fragment = url.partition("#")[2]
        self.own_policy = "rc=" in fragment or "rp=" in fragment
        self.timeouts = timeouts_of(self.overrides, settings)
        self.origin: Origin | None = None

    def origin_at(self, address: str, verify: bool) -> Origin:
        """Where to connect to; the last answer is kept."""
        origin = self.origin
        if origin is None or origin.address != address or origin.verify is not verify:
            to = self.target
            origin = self.origin = Origin(to.scheme, to.host, to.port, address, self.overrides.sni, verify)
        return origin


class _Site:
    """The plain URLs of one authority, prepared."""

    __slots__ = ("after_path", "plan", "prefix")

    def __init__(self, plan: _Plan) -> None:
        self.plan = plan
        self.prefix = plan.target.url.removesuffix(plan.target.path)
        """What stands before the path in a URL as it is signed."""
        self.after_path = (
            f" HTTP/1.1\r\nHost: {plan.target.host_header}\r\nUser-Agent: {USER_AGENT}\r\n"
            f"Accept: */*\r\nContent-Type: {FORM_TYPE}\r\nX-Twilio-Signature: "
        )


class StatusHandler:
    """See the module. `account_of` is the directory's look-up; `allow_http`: whether plain `http://` is taken."""

    def __init__(
        self,
        client: Client,
        guard: Guard,
        fetcher: Fetcher,
        account_of: Callable[[str], Account | None],
        alerts: Alerts,
        clock: Clock,
        settings: Webhooks,
        *,
        allow_http: bool = True,
    ) -> None:
        self._client = client
        self._guard = guard
        self._fetcher = fetcher
        self._account_of = account_of
        self._alerts = alerts
        self._clock = clock
        self._settings = settings
        self._allow_http = allow_http
        self._plans: dict[str, _Plan] = {}
        self._sites: dict[str, _Site] = {}
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- Handler ---------------------------------------------------------------------------------------------

    def begin(self, owed: Owed, done: Callable[[Result], None]) -> None:
        """Send one attempt. Next: trunkline.webhooks.delivery.Delivery.settled"""
        try:
            request = _decode(owed.request)
            url = request.url
            short = request.method != "GET" and url not in self._plans and len(url) <= MAX_URL_CHARACTERS
            plain = _PLAIN.fullmatch(url) if short else None
            if plain is None:
                plan = self._plans.get(url) or self._plan(url)
                site, path = _Site(plan), plan.target.path
            else:
                authority, path = plain.groups()
                site = self._sites.get(authority) or self._site(authority)
                plan = site.plan
        except Failure as failure:
            self._loop.call_soon(self._refused, owed, failure, done)
            return
        except msgspec.MsgspecError:
            # Blanked by a privacy deletion: there is nothing left to tell.
            self._loop.call_soon(done, Result([], False, error="the request is gone"))
            return
        account = self._account_of(owed.account)
        if account is None:
            self._loop.call_soon(done, Result([], False, error="the account is gone"))
            return
        if plan.roundabout or request.method == "GET":
            self._start(self._go_round(owed, request, plan, account, done))
            return
        address = self._guard.cached(plan.target.host, self._loop.time())
        if address is None:
            self._start(self._resolve_first(owed, request, site, path, account, done))
        else:
            self._send(owed, request, site, path, account, address, done)

    def exhausted(self, owed: Owed, result: Result) -> None:
        """Given up: an alert, unless the first attempt has just raised it."""
        if owed.tries > 1:
            text = f"status callback given up after {owed.tries} attempts: {result.error}"
            self._alert(owed, result.error_code or CALLBACK_WARNING, text)

    # -- the usual case --------------------------------------------------------------------------------------

    def _plan(self, url: str) -> _Plan:
        """Raises Failure for a URL that may not be requested."""
        plan = self._checked(url)
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[url] = plan
        return plan

    def _checked(self, url: str) -> _Plan:
        plan = _Plan(url, self._settings)
        if plan.target.scheme != "https" and not self._allow_http:
            raise InvalidUrl("plain http:// is not allowed here")
        return plan

    def _site(self, authority: str) -> _Site:
        """Raises Failure for an authority that no request may go to."""
        site = _Site(self._checked(authority + "/"))
        if len(self._sites) >= MAX_PLANS:
            self._sites.clear()
        self._sites[authority] = site
        return site

    def _send(
        self,
        owed: Owed,
        request: StatusRequest,
        site: _Site,
        path: str,
        account: Account,
        address: str,
        done: Callable[[Result], None],
    ) -> None:
        plan = site.plan
        url = site.prefix + path
        body = encode_form(request.params)
        trace = of_attempt(request.traceparent, owed.id, owed.tries) if request.traceparent else ""
        traced = f"{HEADER}: {trace}\r\n" if trace else ""
        head = (
            f"POST {path}{site.after_path}{signer(account.auth_token).sign(url, request.params)}\r\n"
            f"I-Twilio-Idempotency-Token: {idempotency_token(owed.sid, request.token)}\r\n{traced}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        started_ms = self._clock.now_ms()

        def on_done(answer: Response | Failure) -> None:
            if type(answer) is Response and 200 <= answer.status < 300:
                attempt = b'{"url":%s,"method":"POST","started_ms":%d,"status":%d,"total_ms":%.1f}' % (
                    orjson.dumps(_shown(plan, url)),
                    started_ms,
                    answer.status,
                    answer.timing.total_ms,
                )
                done(Result((attempt,), True))
            elif type(answer) is Response and answer.status in REDIRECTS:
                request = _decode(owed.request)  # read again: while an answer is waited for, it is kept once
                own = self._plans.get(request.url) or self._plan(request.url)
                own.roundabout = True
                self._start(self._go_round(owed, request, own, account, done))
            else:
                self._trouble(owed, plan, _shown(plan, url), address, started_ms, answer, done)

        self._client.request_nowait(
            plan.origin_at(address, account.verify_tls),
            head.encode("latin-1"),
            on_done,
            timeouts=plan.timeouts,
            max_body_bytes=MAX_ANSWER_BYTES,
            truncate=True,
        )

    # -- the rest --------------------------------------------------------------------------------------------

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _resolve_first(
        self,
        owed: Owed,
        request: StatusRequest,
        site: _Site,
        path: str,
        account: Account,
        done: Callable[[Result], None],
    ) -> None:
        """Look the host up, then send."""
        plan = site.plan
        try:
            address = await self._guard.resolve(plan.target.host)
        except Failure as failure:
            shown = _shown(plan, site.prefix + path)
            self._trouble(owed, plan, shown, "", self._clock.now_ms(), failure, done)
            return
        self._send(owed, request, site, path, account, address, done)

    async def _go_round(
        self, owed: Owed, request: StatusRequest, plan: _Plan, account: Account, done: Callable[[Result], None]
    ) -> None:
        """The attempt by GET, or with redirects and log-in."""
        trace = of_attempt(request.traceparent, owed.id, owed.tries)
        outcome = await self._fetcher.once(
            FetchRequest(
                url=plan.url,
                secret=account.auth_token,
                method=request.method,
                params=request.params,
                idempotency_token=idempotency_token(owed.sid, request.token),
                verify_tls=account.verify_tls,
                document=False,
                headers=((HEADER, trace),) if trace else (),
            )
        )
        attempt = outcome.attempts[-1]
        attempt.params, attempt.request_headers = (), {}
        if outcome.error_code:
            self._failed(owed, plan, attempt, done)
        else:
            attempt.response_body, attempt.response_headers = "", {}
            done(Result((_encode(attempt),), True))

    def _trouble(
        self,
        owed: Owed,
        plan: _Plan,
        shown: str,
        address: str,
        started_ms: int,
        answer: Response | Failure,
        done: Callable[[Result], None],
    ) -> None:
        """An attempt of the usual kind failed."""
        attempt = Attempt(shown, "POST", started_ms)
        if isinstance(answer, Failure):
            if answer.kind in ("connect-timeout", "connection-failed") and address:
                self._guard.demote(plan.target.host, address)
            attempt.error_code, attempt.error, attempt.failure = answer.code, str(answer), answer.kind
        else:
            attempt.status, attempt.total_ms = answer.status, answer.timing.total_ms
            attempt.response_body = sample(answer.body)
        self._failed(owed, plan, attempt, done)

    def _failed(self, owed: Owed, plan: _Plan, attempt: Attempt, done: Callable[[Result], None]) -> None:
        """Record a failed attempt, tell the customer the first time, and say whether to repeat it."""
        if attempt.status and not attempt.failure:
            attempt.error_code = CALLBACK_WARNING
            attempt.error = f"the server answered with HTTP status {attempt.status}"
        attempt.response_body = attempt.response_body[:MAX_RECORDED_BODY]
        if not owed.tries:
            self._alert(
                owed, attempt.error_code, attempt.error,
                method=attempt.method, url=attempt.url, body=attempt.response_body,
            )  # fmt: skip
        done(
            Result(
                (_encode(attempt),),
                False,
                retry=may_retry(attempt, plan.overrides if plan.own_policy else None),
                error_code=attempt.error_code,
                error=attempt.error,
                max_tries=plan.overrides.retries + 1 if plan.own_policy else 0,
            )
        )

    def _refused(self, owed: Owed, failure: Failure, done: Callable[[Result], None]) -> None:
        """A URL that cannot be requested at all."""
        self._alert(owed, failure.code, str(failure))
        attempt = Attempt("", "POST", self._clock.now_ms(), error_code=failure.code, error=str(failure))
        attempt.failure = failure.kind
        done(Result((_encode(attempt),), False, error_code=failure.code, error=str(failure)))

    def _alert(self, owed: Owed, code: int, text: str, *, method: str = "POST", url: str = "", body: str = "") -> None:
        self._alerts.raise_(
            owed.account,
            code,
            resource_sid=owed.sid,
            request_method=method,
            request_url=url,
            response_body=body,
            text=text,
        )


def _shown(plan: _Plan, url: str) -> str:
    """The URL for records: the password is left out."""
    return plan.target.shown if plan.target.user or plan.target.password else url


def host_of(url: str) -> str:
    """Scheme and authority of a URL: its delivery lane."""
    end = url.find("/", url.find("//") + 2)
    return (url if end < 0 else url[:end]).partition("#")[0].partition("?")[0]


def idempotency_token(sid: str, token: str) -> str:
    """`I-Twilio-Idempotency-Token`: a UUID that is the same on every attempt of one webhook."""
    digest = sha256(f"{sid}/{token}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def may_retry(attempt: Attempt, own: Overrides | None) -> bool:
    """Whether the policy allows another attempt: the URL's own (`own`), else the default of the module."""
    if own is None:
        client_error = 400 <= attempt.status < 500
        return attempt.failure not in LASTING and (not client_error or attempt.status in PASSING)
    return (status_policy(attempt.status) or _POLICIES.get(attempt.failure, "")) in own.retry_on


_POLICIES = {kind.kind: kind.retry for kind in (HostUnknown, ConnectTimeout, ConnectionFailed, TlsFailed, ReadTimeout)}
