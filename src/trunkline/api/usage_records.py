"""Usage Records: counts and prices by category, over a span or by day, month or year.

Every category that is asked for has a record in every period, zeros included; periods come newest first. Pages are
counted (`PageToken` is an index): the past does not change its number of periods.
Source: spec `api.v2010.account.usage.usage_record`.
"""

import re
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

from trunkline.api import dates, paging
from trunkline.api.request import Request
from trunkline.api.respond import Response
from trunkline.api.route import Handler, Route
from trunkline.api.services import Services
from trunkline.messaging.usage import CATEGORIES, FORMATS, Amount, day_of, usage_of
from trunkline.model.errors import ApiError

OFFSET = re.compile(r"([+ -])([0-9]{1,5})\s*days?", re.ASCII | re.IGNORECASE)
"""`-30days`; a `+` that was not percent-encoded arrives as a blank."""
MAX_SPAN_DAYS = 366 * 100
FIRST_DAY = date(1970, 1, 1)
SUBRESOURCES = ("AllTime", "Daily", "LastMonth", "Monthly", "ThisMonth", "Today", "Yearly", "Yesterday")

Span = tuple[date, date]
"""First and last day."""


class Scope(NamedTuple):
    """One of the lists."""

    granularity: str
    span: Callable[[date], Span] | None
    """Of today; None: StartDate and EndDate say, or all there is."""


def _this_month(today: date) -> Span:
    return today.replace(day=1), today


def _last_month(today: date) -> Span:
    last = today.replace(day=1) - timedelta(days=1)
    return last.replace(day=1), last


def _yesterday(today: date) -> Span:
    day = today - timedelta(days=1)
    return day, day


SCOPES: dict[str, Scope] = {
    "": Scope("all", None),
    "AllTime": Scope("all", None),
    "Daily": Scope("day", None),
    "Monthly": Scope("month", None),
    "Yearly": Scope("year", None),
    "Today": Scope("all", lambda today: (today, today)),
    "Yesterday": Scope("all", _yesterday),
    "ThisMonth": Scope("all", _this_month),
    "LastMonth": Scope("all", _last_month),
}


# -- periods -----------------------------------------------------------------------------------------------------


def _number_of(day: date, granularity: str) -> int:
    """Days, months or years, counted from any beginning."""
    if granularity == "day":
        return day.toordinal()
    if granularity == "month":
        return day.year * 12 + day.month - 1
    return day.year if granularity == "year" else 0


def _bounds(number: int, granularity: str, span: Span) -> Span:
    """The first and last day of a period, within the span."""
    start, end = span
    if granularity == "day":
        start = end = date.fromordinal(number)
    elif granularity == "month":
        year, month = divmod(number, 12)
        following = divmod(number + 1, 12)
        first, last = date(year, month + 1, 1), date(following[0], following[1] + 1, 1) - timedelta(days=1)
        start, end = max(start, first), min(end, last)
    elif granularity == "year":
        start, end = max(start, date(number, 1, 1)), min(end, date(number, 12, 31))
    return start, end


def _day(request: Request, name: str, today: date, default: date) -> date:
    """A date, or an offset from today."""
    text = request.str(name, 32) or ""
    if not text.strip():
        return default
    offset = OFFSET.fullmatch(text)
    if offset is not None:
        days = int(offset[2])
        try:
            return max(today + timedelta(days=-days if offset[1] == "-" else days), FIRST_DAY)
        except OverflowError:
            raise ApiError.invalid(name, "lies too far away") from None
    day = dates.parse_date(text.strip())
    if day is None:
        raise ApiError.invalid(name, "must be a date as YYYY-MM-DD or an offset as -30days")
    return max(day, FIRST_DAY)


def _span(request: Request, scope: Scope, today: date) -> Span:
    if scope.span is not None:
        return scope.span(today)
    start = _day(request, "StartDate", today, min(day_of(request.account.created_ms), today))
    end = _day(request, "EndDate", today, today)
    if start > end:
        raise ApiError.invalid("StartDate", "must not be after EndDate")
    if (end - start).days > MAX_SPAN_DAYS:
        raise ApiError.invalid("EndDate", f"must be within {MAX_SPAN_DAYS} days of StartDate")
    return start, end


# -- the list ----------------------------------------------------------------------------------------------------


async def _list(request: Request, app: Services, path: str) -> Response:
    asked = paging.read(request)
    scope = SCOPES[path]
    category = request.enum("Category", CATEGORIES)
    categories = [category] if category else list(CATEGORIES)
    span = _span(request, scope, day_of(app.clock.now_ms()))
    newest = _number_of(span[1], scope.granularity)
    count = (newest - _number_of(span[0], scope.granularity) + 1) * len(categories)
    first, last = paging.bounds(asked, count)
    usage = usage_of(app.archive, app.database, app.clock)
    include = request.bool("IncludeSubaccounts", True)
    accounts = await usage.family(request.account) if include else [request.account_sid]
    items: list[dict[str, Any]] = []
    if first < last:
        old = _bounds(newest - (last - 1) // len(categories), scope.granularity, span)[0]
        new = _bounds(newest - first // len(categories), scope.granularity, span)[1]
        unit = request.account.price_unit
        totals = await usage.totals(accounts, old, new, scope.granularity, unit)
        as_of = dates.iso8601(app.clock.now_ms()).replace("Z", "+00:00")
        for at in range(first, last):
            bounds = _bounds(newest - at // len(categories), scope.granularity, span)
            name = FORMATS[scope.granularity]
            amounts = totals.get(format(bounds[0], name) if name else "", {})
            wanted = categories[at % len(categories)]
            items.append(_render(request.account_sid, path, wanted, amounts.get(wanted, Amount()), bounds, as_of, unit))
    following = str(last - 1) if last < count else None
    previous = str(first) if 0 < first < count else None
    return paging.render(request, asked, paging.Page("usage_records", "UsageRecord", items, following, previous))


def _render(
    account_sid: str, path: str, category: str, amount: Amount, bounds: Span, as_of: str, unit: str
) -> dict[str, Any]:
    """One record as the API shows it."""
    base = f"/2010-04-01/Accounts/{account_sid}/Usage/Records"
    about = CATEGORIES[category]
    start, end = bounds[0].isoformat(), bounds[1].isoformat()
    query = urlencode({"Category": category, "StartDate": start, "EndDate": end})
    price = format(amount.price, "f")
    money = category == "totalprice"
    return {
        "account_sid": account_sid,
        "api_version": "2010-04-01",
        "as_of": as_of,
        "category": category,
        "count": price if money else str(amount.count),
        "count_unit": unit.lower() if money else about.count_unit,
        "description": about.description,
        "end_date": end,
        "price": price,
        "price_unit": unit.lower(),
        "start_date": start,
        "subresource_uris": {
            _snake(name): f"{base}/{name}.json?{urlencode({'Category': category})}" for name in SUBRESOURCES
        },
        "uri": f"{base}{'/' if path else ''}{path}.json?{query}",
        "usage": price if money else str(amount.usage),
        "usage_unit": unit.lower() if money else about.usage_unit,
    }


def _snake(name: str) -> str:
    return {"AllTime": "all_time", "LastMonth": "last_month", "ThisMonth": "this_month"}.get(name, name.lower())


def _handler(path: str) -> Handler:
    async def list_(request: Request, app: Services) -> Response:
        return await _list(request, app, path)

    return list_


_LIST = "/2010-04-01/Accounts/{AccountSid}/Usage/Records"
ROUTES = tuple(Route("api", "GET", f"{_LIST}/{path}" if path else _LIST, _handler(path)) for path in SCOPES)
