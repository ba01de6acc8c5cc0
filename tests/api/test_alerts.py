"""Monitor alerts."""

from tests.api.conftest import World
from trunkline.accounts.directory import create_account
from trunkline.model.numbers import Alert
from trunkline.model.sid import new_sid

ALERTS = "/monitor/v1/Alerts"
DAY_MS = 86_400_000
START_MS = 1_700_000_000_000  # 2023-11-14T22:13:20Z


async def keep(world: World, at_ms: int = START_MS, **fields: str) -> Alert:
    values = {"account_sid": world.owner.sid, "error_code": "11200", "log_level": "error"} | fields
    alert = Alert(sid=new_sid("NO", at_ms), created_ms=at_ms, **values)  # type: ignore[arg-type]
    await world.database.insert(alert)
    return alert


async def listed(world: World, query: str = "") -> list[str]:
    return [one["sid"] for one in (await world.get(ALERTS + query)).json["alerts"]]


async def test_an_alert_shows_the_exchange_only_by_itself(world: World) -> None:
    message = "SM" + "1" * 32
    sid = world.services.alerts.raise_(
        world.owner.sid,
        11200,
        resource_sid=message,
        service_sid="MG" + "2" * 32,
        request_method="POST",
        request_url="https://example.com/sms",
        request_variables="Body=Hi",
        request_headers="Accept: */*",
        response_body="oops",
        response_headers="Content-Type: text/html",
        text="HTTP retrieval failure",
    )
    await world.services.alerts.close()
    (shown,) = (await world.get(ALERTS)).json["alerts"]
    assert shown == {
        "account_sid": world.owner.sid,
        "alert_text": "HTTP retrieval failure",
        "api_version": "2010-04-01",
        "date_created": "2023-11-14T22:13:20Z",
        "date_generated": "2023-11-14T22:13:20Z",
        "date_updated": "2023-11-14T22:13:20Z",
        "error_code": "11200",
        "log_level": "error",
        "more_info": "https://www.twilio.com/docs/errors/11200",
        "request_method": "POST",
        "request_url": "https://example.com/sms",
        "resource_sid": message,
        "sid": sid,
        "url": f"http://localhost:8080{ALERTS}/{sid}",
        "service_sid": "MG" + "2" * 32,
    }
    assert (await world.get(f"{ALERTS}/{sid}")).json == shown | {
        "request_variables": "Body=Hi",
        "request_headers": "Accept: */*",
        "response_body": "oops",
        "response_headers": "Content-Type: text/html",
    }


async def test_newest_first_in_pages(world: World) -> None:
    kept = [(await keep(world, START_MS + n)).sid for n in range(3)]
    first = (await world.get(ALERTS + "?PageSize=2&LogLevel=error")).json
    assert [one["sid"] for one in first["alerts"]] == kept[:0:-1]
    following = first["meta"]["next_page_url"]
    assert "LogLevel=error" in following
    assert await listed(world, following.removeprefix("http://localhost:8080" + ALERTS)) == kept[:1]


async def test_the_level_filter(world: World) -> None:
    await keep(world)
    warning = await keep(world, log_level="warning")
    assert await listed(world, "?LogLevel=warning") == [warning.sid]
    assert await listed(world, "?LogLevel=debug") == []
    assert (await world.get(ALERTS + "?LogLevel=loud")).code == 20422


async def test_the_date_filters(world: World) -> None:
    days = [(await keep(world, START_MS + n * DAY_MS)).sid for n in range(3)]  # the 14th, 15th, 16th
    assert await listed(world, "?StartDate=2023-11-15") == [days[2], days[1]]
    assert await listed(world, "?EndDate=2023-11-15") == [days[1], days[0]]
    assert await listed(world, "?StartDate=2023-11-15T00:00:00Z&EndDate=2023-11-15T22:13:20Z") == [days[1]]
    assert await listed(world, "?EndDate=2023-11-15T22:13:19Z") == [days[0]]
    assert (await world.get(ALERTS + "?StartDate=soon")).code == 20422


async def test_another_accounts_alerts_are_not_there(world: World) -> None:
    alert = await keep(world)
    stranger = await create_account(world.database, world.clock, "Stranger")
    login = (stranger.sid, stranger.auth_token)
    assert (await world.get(ALERTS, auth=login)).json["alerts"] == []
    assert (await world.get(f"{ALERTS}/{alert.sid}", auth=login)).code == 20404
    assert (await world.get(f"{ALERTS}/NO{'0' * 32}")).code == 20404


async def test_what_only_twilio_has(world: World) -> None:
    assert (await world.get("/monitor/v1/Events")).status == 501
