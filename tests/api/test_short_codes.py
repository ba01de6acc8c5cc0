"""SMS/ShortCodes."""

from tests.api.conftest import World


async def test_list_fetch_and_configure(world: World) -> None:
    code = await world.short_code("12345")
    await world.short_code("54321", friendly_name="Other")
    uri = world.path(f"SMS/ShortCodes/{code.sid}.json")
    shown = (await world.get(uri)).json
    assert (shown["short_code"], shown["sms_url"], shown["uri"]) == ("12345", None, uri)
    changed = await world.post(uri, {"SmsUrl": "https://example.com/s", "SmsMethod": "GET", "FriendlyName": "Mine"})
    assert changed.json["sms_url"] == "https://example.com/s"
    found = (await world.get(world.path("SMS/ShortCodes.json?ShortCode=12345"))).json["short_codes"]
    assert found == [changed.json]
    named = (await world.get(world.path("SMS/ShortCodes.json?FriendlyName=Other"))).json["short_codes"]
    assert [one["short_code"] for one in named] == ["54321"]


async def test_a_bad_url_is_refused(world: World) -> None:
    code = await world.short_code("12345")
    reply = await world.post(world.path(f"SMS/ShortCodes/{code.sid}.json"), {"SmsUrl": "nonsense"})
    assert (reply.status, reply.code) == (400, 21402)


async def test_another_accounts_code_is_not_there(world: World) -> None:
    code = await world.short_code("12345", account_sid="")
    assert (await world.get(world.path(f"SMS/ShortCodes/{code.sid}.json"))).code == 20404
    assert (await world.get(world.path("SMS/ShortCodes.json"))).json["short_codes"] == []
