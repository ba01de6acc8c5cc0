"""Monitor alerts: list, fetch. Source: spec `monitor.v1.alert`, `monitor.v1.alert-instance`."""

from typing import Any

from trunkline.api import dates, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.model.errors import more_info
from trunkline.model.numbers import Alert
from trunkline.model.sid import NOTIFICATION

LEVELS = ("error", "warning", "notice", "debug")


def render(request: Request, alert: Alert) -> dict[str, Any]:
    """The resource as lists show it."""
    code = alert.error_code
    return {
        "account_sid": alert.account_sid,
        "alert_text": alert.alert_text,
        "api_version": "2010-04-01",
        "date_created": dates.iso8601(alert.created_ms),
        "date_generated": dates.iso8601(alert.created_ms),
        "date_updated": dates.iso8601(alert.updated_ms),
        "error_code": code,
        "log_level": alert.log_level,
        "more_info": more_info(int(code) if code.isdecimal() else None),
        "request_method": alert.request_method or None,
        "request_url": alert.request_url or None,
        "resource_sid": alert.resource_sid or None,
        "sid": alert.sid,
        "url": f"{request.base_url}/v1/Alerts/{alert.sid}",
        "service_sid": alert.service_sid or None,
    }


def render_whole(request: Request, alert: Alert) -> dict[str, Any]:
    """The resource as a fetch shows it: with what was asked and answered."""
    return {
        **render(request, alert),
        "request_variables": alert.request_variables or None,
        "request_headers": alert.request_headers or None,
        "response_body": alert.response_body or None,
        "response_headers": alert.response_headers or None,
    }


async def list_(request: Request, app: Services) -> Response:
    """GET Alerts, newest first. A bare day as EndDate is included whole."""
    asked = paging.read(request)
    where: dict[str, Any] = {"account_sid": request.account_sid}
    level = request.enum("LogLevel", LEVELS)
    if level is not None:
        where["log_level"] = level
    start = request.instant_ms("StartDate")
    if start is not None:
        where["created_ms__ge"] = start
    end = request.instant_ms("EndDate")
    if end is not None:
        whole_day = dates.parse_date(request.str("EndDate", default="").strip()) is not None
        where["created_ms__lt"] = end + (dates.DAY_MS if whole_day else dates.SECOND_MS)
    shown, next_token, previous = await records.page(app.database, Alert, where, asked, NOTIFICATION)
    items = [render(request, alert) for alert in shown]
    return paging.render(request, asked, paging.Page("alerts", "Alert", items, next_token, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET Alerts/{Sid}."""
    alert = await records.find(request, app.database, Alert, NOTIFICATION)
    return respond.json(render_whole(request, alert))


ROUTES = (
    Route("monitor", "GET", "/v1/Alerts", list_),
    Route("monitor", "GET", "/v1/Alerts/{Sid}", fetch),
)
