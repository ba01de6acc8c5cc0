"""Usage Triggers: create, list, fetch, update, delete. What fires them: trunkline.messaging.usage_triggers.

Source: spec `api.v2010.account.usage.usage_trigger`.
"""

import re
from decimal import Decimal
from typing import Any

from trunkline.api import dates, paging, records, respond
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Route
from trunkline.api.services import Services
from trunkline.messaging.usage import CATEGORIES, day_of, usage_of
from trunkline.messaging.usage_triggers import current_value, record_uri
from trunkline.model.errors import ApiError
from trunkline.model.numbers import UsageTrigger
from trunkline.model.sid import USAGE_TRIGGER, new_sid

MAX_TRIGGERS = 1000
"""Usage triggers of an account."""
RECURRING = ("daily", "monthly", "yearly", "alltime")
ONCE = "alltime"
"""A trigger that does not recur; kept, and shown, as none."""
TRIGGER_BY = ("count", "usage", "price")
VALUE = re.compile(r"([+ ]?)([0-9]{1,15}(?:\.[0-9]{1,10})?)", re.ASCII)
"""A decimal; `+30` (its `+` perhaps decoded to a blank): 30 more than now."""


def render(trigger: UsageTrigger) -> dict[str, Any]:
    """The resource as the API shows it."""
    return {
        "account_sid": trigger.account_sid,
        "api_version": "2010-04-01",
        "callback_method": trigger.callback_method,
        "callback_url": trigger.callback_url,
        "current_value": trigger.current_value,
        "date_created": dates.rfc2822(trigger.created_ms),
        "date_fired": dates.rfc2822(trigger.fired_ms) if trigger.fired_ms else None,
        "date_updated": dates.rfc2822(trigger.updated_ms),
        "friendly_name": trigger.friendly_name,
        "recurring": trigger.recurring or None,
        "sid": trigger.sid,
        "trigger_by": trigger.trigger_by,
        "trigger_value": trigger.trigger_value,
        "uri": f"/2010-04-01/Accounts/{trigger.account_sid}/Usage/Triggers/{trigger.sid}.json",
        "usage_category": trigger.usage_category,
        "usage_record_uri": record_uri(trigger),
    }


def _answer(request: Request, trigger: UsageTrigger, status: int = 200) -> Response:
    return respond.resource(request.format, render(trigger), "UsageTrigger", status)


def _sent(request: Request) -> dict[str, Any]:
    sent = records.webhooks(request, ("CallbackUrl",), ("CallbackMethod",))
    if sent.get("callback_url") == "":
        raise ApiError.missing("CallbackUrl")
    name = records.friendly_name(request)
    if name is not None:
        sent["friendly_name"] = name
    return sent


async def create(request: Request, app: Services) -> Response:
    """POST Usage/Triggers: it watches from now on."""
    request.required("CallbackUrl")
    sent = _sent(request)
    value = VALUE.fullmatch(request.required("TriggerValue", 32).rstrip())
    if value is None:
        raise ApiError.invalid("TriggerValue", "must be a number, or `+` and a number")
    request.required("UsageCategory")
    recurring = request.enum("Recurring", RECURRING)
    trigger = UsageTrigger(
        sid=new_sid(USAGE_TRIGGER, app.clock.now_ms()),
        account_sid=request.account_sid,
        callback_url=sent.pop("callback_url"),
        trigger_value=value[2],
        trigger_by=request.enum("TriggerBy", TRIGGER_BY) or "usage",
        usage_category=request.enum("UsageCategory", CATEGORIES) or "",
        recurring="" if recurring in (None, ONCE) else recurring or "",
    )
    records.assign(trigger, sent)
    owner = {"account_sid": request.account_sid}
    await records.make_room(app.database, UsageTrigger, owner, MAX_TRIGGERS, "usage triggers")
    usage = usage_of(app.archive, app.database, app.clock)
    now = await current_value(usage, request.account, trigger, day_of(app.clock.now_ms()))
    trigger.current_value = format(now, "f")
    if value[1]:
        trigger.trigger_value = format(now + Decimal(value[2]), "f")
    await app.database.insert(trigger)
    return _answer(request, trigger, 201)


async def list_(request: Request, app: Services) -> Response:
    """GET Usage/Triggers, newest first, with Recurring, TriggerBy and UsageCategory filters."""
    asked = paging.read(request)
    where = {"account_sid": request.account_sid}
    recurring = request.enum("Recurring", RECURRING)
    if recurring:
        where["recurring"] = "" if recurring == ONCE else recurring
    trigger_by = request.enum("TriggerBy", TRIGGER_BY)
    if trigger_by:
        where["trigger_by"] = trigger_by
    category = request.enum("UsageCategory", CATEGORIES)
    if category:
        where["usage_category"] = category
    found, following, previous = await records.page(app.database, UsageTrigger, where, asked, USAGE_TRIGGER)
    items = [render(trigger) for trigger in found]
    return paging.render(request, asked, paging.Page("usage_triggers", "UsageTrigger", items, following, previous))


async def fetch(request: Request, app: Services) -> Response:
    """GET Usage/Triggers/{Sid}."""
    return _answer(request, await records.find(request, app.database, UsageTrigger, USAGE_TRIGGER))


async def update(request: Request, app: Services) -> Response:
    """POST Usage/Triggers/{Sid}: where it calls, how, and its name."""
    sent = _sent(request)
    trigger = await records.find(request, app.database, UsageTrigger, USAGE_TRIGGER)
    return _answer(request, await records.change(request, app.database, trigger, lambda one: records.assign(one, sent)))


async def delete(request: Request, app: Services) -> Response:
    """DELETE Usage/Triggers/{Sid}."""
    await app.database.delete(await records.find(request, app.database, UsageTrigger, USAGE_TRIGGER))
    return respond.no_content()


_LIST = "/2010-04-01/Accounts/{AccountSid}/Usage/Triggers"
ROUTES = (
    Route("api", "POST", _LIST, create),
    Route("api", "GET", _LIST, list_),
    Route("api", "GET", _LIST + "/{Sid}", fetch),
    Route("api", "POST", _LIST + "/{Sid}", update),
    Route("api", "DELETE", _LIST + "/{Sid}", delete),
)
