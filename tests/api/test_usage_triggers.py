"""Usage Triggers over the API."""

import pytest

from tests.api.conftest import World
from trunkline.model.numbers import UsageTrigger

SENT = {"CallbackUrl": "https://example.com/t", "TriggerValue": "50", "UsageCategory": "totalprice"}


async def test_it_lives_through_all_operations(world: World) -> None:
    made = await world.post(
        world.path("Usage/Triggers.json"),
        SENT | {"Recurring": "yearly", "TriggerBy": "price", "FriendlyName": "Budget", "CallbackMethod": "GET"},
    )
    assert made.status == 201
    shown = made.json
    assert shown["usage_record_uri"] == world.path("Usage/Records.json?Category=totalprice")
    assert (shown["trigger_value"], shown["current_value"], shown["date_fired"]) == ("50", "0", None)
    assert (shown["recurring"], shown["trigger_by"], shown["callback_method"]) == ("yearly", "price", "GET")
    assert (await world.get(shown["uri"])).json == shown
    changed = await world.post(shown["uri"], {"FriendlyName": "New", "CallbackUrl": "http://example.com/n"})
    assert (changed.json["friendly_name"], changed.json["callback_url"]) == ("New", "http://example.com/n")
    assert changed.json["callback_method"] == "GET"
    assert (await world.call("DELETE", shown["uri"])).status == 204
    assert (await world.get(shown["uri"])).code == 20404


async def test_defaults(world: World) -> None:
    shown = (await world.post(world.path("Usage/Triggers.json"), SENT)).json
    assert (shown["recurring"], shown["trigger_by"], shown["callback_method"]) == (None, "usage", "POST")


@pytest.mark.parametrize("text", ["+30", "%2B30"])
async def test_an_offset_counts_from_now(world: World, text: str) -> None:
    world.usage.row(world.owner.sid, "2023-11-14", count=4, segments=7)
    sent = SENT | {"UsageCategory": "sms", "TriggerBy": "count"}
    body = "&".join(f"{name}={value}" for name, value in sent.items()).replace(
        "TriggerValue=50", f"TriggerValue={text}"
    )
    shown = (await world.call("POST", world.path("Usage/Triggers.json"), body=body.encode())).json
    assert (shown["current_value"], shown["trigger_value"]) == ("4", "34")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"CallbackUrl": ""}, 20001),
        ({"TriggerValue": ""}, 20001),
        ({"UsageCategory": ""}, 20001),
        ({"CallbackUrl": "nonsense"}, 21402),
        ({"CallbackMethod": "PUT"}, 21403),
        ({"TriggerValue": "much"}, 20422),
        ({"TriggerValue": "-1"}, 20422),
        ({"UsageCategory": "nonsense"}, 20422),
        ({"Recurring": "hourly"}, 20422),
        ({"TriggerBy": "weight"}, 20422),
    ],
)
async def test_bad_parameters_make_nothing(world: World, sent: dict[str, str], code: int) -> None:
    reply = await world.post(world.path("Usage/Triggers.json"), SENT | sent)
    assert (reply.status, reply.code) == (400, code)
    assert await world.database.count(UsageTrigger) == 0


async def test_list_filters(world: World) -> None:
    path = world.path("Usage/Triggers.json")
    daily = (await world.post(path, SENT | {"Recurring": "daily", "TriggerBy": "price"})).json["sid"]
    once = (await world.post(path, SENT | {"UsageCategory": "sms", "Recurring": "alltime"})).json["sid"]

    async def sids(query: str) -> set[str]:
        return {one["sid"] for one in (await world.get(f"{path}?{query}")).json["usage_triggers"]}

    assert await sids("") == {daily, once}
    assert await sids("Recurring=daily") == await sids("TriggerBy=price") == {daily}
    assert await sids("Recurring=alltime") == await sids("UsageCategory=sms") == {once}
