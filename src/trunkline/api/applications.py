"""Applications: named sets of webhooks that numbers and messages refer to. Source: spec
`api.v2010.account.application`."""

from typing import Any

from trunkline.api import dates, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.numbers import Application
from trunkline.model.sid import APPLICATION, new_sid

MAX_APPLICATIONS = 1000
"""Applications of an account."""
URLS = (
    "VoiceUrl", "VoiceFallbackUrl", "StatusCallback", "SmsUrl", "SmsFallbackUrl", "SmsStatusCallback",
    "MessageStatusCallback",
)  # fmt: skip
METHODS = ("VoiceMethod", "VoiceFallbackMethod", "StatusCallbackMethod", "SmsMethod", "SmsFallbackMethod")
FLAGS = ("VoiceCallerIdLookup", "PublicApplicationConnectEnabled")
API_VERSIONS = ("2010-04-01", "2008-08-01")


def render(application: Application) -> dict[str, Any]:
    """The resource as the API shows it."""
    return {
        "account_sid": application.account_sid,
        "api_version": application.api_version,
        "date_created": dates.rfc2822(application.created_ms),
        "date_updated": dates.rfc2822(application.updated_ms),
        "friendly_name": application.friendly_name,
        "message_status_callback": application.message_status_callback or None,
        "sid": application.sid,
        "sms_fallback_method": application.sms_fallback_method,
        "sms_fallback_url": application.sms_fallback_url or None,
        "sms_method": application.sms_method,
        "sms_status_callback": application.sms_status_callback or None,
        "sms_url": application.sms_url or None,
        "status_callback": application.status_callback or None,
        "status_callback_method": application.status_callback_method,
        "uri": f"/2010-04-01/Accounts/{application.account_sid}/Applications/{application.sid}.json",
        "voice_caller_id_lookup": application.voice_caller_id_lookup,
        "voice_fallback_method": application.voice_fallback_method,
        "voice_fallback_url": application.voice_fallback_url or None,
        "voice_method": application.voice_method,
        "voice_url": application.voice_url or None,
        "public_application_connect_enabled": application.public_application_connect_enabled,
    }


def _answer(request: Request, application: Application, status: int = 200) -> Response:
    return respond.resource(request.format, render(application), "Application", status)


def _sent(request: Request) -> dict[str, Any]:
    sent = records.webhooks(request, URLS, METHODS, FLAGS)
    name = records.friendly_name(request)
    if name is not None:
        sent["friendly_name"] = name
    version = request.enum("ApiVersion", API_VERSIONS)
    if version:
        sent["api_version"] = version
    return sent


async def create(request: Request, app: Services) -> Response:
    """POST Applications. Without a FriendlyName it is called by its SID."""
    sent = _sent(request)
    owner = {"account_sid": request.account_sid}
    await records.make_room(app.database, Application, owner, MAX_APPLICATIONS, "applications")
    sid = new_sid(APPLICATION, app.clock.now_ms())
    application = Application(sid=sid, account_sid=request.account_sid, friendly_name=sid)
    records.assign(application, sent)
    await app.database.insert(application)
    return _answer(request, application, 201)


async def list_(request: Request, app: Services) -> Response:
    """GET Applications, newest first, with a FriendlyName filter."""
    asked = paging.read(request)
    where = {"account_sid": request.account_sid}
    name = request.str("FriendlyName", records.MAX_FRIENDLY_NAME)
    if name:
        where["friendly_name"] = name
    found, following, previous = await records.page(app.database, Application, where, asked, APPLICATION)
    items = [render(application) for application in found]
    return paging.render(request, asked, paging.Page("applications", "Application", items, following, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET Applications/{Sid}."""
    return _answer(request, await records.find(request, app.database, Application, APPLICATION))


async def update(request: Request, app: Services) -> Response:
    """POST Applications/{Sid}; an empty URL clears it."""
    sent = _sent(request)
    application = await records.find(request, app.database, Application, APPLICATION)
    return _answer(
        request, await records.change(request, app.database, application, lambda one: records.assign(one, sent))
    )


async def delete(request: Request, app: Services) -> Response:
    """DELETE Applications/{Sid}."""
    await app.database.delete(await records.find(request, app.database, Application, APPLICATION))
    return respond.no_content()


_LIST = "/2010-04-01/Accounts/{AccountSid}/Applications"
ROUTES = (
    Route("api", "POST", _LIST, create),
    Route("api", "GET", _LIST, list_),
    Route("api", "GET", _LIST + "/{Sid}", fetch),
    Route("api", "POST", _LIST + "/{Sid}", update),
    Route("api", "DELETE", _LIST + "/{Sid}", delete),
)
