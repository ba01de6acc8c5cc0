"""Messaging Services: fields, defaults, lists, deletion."""

import pytest

from tests.api.conftest import World
from trunkline.accounts.directory import create_account
from trunkline.model.numbers import MessagingService, ServiceSender, StickySender

SERVICES = "/messaging/v1/Services"
NOBODY = "MG" + "0" * 32


async def make(world: World, **fields: str) -> dict[str, object]:
    reply = await world.post(SERVICES, {"FriendlyName": "Alerts"} | fields)
    assert reply.status == 201, reply
    made: dict[str, object] = reply.json
    return made


async def test_the_defaults(world: World) -> None:
    made = await make(world)
    sid = made["sid"]
    url = f"http://localhost:8080/messaging/v1/Services/{sid}"
    assert made == {
        "account_sid": world.owner.sid,
        "sid": sid,
        "date_created": "2023-11-14T22:13:20Z",
        "date_updated": "2023-11-14T22:13:20Z",
        "friendly_name": "Alerts",
        "inbound_request_url": None,
        "inbound_method": "POST",
        "fallback_url": None,
        "fallback_method": "POST",
        "status_callback": None,
        "sticky_sender": True,
        "mms_converter": True,
        "smart_encoding": True,
        "fallback_to_long_code": True,
        "scan_message_content": "inherit",
        "area_code_geomatch": True,
        "validity_period": 36000,
        "synchronous_validation": False,
        "usecase": "undeclared",
        "us_app_to_person_registered": False,
        "use_inbound_webhook_on_number": False,
        "links": {
            "phone_numbers": url + "/PhoneNumbers",
            "short_codes": url + "/ShortCodes",
            "alpha_senders": url + "/AlphaSenders",
            "messages": url + "/Messages",
            "us_app_to_person": url + "/Compliance/Usa2p",
            "us_app_to_person_usecases": url + "/Compliance/Usa2p/Usecases",
            "channel_senders": url + "/ChannelSenders",
            "destination_alpha_senders": url + "/DestinationAlphaSenders",
        },
        "url": url,
    }
    assert (await world.get(f"{SERVICES}/{sid}")).json == made


async def test_links_name_the_host_that_was_asked(world: World) -> None:
    reply = await world.post(
        "/v1/Services", {"FriendlyName": "x"}, host="messaging.sydney.au1.twilio.com", scheme="https"
    )
    assert reply.json["url"] == f"https://messaging.sydney.au1.twilio.com/v1/Services/{reply.json['sid']}"


FIELDS = {
    "InboundRequestUrl": "https://example.com/in",
    "InboundMethod": "GET",
    "FallbackUrl": "https://example.com/fallback",
    "FallbackMethod": "GET",
    "StatusCallback": "https://example.com/status",
    "StickySender": "false",
    "MmsConverter": "False",
    "SmartEncoding": "false",
    "ScanMessageContent": "disable",
    "FallbackToLongCode": "false",
    "AreaCodeGeomatch": "false",
    "ValidityPeriod": "600",
    "SynchronousValidation": "true",
    "Usecase": "marketing",
    "UseInboundWebhookOnNumber": "true",
}
SHOWN = {
    "inbound_request_url": "https://example.com/in",
    "inbound_method": "GET",
    "fallback_url": "https://example.com/fallback",
    "fallback_method": "GET",
    "status_callback": "https://example.com/status",
    "sticky_sender": False,
    "mms_converter": False,
    "smart_encoding": False,
    "scan_message_content": "disable",
    "fallback_to_long_code": False,
    "area_code_geomatch": False,
    "validity_period": 600,
    "synchronous_validation": True,
    "usecase": "marketing",
    "use_inbound_webhook_on_number": True,
}


async def test_every_field_can_be_set_at_creation(world: World) -> None:
    made = await make(world, **FIELDS)
    assert {name: made[name] for name in SHOWN} == SHOWN


async def test_every_field_can_be_changed_and_urls_cleared(world: World) -> None:
    made = await make(world)
    path = f"{SERVICES}/{made['sid']}"
    changed = await world.post(path, FIELDS | {"FriendlyName": "New"})
    assert changed.status == 200
    assert {name: changed.json[name] for name in SHOWN} == SHOWN
    assert changed.json["friendly_name"] == "New"
    cleared = (await world.post(path, {"InboundRequestUrl": "", "StatusCallback": ""})).json
    assert (cleared["inbound_request_url"], cleared["status_callback"]) == (None, None)
    assert cleared["fallback_url"] == "https://example.com/fallback"
    assert world.services.directory.service(str(made["sid"])).fallback_url  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 20001),
        ({"FriendlyName": ""}, 20001),
        ({"FriendlyName": "x" * 65}, 20422),
        ({"FriendlyName": "x", "ValidityPeriod": "0"}, 20422),
        ({"FriendlyName": "x", "ValidityPeriod": "36001"}, 20422),
        ({"FriendlyName": "x", "Usecase": "spam"}, 21713),
        ({"FriendlyName": "x", "InboundRequestUrl": "ftp://example.com"}, 21402),
        ({"FriendlyName": "x", "InboundMethod": "PUT"}, 21403),
        ({"FriendlyName": "x", "ScanMessageContent": "maybe"}, 20422),
        ({"FriendlyName": "x", "StickySender": "maybe"}, 20422),
    ],
)
async def test_what_cannot_be_taken(world: World, fields: dict[str, str], code: int) -> None:
    reply = await world.post(SERVICES, fields)
    assert (reply.status, reply.code) == (400, code)
    assert await world.database.count(MessagingService) == 0


async def test_the_list_is_newest_first_and_pages(world: World) -> None:
    sids = []
    for name in "abc":
        sids.append((await make(world, FriendlyName=name))["sid"])
        world.clock.ms += 1000
    first = (await world.get(f"{SERVICES}?PageSize=2")).json
    assert [one["sid"] for one in first["services"]] == [sids[2], sids[1]]
    assert first["meta"]["key"] == "services"
    assert first["meta"]["previous_page_url"] is None
    second = (await world.get(first["meta"]["next_page_url"].removeprefix("http://localhost:8080"))).json
    assert [one["sid"] for one in second["services"]] == [sids[0]]
    assert second["meta"]["next_page_url"] is None
    back = (await world.get(second["meta"]["previous_page_url"].removeprefix("http://localhost:8080"))).json
    assert [one["sid"] for one in back["services"]] == [sids[2], sids[1]]


async def test_another_accounts_service_is_not_there(world: World) -> None:
    made = await make(world)
    stranger = await create_account(world.database, world.clock, "Stranger")
    login = (stranger.sid, stranger.auth_token)
    path = f"{SERVICES}/{made['sid']}"
    assert (await world.get(path, auth=login)).code == 20404
    assert (await world.post(path, {"FriendlyName": "mine"}, auth=login)).code == 20404
    assert (await world.call("DELETE", path, auth=login)).code == 20404
    assert (await world.get(SERVICES, auth=login)).json["services"] == []
    assert (await world.get(f"{SERVICES}/{NOBODY}")).code == 20404
    assert (await world.get(f"{SERVICES}/x")).code == 20404


async def test_deletion_frees_the_senders_and_forgets_who_knew_them(world: World) -> None:
    made, other = await make(world), await make(world)
    number = await world.stock("+12025550100", account_sid=world.owner.sid)
    await world.post(f"{SERVICES}/{made['sid']}/PhoneNumbers", {"PhoneNumberSid": number.sid})
    for service in (made, other):
        sticky = StickySender(sid=f"{service['sid']}:+14155550199", sender=number.phone_number)
        await world.database.put(sticky)
    assert (await world.call("DELETE", f"{SERVICES}/{made['sid']}")).status == 204
    assert (await world.get(f"{SERVICES}/{made['sid']}")).code == 20404
    assert await world.database.find(ServiceSender) == []
    assert [one.sid[:34] for one in await world.database.find(StickySender)] == [other["sid"]]


async def test_use_cases(world: World) -> None:
    found = (await world.get(f"{SERVICES}/Usecases")).json["usecases"]
    assert [one["usecase"] for one in found] == [
        *("notifications", "marketing", "verification", "discussion", "poll", "undeclared")
    ]
    assert all(one["description"] and one["purpose"] for one in found)


@pytest.mark.parametrize(
    "path",
    ["Services/PreregisteredUsa2p", f"Services/{NOBODY}/Compliance/Usa2p", "a2p/BrandRegistrations"],
)
async def test_what_only_twilio_has(world: World, path: str) -> None:
    assert (await world.post(f"/messaging/v1/{path}", {"x": "y"})).status == 501
