"""Recordings of an account: list, fetch (metadata with `.json` or `.xml`, else the audio), delete.

Source: spec `api.v2010.account.recording`.
"""

from typing import Any

from trunkline.api import calls, dates, paging, recording_content, records, respond
from trunkline.api.calls import amount
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.errors import ApiError
from trunkline.model.recording import Recording, RecordingStatus
from trunkline.model.sid import CALL, RECORDING, is_sid
from trunkline.voice.recordings import ENDED

SHOWN_STATUS = {RecordingStatus.FAILED: RecordingStatus.ABSENT}
"""Twilio's resource knows no `failed`: such a recording is `absent`, and `error_code` says why."""


def common(recording: Recording) -> dict[str, Any]:
    """What the resource shows under the account and under its call."""
    status = RecordingStatus(recording.status)
    ended = status in ENDED
    return {
        "account_sid": recording.account_sid,
        "api_version": "2010-04-01",
        "call_sid": recording.call_sid,
        "conference_sid": None,
        "channels": recording.channels,
        "date_created": dates.rfc2822(recording.created_ms),
        "date_updated": dates.rfc2822(recording.updated_ms or recording.created_ms),
        "start_time": dates.rfc2822(recording.start_ms or recording.created_ms),
        "price": amount(recording.price),
        "price_unit": recording.price_unit or "USD" if ended else None,
        "duration": str(seconds(recording.duration_ms)) if ended else None,
        "sid": recording.sid,
        "source": recording.source,
        "status": SHOWN_STATUS.get(status, status),
        "error_code": recording.error_code or None,
        "encryption_details": None,
    }


def seconds(duration_ms: int) -> int:
    """Whole seconds, rounded; what was recorded lasts at least one."""
    return max(1, round(duration_ms / 1000)) if duration_ms > 0 else 0


def render(recording: Recording, base_url: str) -> dict[str, Any]:
    """The resource as it is shown under the account."""
    uri = f"/2010-04-01/Accounts/{recording.account_sid}/Recordings/{recording.sid}"
    return common(recording) | {
        "uri": uri + ".json",
        "subresource_uris": {
            "add_on_results": uri + "/AddOnResults.json",
            "transcriptions": uri + "/Transcriptions.json",
        },
        "media_url": base_url + uri,
    }


def by_date(request: Request, where: dict[str, Any]) -> dict[str, Any]:
    """The DateCreated filters."""
    since, until = request.range_ms("DateCreated")
    if since is not None:
        where["created_ms__ge"] = since
    if until is not None:
        where["created_ms__lt"] = until
    return where


async def list_(request: Request, app: Services) -> Response:
    """GET Recordings, newest first, with DateCreated, CallSid and ConferenceSid filters; IncludeSoftDeleted."""
    calls.service(app)
    asked = paging.read(request)
    where = by_date(request, {"account_sid": request.account_sid})
    if not request.bool("IncludeSoftDeleted", False):
        where["deleted_ms"] = 0
    call_sid = request.str("CallSid", 64)
    if call_sid:
        where["call_sid"] = call_sid
    if request.str("ConferenceSid", 64):
        where["call_sid"] = ""  # no recording is of a conference
    found, following, previous = await records.page(app.database, Recording, where, asked, RECORDING)
    items = [render(recording, request.base_url) for recording in found]
    return paging.render(request, asked, paging.Page("recordings", "Recording", items, following, previous))


async def find(request: Request, app: Services, sid: str, *, include_deleted: bool = False) -> Recording:
    """The recording with this SID, of the call that the path names if it names one; raises 20404."""
    call_sid = request.params.get("CallSid", "")
    if is_sid(sid, RECORDING) and (not call_sid or is_sid(call_sid, CALL)):
        part = calls.service(app).recordings
        found = await part.get(request.account_sid, sid, call_sid, include_deleted=include_deleted)
        if found is not None:
            return found
    raise ApiError.not_found(request.path)


async def fetch(request: Request, app: Services) -> Response:
    """GET Recordings/{Sid}: the resource, or its audio."""
    if not recording_content.is_media(request.path):
        deleted = bool(request.bool("IncludeSoftDeleted", False))
        found = await find(request, app, request.params["Sid"], include_deleted=deleted)
        return respond.resource(request.format, render(found, request.base_url), "Recording")
    sid, _, form = request.params["Sid"].partition(".")
    if form and form not in recording_content.TYPES:
        raise ApiError.not_found(request.path)
    recording = await find(request, app, sid)
    blobs = calls.service(app).recordings.blobs
    return await recording_content.answer(request, app, blobs, recording, form or recording_content.WAV)


async def remove(request: Request, app: Services) -> Response:
    """Delete the recording that the path names, with all that was made of it; raises 20009 while it is recorded."""
    recording = await find(request, app, request.params["Sid"])
    if not await calls.service(app).recordings.delete(recording):
        raise ApiError.not_found(request.path)
    app.privacy.hide()
    return respond.no_content()


async def delete(request: Request, app: Services) -> Response:
    """DELETE Recordings/{Sid}: record and audio."""
    return await remove(request, app)


_LIST = "/2010-04-01/Accounts/{AccountSid}/Recordings"
ROUTES = (
    Route("api", "GET", _LIST, list_),
    Route("api", "GET", _LIST + "/{Sid}", fetch, public=recording_content.is_media),
    Route("api", "DELETE", _LIST + "/{Sid}", delete),
)
