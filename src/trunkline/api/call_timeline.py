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
from trunkline.voice.reader import StoredCall

WEBHOOK = "webhook"


def entries(call: StoredCall, hooks: Iterable[Mapping[str, Any]]) -> list[TimelineEntry]:
    """What happened, oldest first: the call's own entries, and its status callbacks with each attempt."""
    found = list(call.timeline)
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


def render(call: StoredCall, hooks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
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
            for entry in entries(call, hooks)
        ],
        "uri": uri + "/Timeline.json",
    }


async def fetch(request: Request, app: Services) -> Response:
    """GET Calls/{CallSid}/Timeline, in JSON whatever the suffix; of a call under way: so far."""
    call = await calls.find(request, app)
    hooks = await calls.service(app).reader.webhooks(request.account_sid, call.sid)
    return respond.json(render(call, hooks))


ROUTES = (Route("api", "GET", "/2010-04-01/Accounts/{AccountSid}/Calls/{CallSid}/Timeline", fetch),)
