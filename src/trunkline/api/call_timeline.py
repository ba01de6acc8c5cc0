"""The timeline of a call: SIP messages, TwiML steps, webhooks, keys, recordings and what the media engine measured.

Ours: Twilio has no such resource under this path (docs/howto/call-timeline.md). The command `trunkline call` prints it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from trunkline.api import calls, dates, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.call import TimelineEntry
from trunkline.model.recording import Recording, RecordingStatus
from trunkline.storage.database import Database
from trunkline.voice.reader import StoredCall

WEBHOOK = "webhook"
RECORDING = "recording"
FINISHED = (RecordingStatus.COMPLETED, RecordingStatus.ABSENT, RecordingStatus.FAILED)
MAX_RECORDINGS = 100
"""Recordings of one call that are looked at."""


def entries(
    call: StoredCall, hooks: Iterable[Mapping[str, Any]], recordings: Iterable[Recording] = ()
) -> list[TimelineEntry]:
    """What happened, oldest first: the call's own entries, its status callbacks with each attempt, and the end of
    recordings that were finished after the call."""
    found = list(call.timeline)
    known = {entry.what for entry in found if entry.kind == RECORDING}
    for row in recordings:
        what = f"{row.status} {row.sid}"
        if row.status in FINISHED and what not in known:
            missing_ms = sum(length for _, length in row.gaps)
            details = {"ms": row.duration_ms, "gaps": len(row.gaps), "missing_ms": missing_ms}
            found.append(TimelineEntry(row.updated_ms, RECORDING, what, details))
    for hook in hooks:
        for attempt in hook.get("attempts") or ():
            found.append(_attempt(str(hook.get("kind", "")), attempt))
    found.sort(key=lambda entry: entry.at_ms)
    return found


def _attempt(kind: str, attempt: Mapping[str, Any]) -> TimelineEntry:
    """One try of a callback."""
    answer = attempt.get("status") or attempt.get("error") or "no answer"
    took = round(float(attempt.get("total_ms") or 0))
    what = f"{attempt.get('method', 'POST')} {attempt.get('url', '')} {answer} in {took} ms ({kind} callback)"
    told = {str(name): value for name, value in attempt.get("params") or () if name in ("CallStatus", "SequenceNumber")}
    return TimelineEntry(int(attempt.get("started_ms") or 0), WEBHOOK, what, told)


async def recordings_of(database: Database, account: str, call_sid: str) -> list[Recording]:
    """The recordings of a call, for `entries`."""
    where = {"account_sid": account, "call_sid": call_sid}
    return await database.find(Recording, where, limit=MAX_RECORDINGS)


def render(
    call: StoredCall, hooks: Iterable[Mapping[str, Any]], recordings: Iterable[Recording] = ()
) -> dict[str, Any]:
    """The resource; times have milliseconds, since it is about order."""
    uri = f"/2010-04-01/Accounts/{call.account_sid}/Calls/{call.sid}"
    return {
        "account_sid": call.account_sid,
        "call_sid": call.sid,
        "status": call.shown_status,
        "sip_call_id": call.sip_call_id or None,
        "sip_response_code": call.sip_response_code or None,
        "hangup_cause": call.hangup_cause or None,
        "trunk": call.trunk or None,
        "quality": msgspec.to_builtins(call.quality) if call.quality is not None else None,
        "entries": [
            {
                "at": dates.iso8601_ms(entry.at_ms),
                "kind": entry.kind,
                "what": entry.what,
                "details": entry.details,
            }
            for entry in entries(call, hooks, recordings)
        ],
        "uri": uri + "/Timeline.json",
    }


async def fetch(request: Request, app: Services) -> Response:
    """GET Calls/{CallSid}/Timeline, in JSON whatever the suffix; of a call under way: so far."""
    call = await calls.find(request, app)
    hooks = await calls.service(app).reader.webhooks(request.account_sid, call.sid)
    rows = await recordings_of(app.database, request.account_sid, call.sid)
    return respond.json(render(call, hooks, rows))


ROUTES = (Route("api", "GET", "/2010-04-01/Accounts/{AccountSid}/Calls/{CallSid}/Timeline", fetch),)
