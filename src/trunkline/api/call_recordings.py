"""Recordings of a call: start one, list, fetch, pause, resume or stop it, delete.

`Twilio.CURRENT` stands for the recording that runs. Source: spec `api.v2010.account.call.call_recording`.
"""

from typing import Any

from trunkline.api import calls, paging, recordings, records, respond
from trunkline.api.calls import CHANNELS, RECORDING_EVENTS, TRACKS, TRIMS
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.errors import ApiError
from trunkline.model.recording import Recording, RecordingStatus
from trunkline.model.sid import RECORDING, is_sid
from trunkline.voice.recordings import CURRENT, NewRecording

SETTABLE = (RecordingStatus.PAUSED, RecordingStatus.STOPPED, RecordingStatus.IN_PROGRESS)
PAUSE_BEHAVIORS = ("skip", "silence")


def render(recording: Recording) -> dict[str, Any]:
    """The resource as it is shown under its call."""
    base = f"/2010-04-01/Accounts/{recording.account_sid}/Calls/{recording.call_sid}"
    shown = recordings.common(recording) | {"track": recording.track}
    return shown | {"uri": f"{base}/Recordings/{recording.sid}.json"}


def _answer(request: Request, recording: Recording, status: int = 200) -> Response:
    return respond.resource(request.format, render(recording), "Recording", status)


async def create(request: Request, app: Services) -> Response:
    """POST Calls/{CallSid}/Recordings: record a call that is in progress; raises 21220 for any other."""
    call = await calls.find(request, app)
    new = NewRecording(
        channels=CHANNELS[request.enum("RecordingChannels", CHANNELS) or "mono"],
        track=request.enum("RecordingTrack", TRACKS) or "both",
        trim=request.enum("Trim", TRIMS) or "do-not-trim",
        status_callback=calls.callback_url(request, "RecordingStatusCallback") or "",
        status_callback_method=request.method_of("RecordingStatusCallbackMethod", code=calls.INVALID_METHOD) or "POST",
        status_callback_events=calls.events(request, "RecordingStatusCallbackEvent", RECORDING_EVENTS)
        or ("completed",),
    )
    made = await calls.service(app).recordings.start(request.account_sid, call.sid, new)
    return _answer(request, made, 201)


async def list_(request: Request, app: Services) -> Response:
    """GET Calls/{CallSid}/Recordings, newest first, with DateCreated filters."""
    call = await calls.find(request, app)
    asked = paging.read(request)
    where = recordings.by_date(request, {"account_sid": request.account_sid, "call_sid": call.sid, "deleted_ms": 0})
    found, following, previous = await records.page(app.database, Recording, where, asked, RECORDING)
    items = [render(recording) for recording in found]
    return paging.render(request, asked, paging.Page("recordings", "Recording", items, following, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET Calls/{CallSid}/Recordings/{Sid}."""
    return _answer(request, await recordings.find(request, app, request.params["Sid"]))


async def update(request: Request, app: Services) -> Response:
    """POST Calls/{CallSid}/Recordings/{Sid}: Status paused (PauseBehavior skip or silence), in-progress or stopped."""
    call = await calls.find(request, app)
    status = request.enum("Status", SETTABLE)
    if status is None:
        raise ApiError.missing("Status")
    behavior = request.enum("PauseBehavior", PAUSE_BEHAVIORS) or "silence"
    sid, part = request.params["Sid"], calls.service(app).recordings
    found = None
    if sid == CURRENT or is_sid(sid, RECORDING):
        found = await part.update(request.account_sid, call.sid, sid, status, behavior)
    if found is None:
        raise ApiError.not_found(request.path)
    return _answer(request, found)


async def delete(request: Request, app: Services) -> Response:
    """DELETE Calls/{CallSid}/Recordings/{Sid}: record and audio."""
    return await recordings.remove(request, app)


_LIST = "/2010-04-01/Accounts/{AccountSid}/Calls/{CallSid}/Recordings"
ROUTES = (
    Route("api", "POST", _LIST, create),
    Route("api", "GET", _LIST, list_),
    Route("api", "GET", _LIST + "/{Sid}", fetch),
    Route("api", "POST", _LIST + "/{Sid}", update),
    Route("api", "DELETE", _LIST + "/{Sid}", delete),
)
