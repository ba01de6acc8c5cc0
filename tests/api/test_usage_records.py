"""Usage Records: spans, periods, categories, pages."""

from typing import Any

import pytest

from tests.api.conftest import World
from trunkline.messaging.usage import CATEGORIES

# The clock stands at 2023-11-14.


async def records(world: World, path: str = "", query: str = "") -> list[dict[str, Any]]:
    reply = await world.get(world.path(f"Usage/Records{path}.json?{query}"))
    assert reply.status == 200, reply.body
    return list(reply.json["usage_records"])


async def fill(world: World) -> None:
    own = world.owner.sid
    world.usage.row(own, "2023-10-31", count=2, segments=3, price="0.02")
    world.usage.row(own, "2023-11-13", count=5, segments=6, price="0.05", sender="shortcode")
    world.usage.row(own, "2023-11-14", count=1, segments=1, price="0", direction="inbound")
    world.usage.row(own, "2023-11-14", count=1, segments=1, media=2, price="0.03", channel="mms")


async def test_a_record_as_it_is_shown(world: World) -> None:
    await fill(world)
    (shown,) = await records(world, "/Today", "Category=mms-outbound")
    base = world.path("Usage/Records")
    assert shown == {
        "account_sid": world.owner.sid, "api_version": "2010-04-01", "as_of": "2023-11-14T22:13:20+00:00",
        "category": "mms-outbound", "count": "1", "count_unit": "messages", "description": "Outbound MMS",
        "end_date": "2023-11-14", "price": "0.03", "price_unit": "usd", "start_date": "2023-11-14",
        "subresource_uris": {
            key: f"{base}/{name}.json?Category=mms-outbound"
            for key, name in {
                "all_time": "AllTime", "daily": "Daily", "last_month": "LastMonth", "monthly": "Monthly",
                "this_month": "ThisMonth", "today": "Today", "yearly": "Yearly", "yesterday": "Yesterday",
            }.items()
        },
        "uri": f"{base}/Today.json?Category=mms-outbound&StartDate=2023-11-14&EndDate=2023-11-14",
        "usage": "1", "usage_unit": "messages",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "category", "count", "usage", "price", "start", "end"),
    [
        ("/AllTime", "sms", "6", "7", "0.05", "2023-11-01", "2023-11-14"),
        ("/Yesterday", "sms-outbound-shortcode", "5", "6", "0.05", "2023-11-13", "2023-11-13"),
        ("/Yesterday", "sms-outbound-longcode", "0", "0", "0", "2023-11-13", "2023-11-13"),
        ("/LastMonth", "sms-outbound-longcode", "2", "3", "0.02", "2023-10-01", "2023-10-31"),
        ("/ThisMonth", "sms-inbound", "1", "1", "0", "2023-11-01", "2023-11-14"),
        ("/ThisMonth", "calls", "0", "0", "0", "2023-11-01", "2023-11-14"),
    ],
)
async def test_spans_and_categories(
    world: World, path: str, category: str, count: str, usage: str, price: str, start: str, end: str
) -> None:
    await fill(world)
    query = f"Category={category}" + ("&StartDate=2023-11-01" if path == "/AllTime" else "")
    (shown,) = await records(world, path, query)
    seen = (shown["count"], shown["usage"], shown["price"], shown["start_date"], shown["end_date"])
    assert seen == (count, usage, price, start, end)


async def test_total_price_adds_all_channels(world: World) -> None:
    await fill(world)
    (shown,) = await records(world, "", "Category=totalprice&StartDate=2023-01-01")
    assert (shown["price"], shown["usage"], shown["usage_unit"]) == ("0.10", "0.10", "usd")


async def test_daily_newest_first_within_offsets(world: World) -> None:
    await fill(world)
    shown = await records(world, "/Daily", "Category=sms&StartDate=-2days&EndDate=-1day")
    assert [(one["start_date"], one["end_date"], one["count"]) for one in shown] == [
        ("2023-11-13", "2023-11-13", "5"),
        ("2023-11-12", "2023-11-12", "0"),
    ]
    ahead = await records(world, "/Daily", "Category=sms&StartDate=2023-11-14&EndDate=+1days")
    assert [one["start_date"] for one in ahead] == ["2023-11-15", "2023-11-14"]


async def test_monthly_and_yearly_are_cut_to_the_span(world: World) -> None:
    await fill(world)
    shown = await records(world, "/Monthly", "Category=sms&StartDate=2023-09-20&EndDate=2023-11-10")
    assert [(one["start_date"], one["end_date"], one["count"]) for one in shown] == [
        ("2023-11-01", "2023-11-10", "0"),
        ("2023-10-01", "2023-10-31", "2"),
        ("2023-09-20", "2023-09-30", "0"),
    ]
    years = await records(world, "/Yearly", "Category=sms&StartDate=2022-12-01")
    assert [(one["start_date"], one["end_date"], one["count"]) for one in years] == [
        ("2023-01-01", "2023-11-14", "8"),
        ("2022-12-01", "2022-12-31", "0"),
    ]


async def test_without_a_category_all_of_them_come_and_pages_join(world: World) -> None:
    await fill(world)
    whole = await records(world, "/Daily", "StartDate=2023-11-12&PageSize=1000")
    assert len(whole) == 3 * len(CATEGORIES)
    seen: list[Any] = []
    uri = world.path("Usage/Records/Daily.json?StartDate=2023-11-12&PageSize=25")
    while uri:
        page = (await world.get(uri)).json
        seen += page["usage_records"]
        last, uri = page, page["next_page_uri"]
    assert seen == whole
    back = (await world.get(last["previous_page_uri"])).json["usage_records"]
    size = len(last["usage_records"])
    assert back == whole[-size - 25 : -size]


async def test_subaccounts_count_unless_left_out(world: World) -> None:
    child = await world.subaccount()
    world.usage.row(child.sid, "2023-11-14", count=4)
    assert (await records(world, "/Today", "Category=sms"))[0]["count"] == "4"
    assert (await records(world, "/Today", "Category=sms&IncludeSubaccounts=false"))[0]["count"] == "0"


async def test_numbers_are_charged_monthly(world: World) -> None:
    bought = 1_693_440_000_000  # 2023-08-31
    await world.stock(
        "+15551230001", account_sid=world.owner.sid, bought_ms=bought, monthly_price="1.15", type="tollfree"
    )
    shown = await records(world, "/Daily", "Category=phonenumbers-tollfree&StartDate=2023-08-01&PageSize=1000")
    charged = [(one["start_date"], one["price"]) for one in shown if one["count"] != "0"]
    assert charged == [("2023-10-31", "1.15"), ("2023-09-30", "1.15"), ("2023-08-31", "1.15")]
    (whole,) = await records(world, "", "Category=phonenumbers&StartDate=2023-08-01")
    assert (whole["count"], whole["price"]) == ("3", "3.45")


@pytest.mark.parametrize(
    "query",
    [
        "Category=nonsense",
        "StartDate=tomorrow",
        "StartDate=2023-11-14&EndDate=2023-11-13",
        "StartDate=1970-01-01&EndDate=2099-01-01",
        "PageToken=PAabc",
        "IncludeSubaccounts=perhaps",
    ],
)
async def test_bad_parameters(world: World, query: str) -> None:
    reply = await world.get(world.path(f"Usage/Records/Daily.json?{query}"))
    assert (reply.status, reply.code) == (400, 20422)


async def test_pages_of_an_enormous_span_are_cheap(world: World) -> None:
    await records(world, "/Daily", "StartDate=1980-01-01&PageSize=50")
    ((_, start_ms, end_ms, _),) = world.usage.asked
    assert end_ms - start_ms <= 50 * 86_400_000
