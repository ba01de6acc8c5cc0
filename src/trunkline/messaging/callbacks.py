"""Status callbacks: the handler of owed webhooks of kind `status`.

Two go out per message, so the usual case is one straight piece of code without a task: what depends only on the URL
(target, timeouts, the request's head) is prepared once in a `_Plan`, the body is signed and written to a kept-alive
connection, and `on_done` turns the answer into a `Result`. What is not usual goes to a task: a host whose address is
not known, redirects, authentication.

Policy: without `#rc`/`#rp` in the URL an attempt is repeated (as often as the settings say) unless the answer says that
repeating cannot help: a 4xx other than 408, 425 and 429, or a URL that may not be requested. With them it is exactly
what the customer asked for. A failed first attempt raises an alert, and so does giving up.
Source: Twilio's status callbacks (always POST), connection overrides, warning 15003.
"""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Protocol

import msgspec
import orjson

from trunkline.model.account import Account
from trunkline.model.clock import Clock
from trunkline.settings import Webhooks
from trunkline.storage.queue import Owed
from trunkline.webhooks.connection import Response, Timeouts
from trunkline.webhooks.delivery import Result
from trunkline.webhooks.failures import Failure, HostRefused, InvalidUrl
from trunkline.webhooks.guard import Guard
from trunkline.webhooks.http import Client, Origin
from trunkline.webhooks.overrides import DEFAULTS, RETRY_4XX, RETRY_5XX, Overrides, split
from trunkline.webhooks.params import encode_form
from trunkline.webhooks.sign import signer
from trunkline.webhooks.target import Target, target

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
ELSEWHERE = frozenset({301, 302, 303, 307, 308, 401})
"""Answers that ask for another request: these go through the full client."""

USER_AGENT = "TwilioProxy/1.1"


class StatusRequest(msgspec.Struct):
    """What `outbound.status_callback` stores in `Owed.request`."""

    url: str
    params: list[tuple[str, str]]
    token: str


class AlertSink(Protocol):
    """What is used of `trunkline.messaging.alerts.Alerts`."""

    def raise_(
        self,
        account_sid: str,
        error_code: int,
        *,
        resource_sid: str = "",
        service_sid: str = "",
        request_method: str = "",
        request_url: str = "",
        request_variables: str = "",
        request_headers: str = "",
        response_body: str = "",
        response_headers: str = "",
        text: str = "",
    ) -> str: ...


_decode = msgspec.json.Decoder(StatusRequest).decode


class _Plan:
    """A URL, prepared."""

    __slots__ = ("head", "origin", "overrides", "own_policy", "target", "timeouts")

    def __init__(self, url: str, settings: Webhooks) -> None:
        bare, self.overrides = split(url)
        self.target: Target = target(bare)
        fragment = url.partition("#")[2]
        self.own_policy = "rc=" in fragment or "rp=" in fragment
        self.timeouts = timeouts_of(self.overrides, settings)
        self.head = (
            f"POST {self.target.path} HTTP/1.1\r\nHost: {self.target.host_header}\r\nUser-Agent: {USER_AGENT}\r\n"
            "Accept: */*\r\nContent-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n"
        )
        self.origin: Origin | None = None

    def origin_at(self, address: str, verify: bool) -> Origin:
        """Where to connect to; the last answer is kept."""
        origin = self.origin
        if origin is None or origin.address != address or origin.verify is not verify:
            to = self.target
            origin = self.origin = Origin(to.scheme, to.host, to.port, address, self.overrides.sni, verify)
        return origin


def timeouts_of(overrides: Overrides, settings: Webhooks) -> Timeouts:
    """The settings' timeouts, with what the URL asks for instead."""
    return Timeouts(
        settings.connect_timeout_s if overrides.connect_ms == DEFAULTS.connect_ms else overrides.connect_ms / 1000,
        settings.read_timeout_s if overrides.read_ms == DEFAULTS.read_ms else overrides.read_ms / 1000,
        settings.total_timeout_s if overrides.total_ms == DEFAULTS.total_ms else overrides.total_ms / 1000,
    )


class StatusHandler:
    """See the module. `account_of` is the directory's look-up; `allow_http`: whether plain `http://` is taken."""

    def __init__(
        self,
        client: Client,
        guard: Guard,
        account_of: Callable[[str], Account | None],
        alerts: AlertSink,
        clock: Clock,
        settings: Webhooks,
        *,
        allow_http: bool = True,
    ) -> None:
        self._client = client
        self._guard = guard
        self._account_of = account_of
        self._alerts = alerts
        self._clock = clock
        self._settings = settings
        self._allow_http = allow_http
        self._plans: dict[str, _Plan] = {}
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- Handler ---------------------------------------------------------------------------------------------

    def begin(self, owed: Owed, done: Callable[[Result], None]) -> None:
        """Send one attempt. Next: trunkline.webhooks.delivery.Delivery.settled"""
        try:
            request = _decode(owed.request)
            plan = self._plans.get(request.url) or self._plan(request.url)
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
        address = self._guard.cached(plan.target.host, self._loop.time())
        if address is None:
            self._start(self._resolve_first(owed, request, plan, account, done))
        else:
            self._send(owed, request, plan, account, address, done)

    def exhausted(self, owed: Owed, result: Result) -> None:
        """Given up: an alert, unless the first attempt has just raised it."""
        if owed.tries > 1:
            text = f"status callback given up after {owed.tries} attempts: {result.error}"
            self._alert(owed, result.error_code or CALLBACK_WARNING, text)

    # -- the usual case --------------------------------------------------------------------------------------

    def _plan(self, url: str) -> _Plan:
        """Raises Failure for a URL that may not be requested."""
        plan = _Plan(url, self._settings)
        if plan.target.scheme != "https" and not self._allow_http:
            raise InvalidUrl("plain http:// is not allowed here")
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[url] = plan
        return plan

    def _send(
        self,
        owed: Owed,
        request: StatusRequest,
        plan: _Plan,
        account: Account,
        address: str,
        done: Callable[[Result], None],
    ) -> None:
        body = encode_form(request.params)
        signature = signer(account.auth_token).sign(plan.target.url, request.params)
        head = (
            f"{plan.head}X-Twilio-Signature: {signature}\r\n"
            f"I-Twilio-Idempotency-Token: {idempotency_token(owed.sid, request.token)}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        started_ms = self._clock.now_ms()

        def on_done(answer: Response | Failure) -> None:
            if type(answer) is Response and 200 <= answer.status < 300:
                attempt = b'{"at_ms":%d,"url":%s,"status":%d,"ms":%d}' % (
                    started_ms,
                    orjson.dumps(plan.target.shown),
                    answer.status,
                    answer.timing.total_ms,
                )
                done(Result((attempt,), True))
            else:
                self._trouble(owed, plan, address, started_ms, answer, done)

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
        self, owed: Owed, request: StatusRequest, plan: _Plan, account: Account, done: Callable[[Result], None]
    ) -> None:
        """Look the host up, then send."""
        try:
            address = await self._guard.resolve(plan.target.host)
        except Failure as failure:
            self._trouble(owed, plan, "", self._clock.now_ms(), failure, done)
            return
        self._send(owed, request, plan, account, address, done)

    def _trouble(
        self,
        owed: Owed,
        plan: _Plan,
        address: str,
        started_ms: int,
        answer: Response | Failure,
        done: Callable[[Result], None],
    ) -> None:
        """An attempt that failed: record it, tell the customer the first time, and say whether to repeat it."""
        shown = plan.target.shown
        if isinstance(answer, Failure):
            if answer.retry == "ct" and address:
                self._guard.demote(plan.target.host, address)
            code, text, body = answer.code, str(answer), ""
        else:
            code, text = CALLBACK_WARNING, f"HTTP {answer.status} from {shown}"
            body = answer.body[: 4 * MAX_RECORDED_BODY].decode("utf-8", "replace")[:MAX_RECORDED_BODY]
        result = Result(
            [attempt_record(started_ms, shown, answer, body)],
            False,
            retry=may_retry(answer, plan.overrides if plan.own_policy else None),
            error_code=code,
            error=text,
            max_tries=plan.overrides.retries + 1 if plan.own_policy else 0,
        )
        if not owed.tries:
            self._alert(owed, code, text, url=shown, body=body)
        done(result)

    def _refused(self, owed: Owed, failure: Failure, done: Callable[[Result], None]) -> None:
        """A URL that cannot be requested at all."""
        self._alert(owed, failure.code, str(failure))
        record = orjson.dumps({"at_ms": self._clock.now_ms(), "error": str(failure), "error_code": failure.code})
        done(Result([record], False, error_code=failure.code, error=str(failure)))

    def _alert(self, owed: Owed, code: int, text: str, *, url: str = "", body: str = "") -> None:
        self._alerts.raise_(
            owed.account,
            code,
            resource_sid=owed.sid,
            request_method="POST",
            request_url=url,
            response_body=body,
            text=text,
        )


def idempotency_token(sid: str, token: str) -> str:
    """`I-Twilio-Idempotency-Token`: a UUID that is the same on every attempt of one webhook."""
    digest = sha256(f"{sid}/{token}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def may_retry(answer: Response | Failure, own: Overrides | None) -> bool:
    """Whether the policy allows another attempt: the URL's own (`own`), else the default of the module."""
    if isinstance(answer, Failure):
        return answer.retry in own.retry_on if own else not isinstance(answer, (InvalidUrl, HostRefused))
    client_error = 400 <= answer.status < 500
    if own:
        return (RETRY_4XX if client_error else RETRY_5XX) in own.retry_on
    return not client_error or answer.status in PASSING


def attempt_record(started_ms: int, url: str, answer: Response | Failure, body: str, method: str = "POST") -> bytes:
    """A failed attempt as it is kept with the message: request, answer, timing."""
    record: dict[str, Any] = {"at_ms": started_ms, "method": method, "url": url}
    if isinstance(answer, Failure):
        record |= {"error": str(answer), "error_code": answer.code, "kind": answer.kind}
    else:
        record |= {"status": answer.status, "ms": int(answer.timing.total_ms), "body": body}
    return orjson.dumps(record)
