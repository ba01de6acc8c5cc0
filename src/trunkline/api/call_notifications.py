"""Notifications of a call: the alerts that are about it; list and fetch.

Source: spec `api.v2010.account.call.call_notification`, `call_notification-instance`.
"""

from typing import Any

from trunkline.api import calls, notifications, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.errors import ApiError
from trunkline.model.numbers import Alert
from trunkline.model.sid import NOTIFICATION


def _own_uri(alert: Alert) -> dict[str, Any]:
    base = f"/2010-04-01/Accounts/{alert.account_sid}/Calls/{alert.resource_sid}"
    return {"uri": f"{base}/Notifications/{alert.sid}.json"}


async def list_(request: Request, app: Services) -> Response:
    """GET Calls/{CallSid}/Notifications, newest first, with Log and MessageDate filters."""
    call = await calls.find(request, app)
    return await notifications.page(
        request, app, {"resource_sid": call.sid}, lambda alert: notifications.render(alert) | _own_uri(alert)
    )


async def fetch(request: Request, app: Services) -> Response:
    """GET Calls/{CallSid}/Notifications/{Sid}."""
    call = await calls.find(request, app)
    alert = await records.find(request, app.database, Alert, NOTIFICATION)
    if alert.resource_sid != call.sid:
        raise ApiError.not_found(request.path)
    return respond.resource(request.format, notifications.render_whole(alert) | _own_uri(alert), "Notification")


_LIST = "/2010-04-01/Accounts/{AccountSid}/Calls/{CallSid}/Notifications"
ROUTES = (
    Route("api", "GET", _LIST, list_),
    Route("api", "GET", _LIST + "/{Sid}", fetch),
)
