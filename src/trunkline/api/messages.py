"""Messages: create, list, fetch, update (redact, cancel), delete.

Source: spec `api.v2010.account.message`; error codes and texts from Twilio's dictionary.
"""

from collections.abc import Awaitable
from typing import Any

from trunkline.api import anew, dates, paging, respond
from trunkline.api.homes import HOME
from trunkline.api.idempotency import Claim
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.inflight.store import Live
from trunkline.messaging.outbound import NewMessage
from trunkline.messaging.reader import StoredMessage
from trunkline.messaging.services import choose_sender, fallback_sender
from trunkline.model import message as message_codec
from trunkline.model import phone
from trunkline.model.account import Account
from trunkline.model.errors import ApiError
from trunkline.model.message import TERMINAL, MediaItem, Message, Status
from trunkline.model.numbers import MessagingService, ScheduledMessage
from trunkline.model.phone import SenderKind
from trunkline.model.sid import MEDIA, derived_sid, is_sid, new_sid
from trunkline.storage.database import Duplicate
from trunkline.storage.queue import Replay
from trunkline.webhooks.overrides import split as split_overrides

MAX_BODY = 1600
"""Characters of a message body (21617)."""
MAX_MEDIA = 10
"""Media files of one message (21623)."""
MAX_VALIDITY_S = 36_000
_UNSENT = frozenset({Status.ACCEPTED, Status.SCHEDULED})
_NOT_HERE = ("ContentSid", "ContentVariables", "PersistentAction")


def render(message: Message, status: str) -> dict[str, Any]:
    """The resource as the API shows it."""
    account_sid, sid = message.account_sid, message.sid
    uri = f"/2010-04-01/Accounts/{account_sid}/Messages/{sid}"
    price = message.price
    if price:
        price = price if message.direction == "inbound" and float(price) == 0 else f"-{price}"
    return {
        "body": message.body,
        "num_segments": str(message.num_segments),
        "direction": message.direction,
        "from": None if status in _UNSENT and message.messaging_service_sid else message.from_ or None,
        "to": message.to,
        "date_updated": dates.rfc2822(message.updated_ms or message.created_ms),
        "price": price or None,
        "error_message": message.error_message or None,
        "uri": uri + ".json",
        "account_sid": account_sid,
        "num_media": str(len(message.media)),
        "status": status,
        "messaging_service_sid": message.messaging_service_sid or None,
        "sid": sid,
        "date_sent": dates.rfc2822(message.sent_ms) if message.sent_ms else None,
        "date_created": dates.rfc2822(message.created_ms),
        "error_code": message.error_code or None,
        "price_unit": message.price_unit or "USD",
        "api_version": "2010-04-01",
        "subresource_uris": {"media": uri + "/Media.json", "feedback": uri + "/Feedback.json"},
    }


# -- create ------------------------------------------------------------------------------------------------------


async def create(request: Request, app: Services) -> Response:
    """POST Messages: 201 once the message is durably accepted."""
    to_text = request.required("To", 100, code=21604)
    service = _service(request, app)
    from_text = request.str("From", 100) or ""
    if not from_text and service is None:
        raise ApiError.of(21603)
    body, media_urls = _content(request)
    to = phone.parse_to(to_text)
    sender = phone.parse_from(from_text) if from_text else None
    if request.principal.is_test:
        return _test_answer(request, app, sender.address if sender else None, to, body)
    new = NewMessage(account_sid=request.account_sid, from_=sender.address if sender else "", to=to, body=body)
    _options(request, app, new, service, media_urls)
    if sender is not None:
        _check_sender(app, request.account, sender.kind, sender.address, to, service)
    send_at = _schedule(request, service)
    if send_at:
        return await _scheduled(request, app, new, send_at)
    if sender is None and service is not None:
        chosen = await choose_sender(app.directory, app.database, service, to)
        if chosen is None:
            raise ApiError.of(21703 if app.directory.senders(service.sid) else 21704)
        new.from_ = chosen.address
        second = fallback_sender(service, app.directory.senders(service.sid), chosen.address, to)
        new.fallback_from = second.address if second else new.fallback_from
    return await _accept(request, app, new)


def _accept(request: Request, app: Services, new: NewMessage) -> Awaitable[Response]:
    """Hand the message to the pipeline; the idempotency row is completed in the same commit."""
    claim = request.idempotency
    prepared: list[Response] = []

    def complete(message: Message) -> Replay | None:
        status = Status.ACCEPTED if message.messaging_service_sid else Status.QUEUED
        response = respond.resource(request.format, render(message, status), "Message", 201)
        prepared.append(response)
        return claim.completed(response, message.sid, app.clock.now_ms()) if claim else None

    _, written = app.outbound.accept(new, complete)

    async def wait() -> Response:
        try:
            await written
        except anew.GONE:
            if claim is not None:
                raise  # only its own home may take it
            await anew.accepted(lambda: app.outbound.accept(new, complete)[1])
        return prepared[-1]

    return wait()


def _service(request: Request, app: Services) -> MessagingService | None:
    sid = request.str("MessagingServiceSid", 64)
    if not sid:
        return None
    service = app.directory.service(sid) if is_sid(sid, "MG") else None
    if service is None or service.account_sid != request.account_sid:
        if request.principal.is_test:
            return None
        raise ApiError.of(21701)
    return service


def _content(request: Request) -> tuple[str, list[str]]:
    """Body and media URLs; one of them must be there."""
    for name in _NOT_HERE:
        if request.str(name):
            raise ApiError(501, None, f"{name} exists at Twilio, but this server does not offer it")
    body = request.str("Body", 64_000, default="")
    if len(body) > MAX_BODY:
        raise ApiError.of(21617)
    urls = request.list("MediaUrl", code=21623)
    if len(urls) > MAX_MEDIA:
        raise ApiError.of(21623)
    if urls and not all(url.lower().startswith(("http://", "https://")) and len(url) <= 4000 for url in urls):
        raise ApiError.of(21620)
    if not body and not urls:
        raise ApiError.of(21602)
    return body, urls


def _options(
    request: Request, app: Services, new: NewMessage, service: MessagingService | None, media_urls: list[str]
) -> None:
    new.token, new.traceparent = request.token, request.traceparent
    callback = request.url("StatusCallback", code=21609) or ""
    application_sid = request.str("ApplicationSid", 64)
    if application_sid:
        application = app.directory.application(application_sid)
        if application is None or application.account_sid != request.account_sid:
            raise ApiError.of(21218)
        new.application_sid = application_sid
        callback = application.message_status_callback or application.sms_status_callback or callback
    new.smart_encoded = bool(request.bool("SmartEncoded", False))
    if service is not None:
        new.messaging_service_sid = service.sid
        new.announce = True
        callback = callback or service.status_callback
        new.validity_s = service.validity_period
        new.smart_encoded = new.smart_encoded or service.smart_encoding
    new.status_callback = callback
    new.validity_s = request.int("ValidityPeriod", 1, MAX_VALIDITY_S, code=21624) or new.validity_s
    fallback = request.str("FallbackFrom", 100)
    if fallback:
        second = phone.parse_from(fallback)
        if second.kind is not SenderKind.ALPHANUMERIC and not _may_send(app, request.account_sid, second.address):
            raise ApiError.of(21606, from_=second.address)
        new.fallback_from = second.address
    new.media = [MediaItem(sid=new_sid(MEDIA), content_type="", url=split_overrides(url)[0]) for url in media_urls]


def _may_send(app: Services, account_sid: str, address: str) -> bool:
    """Whether a number or short code is the account's own, for messages."""
    found = app.directory.owned_sender(account_sid, address)
    return found is not None and bool(getattr(found, "sms_enabled", True))


def _check_sender(
    app: Services, account: Account, kind: SenderKind, address: str, to: str, service: MessagingService | None
) -> None:
    """The sender must be the account's own (21606); alphanumeric ones belong to nobody."""
    if kind is SenderKind.ALPHANUMERIC:
        return
    if not _may_send(app, account.sid, address):
        raise ApiError.of(21606, from_=address)
    if address == to:
        raise ApiError.of(21266, message="'To' and 'From' number cannot be the same")
    if service is not None and all(sender.address != address for sender in app.directory.senders(service.sid)):
        raise ApiError.of(21711)


def _test_answer(request: Request, app: Services, from_: str | None, to: str, body: str) -> Response:
    """Test credentials: the magic numbers' errors, else a message that goes nowhere."""
    phone.check_magic_message(from_, to)
    now = app.clock.now_ms()
    message = Message(
        sid=new_sid("SM"), account_sid=request.account_sid, direction=message_codec.Direction.OUTBOUND_API,
        from_=from_ or "", to=to, body=body, created_ms=now, updated_ms=now,
    )  # fmt: skip
    return respond.resource(request.format, render(message, Status.QUEUED), "Message", 201)


# -- scheduling --------------------------------------------------------------------------------------------------


def _schedule(request: Request, service: MessagingService | None) -> int:
    """Unix ms of SendAt, 0 when the message goes out now. Raises 35111, 35114 (no instant), 35118, 35126."""
    kind = request.str("ScheduleType", 20)
    send_at = request.instant_ms("SendAt", code=35114)
    if not kind and send_at is None:
        return 0
    if kind and kind.lower() != "fixed":
        raise ApiError.of(35126)
    if send_at is None or not kind:
        raise ApiError.of(35111)
    if service is None:
        raise ApiError.of(35118)
    return send_at


async def _scheduled(request: Request, app: Services, new: NewMessage, send_at_ms: int) -> Response:
    """Keep the message in the Database until its time comes (DESIGN: scheduled work is not in flight). Raises 35114."""
    claim = request.idempotency
    if claim is not None:
        new.sid, *former = _sids(claim, "MM" if new.media else "SM", send_at_ms, app.clock.now_ms())
        kept = await _kept(app, claim, new.sid, *former)
        if kept is not None:
            return _known(request, claim, kept)
    ahead_s = (send_at_ms - app.clock.now_ms()) / 1000
    settings = app.settings.messaging
    if not settings.schedule_min_s - 1 <= ahead_s <= settings.schedule_max_s:
        raise ApiError.of(35114)
    message = app.outbound.draft(new)
    message.send_at_ms = send_at_ms
    record = ScheduledMessage(
        sid=message.sid,
        account_sid=message.account_sid,
        created_ms=message.created_ms,
        updated_ms=message.created_ms,
        send_at_ms=send_at_ms,
        record=message_codec.encode(message).decode(),
        recipient=message.to,
        sender=message.from_,
    )
    try:
        await app.database.insert(record)
    except Duplicate:
        # Committed by an earlier attempt that did not hear of it.
        kept = None if claim is None else await _kept(app, claim, message.sid)
        if claim is None or kept is None:
            raise
        return _known(request, claim, kept)
    if claim is not None:
        claim.row.sid = message.sid
    return respond.resource(request.format, render(message, Status.SCHEDULED), "Message", 201)


def _sids(claim: Claim, prefix: str, send_at_ms: int, now_ms: int) -> tuple[str, str]:
    """The SID of the message that a request with a key schedules now, and the one that it had a key's life ago.

    The record and the key's row lie in two stores: after a crash between the two commits nothing but the SID tells the
    next attempt that the message is there. So it is made of the request, its key, the key's home and, in place of the
    present, the beginning of the current span: spans are as long as a key's life, counted back from SendAt. When the
    key is new again, another span has begun.
    """
    life_ms, shard = max(1, claim.retention_ms), HOME.get() or 0
    began_ms = now_ms - (now_ms - send_at_ms) % life_ms
    name = f"{claim.row.fingerprint.hex()}/{claim.row.key}"
    current, former = (
        derived_sid(prefix, f"{prefix}{at_ms:012x}{shard:02x}", name) for at_ms in (began_ms, began_ms - life_ms)
    )
    return current, former


async def _kept(app: Services, claim: Claim, *sids: str) -> StoredMessage | None:
    """The message that an earlier attempt of this request scheduled, within the key's life."""
    for sid in sids:
        found = await app.reader.find(claim.row.account, sid)
        if found is not None and found.created_ms > app.clock.now_ms() - claim.retention_ms:
            return found
    return None


def _known(request: Request, claim: Claim, kept: StoredMessage) -> Response:
    claim.row.sid = kept.sid
    return respond.resource(request.format, render(kept, kept.status), "Message", 201)


# -- read --------------------------------------------------------------------------------------------------------


async def find(request: Request, app: Services) -> StoredMessage:
    """The message that the path names; raises 20404."""
    sid = request.params.get("MessageSid") or request.params["Sid"]
    if is_sid(sid, "SM", "MM"):
        found = await app.reader.find(request.account_sid, sid)
        if found is not None:
            return found
    raise ApiError.not_found(request.path)


async def fetch(request: Request, app: Services) -> Response:
    """GET Messages/{Sid}."""
    message = await find(request, app)
    return respond.resource(request.format, render(message, message.status), "Message")


async def list_(request: Request, app: Services) -> Response:
    """GET Messages, newest first, with To, From and DateSent filters."""
    asked = paging.read(request)
    filters: dict[str, Any] = {}
    for name, key in (("To", "to"), ("From", "from")):
        value = request.str(name, 100)
        if value:
            filters[key] = phone.to_e164(value) or value
    since, until = request.range_ms("DateSent")
    if since is not None:
        filters["sent_ge_ms"] = since
    if until is not None:
        filters["sent_lt_ms"] = until
    found = await app.reader.page(
        request.account_sid, older_than=asked.after, newer_than=asked.before, limit=asked.size + 1, filters=filters
    )
    shown, next_token, previous = paging.cut(found, asked, lambda message: message.sid[2:])
    items = [render(message, message.status) for message in shown]
    return paging.render(request, asked, paging.Page("messages", "Message", items, next_token, previous))


# -- change ------------------------------------------------------------------------------------------------------


async def update(request: Request, app: Services) -> Response:
    """POST Messages/{Sid}: `Status=canceled` stops a message that has not gone out, `Body=` redacts one that has."""
    message = await find(request, app)
    status = request.enum("Status", ("canceled",))
    if status:
        await _cancel(request, app, message)
    elif request.has("Body"):
        if request.str("Body"):
            raise ApiError.invalid("Body", "must be empty: a message can only be redacted")
        if Status(message.status) not in TERMINAL and message.status != Status.SENT:
            raise ApiError.of(20009)
        await app.privacy.redact(message)
    else:
        raise ApiError.missing("Status")
    return await fetch(request, app)


async def _cancel(request: Request, app: Services, message: StoredMessage) -> None:
    scheduled = await app.database.get(ScheduledMessage, message.sid)
    if scheduled is not None and message.status == Status.SCHEDULED:
        await app.scheduler.cancel(scheduled)
        return
    live: Live | None = None if message.landed else await app.inflight.find(message.account_sid, message.sid)
    if live is None or not await app.outbound.cancel(live):
        raise ApiError.of(30409)


async def delete(request: Request, app: Services) -> Response:
    """DELETE Messages/{Sid}: gone for every reader at once; the bytes follow within a day."""
    message = await find(request, app)
    if Status(message.status) not in TERMINAL and message.status != Status.SENT:
        raise ApiError.of(20009)
    await app.privacy.delete(message)
    return respond.no_content()


_LIST = "/2010-04-01/Accounts/{AccountSid}/Messages"
ROUTES = (
    Route("api", "POST", _LIST, create, test_credentials=True),
    Route("api", "GET", _LIST, list_),
    Route("api", "GET", _LIST + "/{Sid}", fetch),
    Route("api", "POST", _LIST + "/{Sid}", update),
    Route("api", "DELETE", _LIST + "/{Sid}", delete),
)
