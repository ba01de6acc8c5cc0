"""The handler of owed webhooks of kind `inbound`: fetch the document a received message asks for, and run it.

`_Conversation.run` is the whole life of one: the primary URL, else the fallback URL with `ErrorCode` and `ErrorUrl`;
then the document's verbs in order. `<Message>` becomes a reply in the outbound line; one with `action=`, and
`<Redirect>`, go on with the document they name, MAX_DOCUMENTS at most. What goes wrong raises an alert and the rest
goes on.

After a crash the webhook is requested again, with the same idempotency token. Replies are taken on once all the same:
their SIDs are derived from the received message and their place in the documents.

Source: Twilio's "TwiML for Programmable Messaging", webhook contract section 7.
"""

import asyncio
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from trunkline.accounts.alerts import Alerts
from trunkline.accounts.callbacks import idempotency_token
from trunkline.accounts.directory import Directory
from trunkline.messaging.inbound import InboundRequest
from trunkline.messaging.optout import can_be_answered
from trunkline.messaging.outbound import NewMessage, Outbound
from trunkline.messaging.reader import Reader, StoredMessage
from trunkline.messaging.reply_limit import ReplyLimit
from trunkline.messaging.services import choose_sender
from trunkline.model import phone
from trunkline.model.account import Account
from trunkline.model.clock import Clock
from trunkline.model.errors import ApiError
from trunkline.model.message import Direction, MediaItem
from trunkline.model.phone import SenderKind
from trunkline.model.sid import MEDIA, MESSAGE_MMS, MESSAGE_SMS, derived_sid, is_sid
from trunkline.settings import Webhooks
from trunkline.storage.database import Database
from trunkline.storage.queue import Exists, Owed
from trunkline.telemetry.traceparent import HEADER
from trunkline.twiml import Document, Message, Redirect, TwimlError, parse, resolve
from trunkline.webhooks.attempt import Attempt
from trunkline.webhooks.delivery import Result
from trunkline.webhooks.failures import HTTP_RETRIEVAL_FAILURE, Closed, Saturated
from trunkline.webhooks.fetch import Fetcher, FetchRequest, Outcome, Session
from trunkline.webhooks.overrides import split
from trunkline.webhooks.params import Params, Place, encode_form, fallback, inbound_message, place_of

MAX_DOCUMENTS = 20
"""Documents of one conversation step, the first included (14106 beyond)."""
MAX_WARNINGS = 10
"""Alerts for warnings about one document."""
MAX_RECORDED_BODY = 4096
"""Characters of a failing answer's body that are kept with the message."""
SESSION_MS = 4 * 3600 * 1000
"""How long the cookies of a conversation (account, sender, number) last, as at Twilio."""
MAX_SESSIONS = 10_000
"""Conversations whose cookies are kept; the longest unused leaves first."""

DOCUMENT_LIMIT = 14106
INVALID_STATUS_CALLBACK = 14105
INVALID_MEDIA = 21620
TOO_MANY_REPLIES = 14107
NOT_OURS = 21606
SENDING, INVALID = "sending", "invalid"
"""`MessageStatus` of the request to an `action` URL."""
ABOUT_THE_MESSAGE = frozenset({"MessageSid", "SmsSid", "SmsStatus"})
PRIVATE = frozenset({"Body"})
"""Parameters that alerts do not repeat: a redaction of the message does not reach alerts."""
UNSENT = frozenset({Closed.kind, Saturated.kind})
"""Failures of our own making: the attempt is repeated, whatever the policy."""

_USERINFO = re.compile(r"//[^/?]*@")

log = logging.getLogger(__name__)
_decode = msgspec.json.Decoder(InboundRequest).decode
_encode = msgspec.json.Encoder().encode


class Interrupted(Exception):
    """We could not do our part now (shutting down, overloaded): the webhook is requested again later."""


class Sessions:
    """Cookies and log-ins of conversations, in memory, bounded in number and in time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str, str], tuple[int, Session]] = OrderedDict()

    def of(self, message: StoredMessage) -> Session:
        """The session of the message's conversation."""
        key = (message.account_sid, message.from_, message.to)
        now = self._clock.now_ms()
        began, session = self._kept.pop(key, (0, None))
        if session is None or now - began > SESSION_MS:
            began, session = now, Session()
        self._kept[key] = (began, session)
        if len(self._kept) > MAX_SESSIONS:
            self._kept.popitem(last=False)
        return session


class InboundHandler:
    """See the module."""

    def __init__(
        self,
        fetcher: Fetcher,
        outbound: Outbound,
        reader: Reader,
        directory: Directory,
        database: Database,
        alerts: Alerts,
        clock: Clock,
        settings: Webhooks,
    ) -> None:
        self.fetcher = fetcher
        self.outbound = outbound
        self.reader = reader
        self.directory = directory
        self.database = database
        self.alerts = alerts
        self.settings = settings
        self.clock = clock
        self.limit = ReplyLimit()
        self._sessions = Sessions(clock)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.get_running_loop()

    def begin(self, owed: Owed, done: Callable[[Result], None]) -> None:
        """Request the document and run it. Next: trunkline.webhooks.delivery.Delivery.settled"""
        task = self._loop.create_task(self._attempt(owed, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def exhausted(self, owed: Owed, result: Result) -> None:
        """What the URLs did wrong has raised its alert already; that we never got to ask is told here."""
        if result.retry:
            code = result.error_code or HTTP_RETRIEVAL_FAILURE
            self.alerts.raise_(owed.account, code, resource_sid=owed.sid, text=f"webhook given up: {result.error}")

    async def _attempt(self, owed: Owed, done: Callable[[Result], None]) -> None:
        attempts: list[bytes] = []
        try:
            result = await self._result(owed, attempts)
        except Interrupted as interruption:
            result = Result(attempts, False, retry=True, error=str(interruption))
        except Exception:
            log.exception("the webhook of %s could not be carried out; it is requested again", owed.sid)
            result = Result(attempts, False, retry=True, error="internal failure")
        done(result)

    async def _result(self, owed: Owed, attempts: list[bytes]) -> Result:
        try:
            request = _decode(owed.request)
        except msgspec.MsgspecError:
            return Result(attempts, False, error="the request is gone")  # blanked by a privacy deletion
        message = await self.reader.get(owed.account, owed.sid)
        account = self.directory.account(owed.account)
        if message is None or account is None:
            return Result(attempts, False, error="the message is gone")
        params = inbound_message(message, to_place=self._place(message.to), opt_out_type=request.opt_out_type)
        conversation = _Conversation(self, account, message, params, self._sessions.of(message), attempts)
        return await conversation.run(request)

    def _place(self, to: str) -> Place:
        """Where our number is, as far as the inventory says."""
        number = self.directory.number(to)
        if number is None:
            return place_of(to)
        return Place(
            number.locality.upper(), number.region.upper(), number.postal_code, number.country or place_of(to).country
        )


class _Conversation:
    """One webhook under way."""

    def __init__(
        self,
        handler: InboundHandler,
        account: Account,
        message: StoredMessage,
        params: Params,
        session: Session,
        attempts: list[bytes],
    ) -> None:
        self._handler = handler
        self._account = account
        self._message = message
        self._params = params
        self._session = session
        self._attempts = attempts
        self._documents = 0
        self._replies = 0

    async def run(self, request: InboundRequest) -> Result:
        """Fetch the first document and follow it to its end."""
        found = await self._first(request)
        if isinstance(found, Result):
            return found
        step: tuple[Document, str] | None = found
        while step is not None:
            step = await self._perform(*step)
        return Result(self._attempts, True)

    # -- documents -------------------------------------------------------------------------------------------

    async def _first(self, request: InboundRequest) -> tuple[Document, str] | Result:
        """The primary URL's document, else the fallback URL's."""
        for code, text in split(request.url)[1].problems:
            self._alert(code, text, url=request.url)
        found = await self._document(request.url, request.method, self._params, self._handler.settings.inbound_tries)
        if isinstance(found, TwimlError) and request.fallback_url:
            shown = split(request.url)[0]
            params = fallback(self._params, error_code=found.code, error_url=shown)
            found = await self._document(request.fallback_url, request.fallback_method, params)
        if isinstance(found, TwimlError):
            return Result(self._attempts, False, error_code=found.code, error=found.message)
        return found

    async def _document(
        self, url: str, method: str, params: Params, tries: int = 1
    ) -> tuple[Document, str] | TwimlError:
        """The document at a URL and where it came from in the end; an error has raised its alert."""
        self._documents += 1
        outcome = await self._fetch(url, method, params, tries)
        answer = outcome.answer
        if outcome.error_code or answer is None:
            error = TwimlError(outcome.error_code or HTTP_RETRIEVAL_FAILURE, outcome.error)
            self._keep(outcome.attempts)
            self._alert(error.code, error.message, attempt=outcome.attempts[-1], params=params)
            return error
        result = parse(answer.body, answer.content_type, limit_bytes=self._handler.settings.response_bytes)
        if isinstance(result, TwimlError):
            attempt = outcome.attempts[-1]
            attempt.error_code, attempt.error = result.code, result.message
            self._keep(outcome.attempts)
            place = f" (line {result.line}, column {result.column})" if result.line else ""
            self._alert(result.code, result.message + place, attempt=attempt, params=params)
            return result
        self._keep(outcome.attempts)
        for warning in result.warnings[:MAX_WARNINGS]:
            place = f" (line {warning.line}, column {warning.column})" if warning.line else ""
            self._alert(warning.code, warning.message + place, attempt=outcome.attempts[-1], params=params)
        return result, answer.url

    async def _fetch(self, url: str, method: str, params: Params, tries: int) -> Outcome:
        trace = self._message.traceparent
        request = FetchRequest(
            url=url,
            secret=self._account.auth_token,
            method=method,
            params=params,
            idempotency_token=idempotency_token(self._message.sid, f"document/{self._documents}"),
            verify_tls=self._account.verify_tls,
            cache_scope=self._account.sid,
            session=self._session,
            headers=((HEADER, trace),) if trace else (),
        )
        attempts: list[Attempt] = []
        for _ in range(tries):
            outcome = await self._handler.fetcher.fetch(request)
            attempts += outcome.attempts
            if outcome.attempts[-1].failure in UNSENT:
                self._keep(outcome.attempts)
                raise Interrupted(outcome.error)
            if not outcome.error_code or 400 <= outcome.attempts[-1].status < 500:
                break
        outcome.attempts = attempts
        return outcome

    def _keep(self, attempts: Sequence[Attempt]) -> None:
        """Record attempts with the message. What a good answer held is not kept: the replies are messages themselves,
        and deleted as such."""
        for attempt in attempts:
            body = attempt.response_body[:MAX_RECORDED_BODY] if attempt.error_code else ""
            self._attempts.append(_encode(msgspec.structs.replace(attempt, response_body=body)))

    # -- verbs -----------------------------------------------------------------------------------------------

    async def _perform(self, document: Document, url: str) -> tuple[Document, str] | None:
        """Run a document's verbs; the document to go on with, None at the end."""
        for verb in document.verbs:
            if isinstance(verb, Redirect):
                return await self._go_on(resolve(url, verb.url), verb.method, self._params)
            if isinstance(verb, Message):
                sid, status = await self._reply(verb, url)
                if verb.action:
                    return await self._go_on(resolve(url, verb.action), verb.method, self._about(sid, status))
        return None

    async def _go_on(self, url: str | None, method: str, params: Params) -> tuple[Document, str] | None:
        if url is None:
            self._alert(HTTP_RETRIEVAL_FAILURE, "the document names a URL that is none")
            return None
        if self._documents >= MAX_DOCUMENTS:
            self._alert(DOCUMENT_LIMIT, f"more than {MAX_DOCUMENTS} documents for one message", url=url)
            return None
        found = await self._document(url, method, params)
        return None if isinstance(found, TwimlError) else found

    def _about(self, sid: str, status: str) -> Params:
        """The parameters of a request to an `action` URL."""
        rest = [(name, value) for name, value in self._params if name not in ABOUT_THE_MESSAGE]
        return [("MessageSid", sid), ("MessageStatus", status), ("SmsSid", sid), ("SmsStatus", status), *rest]

    async def _reply(self, verb: Message, url: str) -> tuple[str, str]:
        """Take a reply on; its SID and `sending`, or `invalid` where it was refused."""
        name = f"reply/{self._replies}"
        self._replies += 1
        sid = derived_sid(MESSAGE_MMS if verb.media else MESSAGE_SMS, self._message.sid, name)
        if await self._handler.reader.get(self._account.sid, sid) is not None:
            return sid, SENDING  # taken on by an attempt that a crash cut short
        try:
            new = await self._new(verb, url, sid)
            new.token, new.traceparent = f"{self._message.sid}:{name}", self._message.traceparent
            _, written = self._handler.outbound.accept(new)
            await written
        except Exists:
            pass
        except ApiError as refused:
            self._alert(refused.code or 0, refused.message, url=url)
            return sid, INVALID
        return sid, SENDING

    async def _new(self, verb: Message, url: str, sid: str) -> NewMessage:
        """The reply that a verb asks for. Raises ApiError."""
        message = self._message
        to = phone.parse_to(verb.to) if verb.to else message.from_
        if not can_be_answered(to):
            raise ApiError.of(21211, to=to)
        new = NewMessage(
            account_sid=self._account.sid,
            from_=message.to,
            to=to,
            body=verb.body,
            direction=Direction.OUTBOUND_REPLY,
            sid=sid,
            media=self._media(verb, url, sid),
        )
        if verb.from_:
            await self._sender(new, verb.from_)
        directory = self._handler.directory
        ours = directory.number(to) or directory.short_code(to)
        if ours is not None and not self._handler.limit.take(new.from_, to, self._handler.clock.now_ms()):
            raise ApiError.of(TOO_MANY_REPLIES)
        if verb.status_callback:
            callback = resolve(url, verb.status_callback)
            if callback is None:
                self._alert(
                    INVALID_STATUS_CALLBACK, f"statusCallback {verb.status_callback[:200]!r} is no URL", url=url
                )
            else:
                new.status_callback = callback
        return new

    def _media(self, verb: Message, url: str, sid: str) -> list[MediaItem]:
        items: list[MediaItem] = []
        for index, reference in enumerate(verb.media):
            absolute = resolve(url, reference)
            if absolute is None:
                raise ApiError.of(INVALID_MEDIA, url=reference)
            items.append(MediaItem(derived_sid(MEDIA, sid, f"media/{index}"), "", split(absolute)[0]))
        return items

    async def _sender(self, new: NewMessage, text: str) -> None:
        """The sender that `from=` names: one of the account's own, or of a service's pool. Raises ApiError."""
        directory = self._handler.directory
        if is_sid(text, "MG"):
            service = directory.service(text)
            if service is None or service.account_sid != self._account.sid:
                raise ApiError.of(21701)
            chosen = await choose_sender(directory, self._handler.database, service, new.to)
            if chosen is None:
                raise ApiError.of(21703 if directory.senders(service.sid) else 21704)
            new.from_, new.messaging_service_sid = chosen.address, service.sid
            return
        sender = phone.parse_from(text)
        if sender.kind is not SenderKind.ALPHANUMERIC:
            owned = directory.owned_sender(self._account.sid, sender.address)
            if owned is None or not getattr(owned, "sms_enabled", True):
                raise ApiError.of(NOT_OURS, from_=sender.address)
        new.from_ = sender.address

    # -- alerts ----------------------------------------------------------------------------------------------

    def _alert(
        self, code: int, text: str, *, url: str = "", attempt: Attempt | None = None, params: Params | None = None
    ) -> None:
        shown = [(name, value) for name, value in params or () if name not in PRIVATE]
        self._handler.alerts.raise_(
            self._account.sid,
            code,
            resource_sid=self._message.sid,
            service_sid=self._message.messaging_service_sid,
            request_method=attempt.method if attempt else "",
            request_url=attempt.url if attempt else _USERINFO.sub("//", split(url)[0]),
            request_variables=encode_form(shown),
            request_headers=encode_form(attempt.request_headers.items()) if attempt else "",
            response_body=attempt.response_body if attempt else "",
            response_headers=encode_form(attempt.response_headers.items()) if attempt else "",
            text=text,
        )
