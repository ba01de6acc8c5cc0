"""Calls: create, list, fetch, update (redirect, end), delete.

Parameters are checked for form here; who may call whom is `trunkline.voice.calls`' business. Machine detection is not
there yet: such calls are made, `answered_by` becomes `unknown`, and an alert says so. `ClientNotificationUrl` and
`CallToken` change nothing.

Source: spec `api.v2010.account.call`; error codes and texts from Twilio's dictionary.
"""

import asyncio
import re
from collections.abc import Awaitable, Collection
from decimal import Decimal
from typing import Any

from trunkline.api import anew, dates, paging, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model import phone
from trunkline.model.call import TERMINAL, Call, Direction, Status
from trunkline.model.errors import ApiError
from trunkline.model.sid import CALL, is_sid, new_sid
from trunkline.model.sip_trunk import CUSTOMER_TRUNK
from trunkline.storage.queue import Replay
from trunkline.voice.calls import MAX_TWIML, CallChange, Calls, NewCall
from trunkline.voice.reader import StoredCall

MAX_TIMEOUT_S = 600
"""Longest ringing (Twilio: 600)."""
MAX_DIGITS = 32
"""Characters of SendDigits (21206)."""
MAX_TIME_LIMIT_S = 86_400
"""Longest TimeLimit that is taken; the settings' own bound applies to what is longer."""
MAX_ADDRESS = 2048
"""Characters of To and From: a SIP URI may carry 1024 of headers (21227)."""
END_WAIT_S = 2.0
"""How long the answer to an update that ends a call waits for the end, so that it shows it."""
END_POLL_S = 0.01
EVENTS = ("initiated", "ringing", "answered", "completed")
RECORDING_EVENTS = ("in-progress", "completed", "absent")
CHANNELS = {"mono": 1, "dual": 2}
TRACKS = ("inbound", "outbound", "both")
TRIMS = ("trim-silence", "do-not-trim")
SHOWN = ("queued", "ringing", "in-progress", "canceled", "completed", "failed", "busy", "no-answer")
"""Statuses that the API shows and filters by."""
NOT_HERE = ("Byoc",)
INVALID_URL, INVALID_DIGITS, INVALID_TIMEOUT, INVALID_METHOD = 21205, 21206, 21208, 21209
INVALID_CALLBACK, INVALID_EVENT, NO_FROM, NO_TO = 21609, 21626, 21213, 21201
INVALID_DETECTION = 21234

_DIGITS = re.compile(rf"[0-9A-Da-d#*wW]{{0,{MAX_DIGITS}}}", re.ASCII)
_NORTH_AMERICAN = re.compile(r"\+1([0-9]{3})([0-9]{3})([0-9]{4})", re.ASCII)
_SUBRESOURCES = {
    "notifications": "Notifications", "recordings": "Recordings", "payments": "Payments", "events": "Events",
    "siprec": "Siprec", "streams": "Streams", "transcriptions": "Transcriptions",
    "user_defined_message_subscriptions": "UserDefinedMessageSubscriptions",
    "user_defined_messages": "UserDefinedMessages",
}  # fmt: skip


def service(app: Services) -> Calls:
    """The part that knows calls. Raises 501 where the server has no voice (`sip.enabled = false`)."""
    if app.calls is None:
        raise ApiError(501, None, "Voice is not enabled on this server: its operator has to set sip.enabled")
    return app.calls


# -- as it is shown ----------------------------------------------------------------------------------------------


def formatted(address: str) -> str:
    """`(415) 867-5308` for North American numbers, anything else as it is."""
    match = _NORTH_AMERICAN.fullmatch(address)
    return f"({match[1]}) {match[2]}-{match[3]}" if match else address


def render(call: Call, status: str) -> dict[str, Any]:
    """The resource as the API shows it."""
    uri = f"/2010-04-01/Accounts/{call.account_sid}/Calls/{call.sid}"
    ended = bool(call.ended_ms)
    trunk = call.extra.get(CUSTOMER_TRUNK)
    return {
        "account_sid": call.account_sid,
        "annotation": None,
        "answered_by": call.answered_by or None,
        "api_version": call.api_version,
        "caller_name": call.caller_name or None,
        "date_created": dates.rfc2822(call.created_ms),
        "date_updated": dates.rfc2822(call.updated_ms or call.created_ms),
        "direction": trunk["direction"] if trunk else call.direction,
        "duration": str(call.duration_s) if ended else None,
        "end_time": dates.rfc2822(call.ended_ms) if ended else None,
        "forwarded_from": call.forwarded_from or None,
        "from": call.from_,
        "from_formatted": formatted(call.from_),
        "group_sid": None,
        "parent_call_sid": call.parent_sid or None,
        "phone_number_sid": call.phone_number_sid or None,
        "price": amount(call.price),
        "price_unit": call.price_unit or "USD",
        "queue_time": str(call.queue_time_ms),
        "sid": call.sid,
        "start_time": dates.rfc2822(call.started_ms) if call.started_ms else None,
        "status": Status.QUEUED if status == Status.INITIATED else status,
        "subresource_uris": {name: f"{uri}/{path}.json" for name, path in _SUBRESOURCES.items()},
        "to": call.to,
        "to_formatted": formatted(call.to),
        "trunk_sid": trunk["sid"] if trunk else None,
        "uri": uri + ".json",
    }


def amount(price: str) -> str | None:
    """A price as the API shows it: five decimals, negative (it is taken from the account)."""
    return f"{-Decimal(price) or Decimal(0):.5f}" if price else None


# -- create ------------------------------------------------------------------------------------------------------


async def create(request: Request, app: Services) -> Response:
    """POST Calls: 201 once the call is durably accepted; it is placed when its account's turn comes."""
    new = NewCall(
        account_sid=request.account_sid,
        to=request.required("To", MAX_ADDRESS, code=NO_TO),
        from_=request.required("From", MAX_ADDRESS, code=NO_FROM),
        caller_id=request.str("CallerId", MAX_ADDRESS) or "",
        token=request.token,
        traceparent=request.traceparent,
    )
    for name in NOT_HERE:
        if request.str(name):
            raise ApiError(501, None, f"{name} exists at Twilio, but this server does not offer it")
    _document(request, new)
    _progress(request, new)
    _recording(request, new)
    _machine_detection(request, new)
    if request.principal.is_test:
        return _test_answer(request, app, new)
    return await _accept(request, service(app), app, new)


def _accept(request: Request, calls: Calls, app: Services, new: NewCall) -> Awaitable[Response]:
    """Hand the call over; the idempotency row is completed in the same commit."""
    claim = request.idempotency
    prepared: list[Response] = []

    def complete(call: Call) -> Replay | None:
        response = respond.resource(request.format, render(call, Status.QUEUED), "Call", 201)
        prepared.append(response)
        return claim.completed(response, call.sid, app.clock.now_ms()) if claim else None

    _, written = calls.create(new, complete)

    async def wait() -> Response:
        try:
            await written
        except anew.GONE:
            if claim is not None:
                raise  # only its own home may take it
            await anew.accepted(lambda: calls.create(new, complete)[1])
        return prepared[-1]

    return wait()


def _document(request: Request, new: NewCall) -> None:
    """Url, Twiml or ApplicationSid, in that order of Twilio's: one of them must be there (21205)."""
    new.url = request.url("Url", code=INVALID_URL) or ""
    new.method = request.method_of("Method", code=INVALID_METHOD) or "POST"
    new.fallback_url = request.url("FallbackUrl", code=INVALID_URL) or ""
    new.fallback_method = request.method_of("FallbackMethod", code=INVALID_METHOD) or "POST"
    new.twiml = request.str("Twiml", 4 * MAX_TWIML) or ""  # too long a one has a code of its own
    new.application_sid = request.str("ApplicationSid", 64) or ""
    if not (new.url or new.twiml or new.application_sid):
        raise ApiError.of(INVALID_URL)


def callback_url(request: Request, name: str) -> str | None:
    """A status callback's URL; empty clears it. Host names with underscores are refused, as at Twilio (21609)."""
    url = request.url(name, code=INVALID_CALLBACK)
    if url and "_" in url.partition("://")[2].partition("/")[0].rpartition("@")[2].partition("#")[0]:
        raise ApiError.of(INVALID_CALLBACK, url=url)
    return url


def _progress(request: Request, new: NewCall) -> None:
    """How the call goes: callbacks, ringing, limits, keys, the login of a SIP call."""
    new.status_callback = callback_url(request, "StatusCallback") or ""
    new.status_callback_method = request.method_of("StatusCallbackMethod", code=INVALID_METHOD) or "POST"
    new.status_callback_events = events(request, "StatusCallbackEvent", EVENTS)
    digits = request.str("SendDigits", 200) or ""
    if _DIGITS.fullmatch(digits) is None:
        raise ApiError.of(INVALID_DIGITS)
    new.send_digits = digits
    new.timeout_s = request.int("Timeout", 1, MAX_TIMEOUT_S, code=INVALID_TIMEOUT) or new.timeout_s
    new.time_limit_s = request.int("TimeLimit", 1, MAX_TIME_LIMIT_S) or 0
    new.call_reason = request.str("CallReason", 50) or ""
    new.sip_auth_username = request.str("SipAuthUsername") or ""
    new.sip_auth_password = request.str("SipAuthPassword") or ""


def events(request: Request, name: str, allowed: Collection[str]) -> tuple[str, ...]:
    """Events that are told, in the order in which they happen: repeated parameters, or one with blanks (21626)."""
    sent = {event for value in request.list(name) for event in value.lower().replace(",", " ").split()}
    if not sent <= set(allowed):
        raise ApiError.of(INVALID_EVENT, allowed=", ".join(allowed))
    return tuple(event for event in allowed if event in sent)


def _recording(request: Request, new: NewCall) -> None:
    new.record = bool(request.bool("Record", False))
    new.record_channels = CHANNELS[request.enum("RecordingChannels", CHANNELS) or "mono"]
    new.record_track = request.enum("RecordingTrack", TRACKS) or "both"
    new.record_trim = request.enum("Trim", TRIMS) or "trim-silence"
    new.recording_status_callback = callback_url(request, "RecordingStatusCallback") or ""
    new.recording_status_callback_method = (
        request.method_of("RecordingStatusCallbackMethod", code=INVALID_METHOD) or "POST"
    )
    new.recording_status_callback_events = events(request, "RecordingStatusCallbackEvent", RECORDING_EVENTS)


def _machine_detection(request: Request, new: NewCall) -> None:
    """Checked as Twilio does (21234); with SendDigits it is ignored there too."""
    detection = request.enum("MachineDetection", ("Enable", "DetectMessageEnd"), code=INVALID_DETECTION)
    for name, low, high in (
        ("MachineDetectionTimeout", 0, 59),
        ("MachineDetectionSpeechThreshold", 1000, 6000),
        ("MachineDetectionSpeechEndThreshold", 500, 5000),
        ("MachineDetectionSilenceTimeout", 2000, 10_000),
    ):
        request.int(name, low, high, code=INVALID_DETECTION)
    if detection and not new.send_digits:
        new.machine_detection = detection
        new.async_amd = bool(request.bool("AsyncAmd", False))
    new.async_amd_status_callback = callback_url(request, "AsyncAmdStatusCallback") or ""
    new.async_amd_status_callback_method = (
        request.method_of("AsyncAmdStatusCallbackMethod", code=INVALID_METHOD) or "POST"
    )


def _test_answer(request: Request, app: Services, new: NewCall) -> Response:
    """Test credentials: the magic numbers' errors, else a call that goes nowhere."""
    to, from_ = (phone.to_e164(text) or text for text in (new.to, new.from_))
    phone.check_magic_call(from_, to)
    now = app.clock.now_ms()
    call = Call(
        sid=new_sid(CALL, now), account_sid=request.account_sid, direction=Direction.OUTBOUND_API, from_=from_, to=to,
        created_ms=now, updated_ms=now,
    )  # fmt: skip
    return respond.resource(request.format, render(call, Status.QUEUED), "Call", 201)


# -- read --------------------------------------------------------------------------------------------------------


async def find(request: Request, app: Services) -> StoredCall:
    """The call that the path names; raises 20404."""
    sid = request.params.get("CallSid") or request.params["Sid"]
    if is_sid(sid, CALL):
        found = await service(app).get(request.account_sid, sid)
        if found is not None:
            return found
    raise ApiError.not_found(request.path)


async def fetch(request: Request, app: Services) -> Response:
    """GET Calls/{Sid}."""
    return _answer(request, await find(request, app))


def _answer(request: Request, call: StoredCall) -> Response:
    return respond.resource(request.format, render(call, call.status), "Call")


async def list_(request: Request, app: Services) -> Response:
    """GET Calls, newest first, with To, From, ParentCallSid, Status, StartTime and EndTime filters."""
    asked = paging.read(request)
    filters: dict[str, Any] = {}
    for name, key in (("To", "to"), ("From", "from")):
        value = request.str(name, MAX_ADDRESS)
        if value:
            filters[key] = phone.to_e164(value) or value
    parent = request.str("ParentCallSid", 64)
    if parent:
        filters["parent"] = parent
    status = request.enum("Status", SHOWN)
    if status:
        filters["status"] = status
    for name, key in (("StartTime", "started"), ("EndTime", "ended")):
        since, until = request.range_ms(name)
        if since is not None:
            filters[key + "_ge_ms"] = since
        if until is not None:
            filters[key + "_lt_ms"] = until
    found = await service(app).page(
        request.account_sid, older_than=asked.after, newer_than=asked.before, limit=asked.size + 1, filters=filters
    )
    shown, next_token, previous = paging.cut(found, asked, lambda call: call.sid[2:])
    items = [render(call, call.status) for call in shown]
    return paging.render(request, asked, paging.Page("calls", "Call", items, next_token, previous))


# -- change ------------------------------------------------------------------------------------------------------


async def update(request: Request, app: Services) -> Response:
    """POST Calls/{Sid}: another document, an end, or what is only kept (fallback, callback, time limit)."""
    calls = service(app)
    sid = request.params["Sid"]
    change = CallChange(
        url=request.url("Url", code=INVALID_URL) or "",
        method=request.method_of("Method", code=INVALID_METHOD) or "POST",
        twiml=request.str("Twiml", 4 * MAX_TWIML) or "",
        fallback_url=request.url("FallbackUrl", code=INVALID_URL),
        fallback_method=request.method_of("FallbackMethod", code=INVALID_METHOD) or "POST",
        status=request.enum("Status", ("canceled", "completed")) or "",
        status_callback=callback_url(request, "StatusCallback"),
        status_callback_method=request.method_of("StatusCallbackMethod", code=INVALID_METHOD) or "POST",
        time_limit_s=request.int("TimeLimit", 1, MAX_TIME_LIMIT_S) or 0,
    )
    found = await calls.update(request.account_sid, sid, change) if is_sid(sid, CALL) else None
    if found is not None and change.status:
        found = await _ended(request, calls, found)
    if found is None:
        raise ApiError.not_found(request.path)
    return _answer(request, found)


async def _ended(request: Request, calls: Calls, call: StoredCall) -> StoredCall | None:
    """The call once its end is stored (hanging up takes a few milliseconds, or as long as the other side does)."""
    found: StoredCall | None = call
    until = asyncio.get_running_loop().time() + END_WAIT_S
    while found is not None and found.status not in TERMINAL and asyncio.get_running_loop().time() < until:
        await asyncio.sleep(END_POLL_S)
        found = await calls.get(request.account_sid, call.sid)
    return found


async def delete(request: Request, app: Services) -> Response:
    """DELETE Calls/{Sid}: gone for every reader at once, the bytes within a day; raises 20009 while it goes on."""
    sid = request.params["Sid"]
    if not is_sid(sid, CALL) or not await service(app).delete(request.account_sid, sid):
        raise ApiError.not_found(request.path)
    app.privacy.hide()
    await app.privacy.blank_alerts(request.account_sid, sid)
    return respond.no_content()


_LIST = "/2010-04-01/Accounts/{AccountSid}/Calls"
ROUTES = (
    Route("api", "POST", _LIST, create, test_credentials=True),
    Route("api", "GET", _LIST, list_),
    Route("api", "GET", _LIST + "/{Sid}", fetch),
    Route("api", "POST", _LIST + "/{Sid}", update),
    Route("api", "DELETE", _LIST + "/{Sid}", delete),
)
