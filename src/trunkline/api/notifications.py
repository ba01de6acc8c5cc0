"""Notifications: Monitor's alerts as the 2010-04-01 API shows them; list and fetch.

Source: spec `api.v2010.account.notification`, `notification-instance`.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

from trunkline.api import dates, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.errors import more_info
from trunkline.model.numbers import Alert
from trunkline.model.sid import NOTIFICATION

LOG_OF_LEVEL = {"error": "0", "warning": "1"}
"""Alert level -> the 2010 API's `log`."""
LEVEL_OF_LOG = {log: level for level, log in LOG_OF_LEVEL.items()}


def render(alert: Alert) -> dict[str, Any]:
    """The resource as lists show it. `message_text` is a query string, as Twilio writes it."""
    text = {"LogLevel": alert.log_level.upper(), "Msg": alert.alert_text, "ErrorCode": alert.error_code}
    if alert.request_url:
        text["url"] = alert.request_url
    created = dates.rfc2822(alert.created_ms)
    return {
        "account_sid": alert.account_sid,
        "api_version": "2010-04-01",
        "call_sid": alert.resource_sid if alert.resource_sid.startswith("CA") else None,
        "date_created": created,
        "date_updated": dates.rfc2822(alert.updated_ms),
        "error_code": alert.error_code,
        "log": LOG_OF_LEVEL.get(alert.log_level, "0"),
        "message_date": created,
        "message_text": urlencode(text, encoding="utf-8", errors="replace"),
        "more_info": more_info(int(alert.error_code)) if alert.error_code.isdecimal() else more_info(None),
        "request_method": alert.request_method or None,
        "request_url": alert.request_url,
        "sid": alert.sid,
        "uri": f"/2010-04-01/Accounts/{alert.account_sid}/Notifications/{alert.sid}.json",
    }


def render_whole(alert: Alert) -> dict[str, Any]:
    """The resource as its own page shows it, with the exchange that went wrong."""
    exchange = {name: getattr(alert, name) for name in ("request_variables", "response_body", "response_headers")}
    return render(alert) | exchange


async def list_(request: Request, app: Services) -> Response:
    """GET Notifications, newest first, with Log and MessageDate filters."""
    return await page(request, app, {}, render)


async def page(
    request: Request, app: Services, of: Mapping[str, Any], shown: Callable[[Alert], dict[str, Any]]
) -> Response:
    """A page of the account's alerts that have the columns `of`."""
    asked = paging.read(request)
    where: dict[str, Any] = {"account_sid": request.account_sid, **of}
    log = request.enum("Log", LEVEL_OF_LOG)
    if log:
        where["log_level"] = LEVEL_OF_LOG[log]
    since, until = request.range_ms("MessageDate")
    if since is not None:
        where["created_ms__ge"] = since
    if until is not None:
        where["created_ms__lt"] = until
    found, following, previous = await records.page(app.database, Alert, where, asked, NOTIFICATION)
    items = [shown(alert) for alert in found]
    return paging.render(request, asked, paging.Page("notifications", "Notification", items, following, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET Notifications/{Sid}."""
    alert = await records.find(request, app.database, Alert, NOTIFICATION)
    return respond.resource(request.format, render_whole(alert), "Notification")


_LIST = "/2010-04-01/Accounts/{AccountSid}/Notifications"
ROUTES = (
    Route("api", "GET", _LIST, list_),
    Route("api", "GET", _LIST + "/{Sid}", fetch),
)
