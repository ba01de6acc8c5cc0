"""Notifications: alerts as the 2010 API shows them."""

from urllib.parse import parse_qs

from tests.api.conftest import World


async def raise_alert(world: World, code: int, **fields: str) -> str:
    sid = world.services.alerts.raise_(world.owner.sid, code, **fields)
    await world.services.alerts.close()
    return sid


async def test_an_alert_shows_with_its_exchange_on_its_own_page_only(world: World) -> None:
    sid = await raise_alert(
        world, 11200, request_method="POST", request_url="https://example.com/?a=1", request_variables="From=%2B1",
        response_body="oops", response_headers="Server=x", text="HTTP 500 & more",
    )  # fmt: skip
    (listed,) = (await world.get(world.path("Notifications.json"))).json["notifications"]
    assert listed["sid"] == sid
    assert (listed["log"], listed["error_code"], listed["request_method"]) == ("0", "11200", "POST")
    assert listed["more_info"] == "https://www.twilio.com/docs/errors/11200"
    text = {key: value[0] for key, value in parse_qs(listed["message_text"]).items()}
    assert text == {
        "LogLevel": "ERROR",
        "Msg": "HTTP 500 & more",
        "ErrorCode": "11200",
        "url": "https://example.com/?a=1",
    }
    shown = (await world.get(listed["uri"])).json
    exchange = {"request_variables": "From=%2B1", "response_body": "oops", "response_headers": "Server=x"}
    assert shown == listed | exchange


async def test_filters_by_level_and_date(world: World) -> None:
    error = await raise_alert(world, 11200)
    world.clock.ms += 86_400_000
    warning = await raise_alert(world, 15003)

    async def sids(query: str) -> list[str]:
        found = (await world.get(world.path(f"Notifications.json?{query}"))).json["notifications"]
        return [one["sid"] for one in found]

    assert await sids("") == [warning, error]
    assert await sids("Log=1") == [warning]
    assert await sids("Log=0") == [error]
    assert await sids("MessageDate=2023-11-14") == [error]
    assert await sids("MessageDate%3E=2023-11-15") == [warning]
    assert (await world.get(world.path("Notifications.json?Log=7"))).code == 20422


async def test_another_accounts_alert_is_not_there(world: World) -> None:
    child = await world.subaccount()
    sid = await raise_alert(world, 11200)
    assert (await world.get(world.path(f"Notifications/{sid}.json", child.sid))).code == 20404
