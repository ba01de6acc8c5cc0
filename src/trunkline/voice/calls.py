"""What the API does with calls: make, read, redirect, end and delete them, and record them.

`create` checks who may call whom, is durable before 201 (with the idempotency row in the same commit) and hands the
call to `voice.outbound`. Changes go to the live call of this node; a call that no session runs can only be ended.

Sources: Twilio's Call resource (spec `api.v2010.account.call`), error codes of its dictionary.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec
import orjson

from trunkline.accounts.alerts import Alerts
from trunkline.accounts.directory import Directory
from trunkline.model import phone
from trunkline.model.call import Call, Direction, Status, StatusTarget
from trunkline.model.errors import ApiError
from trunkline.model.sid import CALL, derived_sid, new_sid
from trunkline.settings import Settings
from trunkline.storage.archive import USAGE_TALLY, Archive, Document
from trunkline.storage.database import Database
from trunkline.storage.queue import Replay
from trunkline.storage.secrets import Secrets
from trunkline.voice import caller_id
from trunkline.voice.callbacks import minutes
from trunkline.voice.flights import CallFlight, CallFlights
from trunkline.voice.params import ASYNC_DETECTION
from trunkline.voice.reader import CallReader, StoredCall, from_copy
from trunkline.voice.recordings import Recordings
from trunkline.voice.steps import Goto, Inline, Source

NOT_IN_PROGRESS = 21220
TWIML_TOO_LONG = 32018
MAX_TWIML = 4000
"""Characters of a document that comes with a request (Twilio's bound)."""
NO_MACHINE_DETECTION = 21263
"""Code of the alert that says that machines are not told from people."""
UNKNOWN_ANSWER = "unknown"
"""`AnsweredBy` where detection could not tell, as Twilio has it."""
SEALED_FOR = "call"
"""What sealed SIP passwords are bound to."""


class NewCall(msgspec.Struct, kw_only=True):
    """A call that the API wants made, checked for form. Exactly one of `url`, `twiml`, `application_sid` is needed; an
    application goes before `url`, and `url` before `twiml`."""

    account_sid: str
    to: str
    """As given: a phone number or `sip:` URI (with X- headers as URI headers, `?X-Name=value`)."""
    from_: str
    """As given."""
    caller_id: str = ""
    url: str = ""
    method: str = "POST"
    fallback_url: str = ""
    fallback_method: str = "POST"
    twiml: str = ""
    application_sid: str = ""
    status_callback: str = ""
    status_callback_method: str = "POST"
    status_callback_events: tuple[str, ...] = ()
    """Of `callbacks.EVENTS`; none: `completed`."""
    send_digits: str = ""
    timeout_s: int = 60
    time_limit_s: int = 0
    """0: the settings' longest."""
    record: bool = False
    record_channels: int = 1
    record_track: str = "both"
    record_trim: str = "trim-silence"
    recording_status_callback: str = ""
    recording_status_callback_method: str = "POST"
    recording_status_callback_events: tuple[str, ...] = ()
    """Of `callbacks.RECORDING_EVENTS`; none: `completed`."""
    sip_auth_username: str = ""
    sip_auth_password: str = ""
    machine_detection: str = ""
    """`Enable` or `DetectMessageEnd`: the call is made, `AnsweredBy` is `unknown`, and an alert says so."""
    async_amd: bool = False
    async_amd_status_callback: str = ""
    async_amd_status_callback_method: str = "POST"
    call_reason: str = ""
    token: str = ""
    traceparent: str = ""
    """As the request brought it, or empty."""


class CallChange(msgspec.Struct, kw_only=True):
    """What an update wants. None and empty: as it is."""

    url: str = ""
    method: str = "POST"
    twiml: str = ""
    fallback_url: str | None = None
    fallback_method: str = "POST"
    status: str = ""
    """`completed` ends the call, `canceled` only one that nobody has answered."""
    status_callback: str | None = None
    status_callback_method: str = "POST"
    time_limit_s: int = 0


class LiveControl(Protocol):
    """What this part needs of a live call (trunkline.voice.live.LiveCall)."""

    def redirect(self, *, url: str = "", method: str = "POST", twiml: str = "") -> bool:
        """Leave the verb that runs and go on with another document; False when no session runs it."""

    def hangup(self, why: str, sip_status: int = 0, *, end: Status | None = None) -> None:
        """End the call, answered or not."""

    def set_time_limit(self, seconds: int) -> None:
        """The call ends that long after its answer."""


class Placing(Protocol):
    """What this part needs of `voice.outbound.Outbound`."""

    def check_route(self, call: Call) -> None:
        """Raises ApiError 21214 when nothing leads there."""

    def emergency(self, text: str, caller: str) -> str:
        """The emergency number that a text is for a caller; empty: none that may be called."""

    def reserve(self, account: str, to: str = "") -> bool:
        """Whether a call may go out without waiting; then it counts as running, and `enqueue` must follow."""

    def enqueue(self, flight: CallFlight, written: Awaitable[Any]) -> None:
        """Place a call when it is stored and its account's turn comes."""

    def cancel(self, flight: CallFlight) -> bool:
        """End a call that waits or rings, by the API; False when it is none of the two."""

    def take_over(self, sid: str, to: Source) -> bool:
        """Let a leg that no session of its own runs (a child in a bridge) go on with a document; False: it is none."""


class Calls:
    """See the module. `live` finds the live call of a SID on this node."""

    def __init__(
        self,
        settings: Settings,
        flights: CallFlights,
        reader: CallReader,
        outbound: Placing,
        recordings: Recordings,
        directory: Directory,
        archive: Archive,
        database: Database,
        alerts: Alerts,
        secrets: Secrets,
        live: Callable[[str], LiveControl | None],
    ) -> None:
        self._settings = settings
        self._flights = flights
        self.reader = reader
        self._outbound = outbound
        self.recordings = recordings
        self._directory = directory
        self._archive = archive
        self._database = database
        self._alerts = alerts
        self._secrets = secrets
        self._live = live

    # -- create ----------------------------------------------------------------------------------------------

    def create(
        self, new: NewCall, complete: Callable[[Call], Replay | None] | None = None
    ) -> tuple[Call, Awaitable[None]]:
        """Take a call on, `queued`. It is ours when the awaitable is done; before that nothing may be answered.

        `complete` builds the idempotency row to be written in the same commit. Raises ApiError: 21201, 21205, 21210,
        21211, 21212, 21213, 21214, 21218, 21221..21229, 32018.
        Next: trunkline.voice.outbound.Outbound.enqueue
        """
        call = self._call(new)
        self._outbound.check_route(call)
        replay = complete(call) if complete else None
        status = Status.QUEUED
        if self._outbound.reserve(call.account_sid, call.to):
            # Nobody is before it: the acceptance and the intent to place it are one commit.
            status, call.started_ms = Status.INITIATED, call.created_ms
        flight, written = self._flights.accept(call, status, replay=replay)
        if new.machine_detection:
            self._alerts.raise_(
                call.account_sid, NO_MACHINE_DETECTION, resource_sid=call.sid,
                text="MachineDetection is not available on this server: the call is made, AnsweredBy is `unknown`",
            )  # fmt: skip
        self._outbound.enqueue(flight, written)
        return call, written

    def _call(self, new: NewCall) -> Call:
        now = self._flights.clock.now_ms()
        shown = new.caller_id or new.from_
        urgent = self._outbound.emergency(new.to, phone.to_e164(shown) or "")
        to, sip_headers = (urgent, {}) if urgent else caller_id.destination(new.to)
        from_ = caller_id.caller(shown, to, new.account_sid, self._directory, self._settings.voice)
        number = self._directory.number(from_)
        limit_s = int(self._settings.voice.time_limit_s)
        sid = new_sid(CALL, now)
        call = Call(
            sid=sid,
            account_sid=new.account_sid,
            direction=Direction.OUTBOUND_API,
            from_=from_,
            to=to,
            caller_id=new.caller_id,
            phone_number_sid=number.sid if number is not None and number.account_sid == new.account_sid else "",
            created_ms=now,
            token=new.token,
            traceparent=new.traceparent,
            timeout_s=new.timeout_s,
            time_limit_s=min(new.time_limit_s or limit_s, limit_s),
            send_digits=new.send_digits,
            call_reason=new.call_reason,
            record=new.record,
            record_channels=new.record_channels,
            record_track=new.record_track,
            record_trim=new.record_trim,
            recording_status_callback=new.recording_status_callback,
            recording_status_callback_method=new.recording_status_callback_method,
            recording_status_callback_events=new.recording_status_callback_events or ("completed",),
        )
        if sip_headers:
            call.extra["out_headers"] = sip_headers
        self._document(call, new)
        self._sip_login(call, new)
        self._machine_detection(call, new)
        return call

    def _document(self, call: Call, new: NewCall) -> None:
        """Where the first document is, and who is told what happens. Raises 21205, 21218, 32018."""
        call.url, call.method = new.url, new.method
        call.fallback_url, call.fallback_method = new.fallback_url, new.fallback_method
        callback, callback_method = new.status_callback, new.status_callback_method
        if new.application_sid:
            application = self._directory.application(new.application_sid)
            if application is None or application.account_sid != new.account_sid:
                raise ApiError.of(21218)
            call.application_sid = application.sid
            call.url, call.method = application.voice_url, application.voice_method
            call.fallback_url, call.fallback_method = application.voice_fallback_url, application.voice_fallback_method
            if application.status_callback:
                callback, callback_method = application.status_callback, application.status_callback_method
        elif not new.url:
            if len(new.twiml) > MAX_TWIML:
                raise ApiError.of(TWIML_TOO_LONG)
            call.twiml = new.twiml
        if not call.url and not call.twiml:
            raise ApiError.of(21205)
        if callback:
            events = new.status_callback_events or ("completed",)
            call.status_callbacks = [StatusTarget(callback, callback_method, events)]

    def _sip_login(self, call: Call, new: NewCall) -> None:
        caller_id.check_login(new.sip_auth_username, new.sip_auth_password)
        if new.sip_auth_username:
            call.sip_auth_username = new.sip_auth_username
            call.sip_auth_password = self._secrets.seal(new.sip_auth_password, SEALED_FOR)

    def _machine_detection(self, call: Call, new: NewCall) -> None:
        if not new.machine_detection:
            return
        call.extra["detect"] = new.machine_detection
        if new.async_amd:
            call.extra[ASYNC_DETECTION] = True
        if new.async_amd and new.async_amd_status_callback:
            call.extra["amd"] = [new.async_amd_status_callback, new.async_amd_status_callback_method]

    # -- read ------------------------------------------------------------------------------------------------

    async def get(self, account: str, sid: str) -> StoredCall | None:
        """One call, in flight or landed; None if there is none (any more).

        A call that comes in is there from its first webhook on, with the status that webhooks tell, though that may not
        be stored yet.
        """
        flight = self._flights.cached(sid)
        found = await self.reader.get(account, sid)
        if flight is None or flight.call.account_sid != account or (found is not None and found.rev >= flight.rev):
            return found
        if found is not None and bool(flight.call.ended_ms) != flight.ended:
            return found  # it ends just now, and not all is known
        return from_copy(flight.call, flight.status)

    async def page(
        self, account: str, *, older_than: str | None, newer_than: str | None, limit: int, filters: Mapping[str, Any]
    ) -> list[StoredCall]:
        """See `voice.reader.CallReader.page` (filters: `voice.reader.FILTERS`)."""
        return await self.reader.page(
            account, older_than=older_than, newer_than=newer_than, limit=limit, filters=filters
        )

    async def events(self, account: str, sid: str) -> list[dict[str, Any]]:
        """The webhook requests of a call, oldest first, each as `webhooks.attempt.Attempt` has it (as JSON); of the
        documents' requests what the timeline's `webhook` entries say in `details`."""
        found = await self.get(account, sid)
        if found is None:
            return []
        events = [{"started_ms": entry.at_ms, **entry.details} for entry in found.timeline if entry.kind == "webhook"]
        for hook in await self.reader.webhooks(account, sid):
            said = hook.get("request", {}).get("params", ())
            events += [
                attempt if attempt.get("params") else {**attempt, "params": said} for attempt in hook["attempts"]
            ]
        events.sort(key=lambda event: int(event.get("started_ms", 0)))
        return events

    # -- change ----------------------------------------------------------------------------------------------

    async def update(self, account: str, sid: str, change: CallChange) -> StoredCall | None:
        """Redirect or end a call; the call as it is then, None when there is none.

        Raises ApiError 21220 for a call that is not in the state for it, 32018 for a document that is too long.
        """
        flight = await self._flights.find(account, sid)
        if flight is None:
            if await self.get(account, sid) is None:
                return None
            raise _not_in_progress("redirect" if change.url or change.twiml else "update")
        if change.status:
            await self._end(flight, change.status)
        elif change.url or change.twiml:
            self._redirect(flight, change)
        elif flight.ended:
            raise _not_in_progress("update")
        if not flight.ended:
            await self._note(flight, change)
        return await self.get(account, sid)

    async def _note(self, flight: CallFlight, change: CallChange) -> None:
        """The parts of an update that are only kept: fallback, status callback, time limit."""
        call, changed = flight.call, False
        if change.fallback_url is not None:
            call.fallback_url, call.fallback_method, changed = change.fallback_url, change.fallback_method, True
        if change.status_callback is not None:
            events = call.status_callbacks[0].events if call.status_callbacks else ("completed",)
            call.status_callbacks = [StatusTarget(change.status_callback, change.status_callback_method, events)]
            changed = True
        if change.time_limit_s:
            call.time_limit_s, changed = min(change.time_limit_s, int(self._settings.voice.time_limit_s)), True
            live = self._live(call.sid)
            if live is not None:
                live.set_time_limit(call.time_limit_s)
        if changed:
            await self._flights.advance(flight, flight.status)

    def _redirect(self, flight: CallFlight, change: CallChange) -> None:
        """Raises 21220 when no session runs the call, 32018."""
        if not change.url and len(change.twiml) > MAX_TWIML:
            raise ApiError.of(TWIML_TOO_LONG)
        live = None if flight.ended else self._live(flight.call.sid)
        if live is None:
            raise _not_in_progress("redirect")
        twiml = "" if change.url else change.twiml
        if not live.redirect(url=change.url, method=change.method, twiml=twiml):
            source = Goto(change.url, change.method) if change.url else Inline(twiml)
            if not self._outbound.take_over(flight.call.sid, source):
                raise _not_in_progress("redirect")

    async def _end(self, flight: CallFlight, status: str) -> None:
        """Raises 21220 when the call has ended, or is in progress and only to be canceled."""
        if flight.ended or (status == Status.CANCELED and flight.status is Status.IN_PROGRESS):
            raise _not_in_progress("cancel" if status == Status.CANCELED else "complete")
        if self._outbound.cancel(flight):
            return
        live = self._live(flight.call.sid)
        if live is not None:
            end = None if flight.status is Status.IN_PROGRESS else Status.CANCELED
            live.hangup("api", end=end)
        elif flight.status is Status.IN_PROGRESS:
            await self._flights.advance(flight, Status.COMPLETED)
        else:
            await self._flights.advance(flight, Status.CANCELED)

    async def delete(self, account: str, sid: str) -> bool:
        """Hide an ended call and everything that belongs to it; what it cost still counts. False: there is none.

        Raises ApiError 20009 while it has not ended. Recordings stay: they are resources of their own.
        """
        found = await self.get(account, sid)
        if found is None:
            return False
        flight = await self._flights.find(account, sid)
        if flight is not None and not flight.ended:
            raise ApiError.of(20009)
        await self._archive.land([tally(found)])  # first: doing it all again after a crash counts nothing twice
        await self._archive.delete(account, sid)
        if flight is not None:
            await self._flights.erase(flight)
        await self._flights.queue.forget_replays(account, sid)
        return True


def _not_in_progress(what: str) -> ApiError:
    return ApiError.of(NOT_IN_PROGRESS, message=f"Call is not in-progress. Cannot {what}.")


def tally(call: StoredCall) -> Document:
    """What usage and balance still need of a deleted call: amounts, without its SID, numbers or times but the start."""
    inbound = call.direction == "inbound"
    ours, theirs = (call.to, call.from_) if inbound else (call.from_, call.to)
    sid = derived_sid(CALL, call.sid, USAGE_TALLY)
    body = {
        "kind": USAGE_TALLY, "v": call.v, "sid": sid, "account_sid": call.account_sid, "direction": call.direction,
        "status": call.status, "created_ms": call.created_ms, "sent_ms": call.started_ms,
        "num_segments": minutes(call.duration_s), "num_media": 0, "price": call.price, "price_unit": call.price_unit,
        "country": phone.country(theirs) or "", "to" if inbound else "from": ours[:5] if ours[:1] == "+" else "",
    }  # fmt: skip
    return Document(sid=sid, account=call.account_sid, kind=USAGE_TALLY, rev=1, body=orjson.dumps(body))
