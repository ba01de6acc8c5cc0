"""Events of a call: the requests that were made to the customer's URLs, with their answers; list.

Oldest first. Pages are counted (`PageToken` is an index): what has happened does not change.
Source: spec `api.v2010.account.call.call_event`.
"""

from collections.abc import Mapping
from typing import Any

from trunkline.api import calls, dates, paging
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services


def render(event: Mapping[str, Any]) -> dict[str, Any]:
    """One exchange, from an attempt as `trunkline.webhooks.attempt` keeps it."""
    headers = {str(name).lower(): value for name, value in (event.get("response_headers") or {}).items()}
    return {
        "request": {
            "method": event.get("method", "POST"),
            "url": event.get("url", ""),
            "parameters": {_snake(str(name)): value for name, value in event.get("params") or ()},
        },
        "response": {
            "response_code": event.get("status") or None,
            "request_duration": round(float(event.get("total_ms") or 0)),
            "content_type": headers.get("content-type"),
            "response_body": event.get("response_body") or "",
            "date_created": dates.rfc2822(int(event.get("started_ms") or 0)),
            "error_code": event.get("error_code") or None,
        },
    }


def _snake(name: str) -> str:
    """`CallStatus` -> `call_status`, as Twilio writes parameters here."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


async def list_(request: Request, app: Services) -> Response:
    """GET Calls/{CallSid}/Events."""
    call = await calls.find(request, app)
    asked = paging.read(request)
    events = await calls.service(app).events(request.account_sid, call.sid)
    first, last = paging.bounds(asked, len(events))
    items = [render(event) for event in events[first:last]]
    following = str(last - 1) if last < len(events) else None
    previous = str(first) if 0 < first < len(events) else None
    return paging.render(request, asked, paging.Page("events", "Event", items, following, previous))


ROUTES = (Route("api", "GET", "/2010-04-01/Accounts/{AccountSid}/Calls/{CallSid}/Events", list_),)
