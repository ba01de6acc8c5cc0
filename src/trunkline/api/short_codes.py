"""SMS/ShortCodes: the account's short codes; list, fetch, configure. The operator assigns them.

Source: spec `api.v2010.account.short_code`.
"""

from typing import Any

from trunkline.api import dates, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.numbers import ShortCode
from trunkline.model.sid import SHORT_CODE

URLS = ("SmsUrl", "SmsFallbackUrl")
METHODS = ("SmsMethod", "SmsFallbackMethod")


def render(code: ShortCode) -> dict[str, Any]:
    """The resource as the API shows it."""
    return {
        "account_sid": code.account_sid,
        "api_version": "2010-04-01",
        "date_created": dates.rfc2822(code.created_ms),
        "date_updated": dates.rfc2822(code.updated_ms),
        "friendly_name": code.friendly_name or code.short_code,
        "short_code": code.short_code,
        "sid": code.sid,
        "sms_fallback_method": code.sms_fallback_method,
        "sms_fallback_url": code.sms_fallback_url or None,
        "sms_method": code.sms_method,
        "sms_url": code.sms_url or None,
        "uri": f"/2010-04-01/Accounts/{code.account_sid}/SMS/ShortCodes/{code.sid}.json",
    }


async def list_(request: Request, app: Services) -> Response:
    """GET SMS/ShortCodes, newest first, with FriendlyName and ShortCode filters."""
    asked = paging.read(request)
    where = {"account_sid": request.account_sid}
    for name in ("FriendlyName", "ShortCode"):
        value = request.str(name, records.MAX_FRIENDLY_NAME)
        if value:
            where[records.field_name(name)] = value
    found, following, previous = await records.page(app.database, ShortCode, where, asked, SHORT_CODE)
    items = [render(code) for code in found]
    return paging.render(request, asked, paging.Page("short_codes", "ShortCode", items, following, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET SMS/ShortCodes/{Sid}."""
    code = await records.find(request, app.database, ShortCode, SHORT_CODE)
    return respond.resource(request.format, render(code), "ShortCode")


async def update(request: Request, app: Services) -> Response:
    """POST SMS/ShortCodes/{Sid}; an empty URL clears it. ApiVersion is accepted: there is one."""
    sent = records.webhooks(request, URLS, METHODS)
    name = records.friendly_name(request)
    if name is not None:
        sent["friendly_name"] = name
    code = await records.find(request, app.database, ShortCode, SHORT_CODE)
    code = await records.change(request, app.database, code, lambda one: records.assign(one, sent))
    return respond.resource(request.format, render(code), "ShortCode")


_LIST = "/2010-04-01/Accounts/{AccountSid}/SMS/ShortCodes"
ROUTES = (
    Route("api", "GET", _LIST, list_),
    Route("api", "GET", _LIST + "/{Sid}", fetch),
    Route("api", "POST", _LIST + "/{Sid}", update),
)
