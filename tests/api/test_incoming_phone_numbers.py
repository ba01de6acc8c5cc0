"""IncomingPhoneNumbers: buying, configuring, moving, releasing."""

import asyncio

import pytest

from tests.api.conftest import World
from trunkline.accounts.directory import create_account
from trunkline.model.numbers import PhoneNumber, ServiceSender

NUMBERS = "IncomingPhoneNumbers.json"


async def owned(world: World, number: str = "+15551230001", **fields: object) -> PhoneNumber:
    return await world.stock(number, account_sid=world.owner.sid, bought_ms=world.clock.ms, **fields)


# -- buy


async def test_a_bought_number_is_the_accounts_and_configured(world: World) -> None:
    stock = await world.stock("+18089255327", sms_enabled=True, mms_enabled=True, type="local")
    sent = {"PhoneNumber": "+18089255327", "SmsUrl": "https://example.com/sms", "SmsMethod": "GET"}
    made = await world.post(world.path(NUMBERS), sent)
    assert made.status == 201
    shown = made.json
    assert (shown["sid"], shown["phone_number"], shown["friendly_name"]) == (
        stock.sid, "+18089255327", "(808) 925-5327",
    )  # fmt: skip
    assert shown["capabilities"] == {"voice": True, "sms": True, "mms": True, "fax": False}
    assert (shown["sms_url"], shown["sms_method"]) == ("https://example.com/sms", "GET")
    known = world.services.directory.owned_sender(world.owner.sid, "+18089255327")
    assert isinstance(known, PhoneNumber)
    assert known.sms_url == "https://example.com/sms"
    assert known.bought_ms == world.clock.ms


async def test_of_two_buyers_one_gets_the_number(world: World) -> None:
    await world.stock("+15551230001")
    child = await world.subaccount()
    replies = await asyncio.gather(
        *(
            world.post(world.path(NUMBERS, account), {"PhoneNumber": "+15551230001"})
            for account in (world.owner.sid, child.sid, world.owner.sid, child.sid)
        )
    )
    assert sorted(reply.status for reply in replies) == [201, 400, 400, 400]
    assert {reply.code for reply in replies if reply.status == 400} == {21422}


@pytest.mark.parametrize(("number", "code"), [("+15551230009", 21422), ("garbage", 21421), ("+15551230001", 21422)])
async def test_numbers_that_cannot_be_had(world: World, number: str, code: int) -> None:
    await world.stock("+15551230001", account_sid="AC" + "9" * 32)
    reply = await world.post(world.path(NUMBERS), {"PhoneNumber": number})
    assert (reply.status, reply.code) == (400, code)
    assert number in reply.json["message"]


async def test_by_area_code_each_buyer_gets_another(world: World) -> None:
    for number in ("+14155550001", "+14155550002", "+12125550001"):
        await world.stock(number)
    replies = await asyncio.gather(*(world.post(world.path(NUMBERS), {"AreaCode": "415"}) for _ in range(2)))
    assert {reply.json["phone_number"] for reply in replies} == {"+14155550001", "+14155550002"}
    assert (await world.post(world.path(NUMBERS), {"AreaCode": "415"})).code == 21452
    assert (await world.post(world.path(NUMBERS), {"AreaCode": "41"})).code == 21451


async def test_one_of_the_two_must_be_given(world: World) -> None:
    assert (await world.post(world.path(NUMBERS))).code == 20001


@pytest.mark.parametrize(("kind", "type_"), [("Local", "local"), ("Mobile", "mobile"), ("TollFree", "tollfree")])
async def test_the_typed_lists_know_their_type_only(world: World, kind: str, type_: str) -> None:
    await world.stock("+15551230001", type=type_)
    await world.stock("+15551230002", type="voip")
    path = world.path(f"IncomingPhoneNumbers/{kind}.json")
    assert (await world.post(path, {"PhoneNumber": "+15551230002"})).code == 21458
    assert (await world.post(path, {"AreaCode": "555"})).code == 20001
    assert (await world.post(path, {"PhoneNumber": "+15551230001"})).status == 201
    await owned(world, "+15551230003", type="voip")
    found = (await world.get(path)).json["incoming_phone_numbers"]
    assert [one["phone_number"] for one in found] == ["+15551230001"]


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"PhoneNumber": "+15005550000"}, 21422),
        ({"PhoneNumber": "+15005550001"}, 21421),
        ({"PhoneNumber": "+15005550006"}, None),
        ({"PhoneNumber": "+14155551234"}, 21422),
        ({"AreaCode": "533"}, 21452),
        ({"AreaCode": "500"}, None),
    ],
)
async def test_magic_numbers_of_test_credentials(world: World, sent: dict[str, str], code: int | None) -> None:
    path = world.path(NUMBERS, world.owner.test_account_sid)
    reply = await world.post(path, sent, auth=world.test_login)
    if code is None:
        assert reply.status == 201
        assert reply.json["account_sid"] == world.owner.test_account_sid
        assert await world.database.count(PhoneNumber) == 0
    else:
        assert (reply.status, reply.code) == (400, code)


async def test_test_credentials_read_nothing(world: World) -> None:
    path = world.path(NUMBERS, world.owner.test_account_sid)
    assert (await world.get(path, auth=world.test_login)).code == 20008


# -- read


async def test_list_filters(world: World) -> None:
    await owned(world, "+14155550123", friendly_name="Desk")
    await owned(world, "+442071838750", beta=True)
    await world.stock("+14155550999")

    async def numbers(query: str) -> list[str]:
        found = (await world.get(world.path(f"{NUMBERS}?{query}"))).json["incoming_phone_numbers"]
        return [one["phone_number"] for one in found]

    assert await numbers("") == ["+442071838750", "+14155550123"]
    assert await numbers("FriendlyName=Desk") == ["+14155550123"]
    assert await numbers("Beta=true") == ["+442071838750"]
    assert await numbers("PhoneNumber=%2B1415") == ["+14155550123"]
    assert await numbers("PhoneNumber=5550") == ["+14155550123"]
    assert await numbers("PhoneNumber=20*18") == ["+442071838750"]
    assert await numbers("PhoneNumber=%2B415") == []
    assert await numbers("Origin=hosted") == []
    assert await numbers("Origin=twilio&PageSize=1") == ["+442071838750"]
    assert (await world.get(world.path(f"{NUMBERS}?PhoneNumber=abc"))).code == 20422


# -- change


async def test_every_setting_is_kept(world: World) -> None:
    number = await owned(world)
    application = (await world.post(world.path("Applications.json"))).json["sid"]
    trunk = (await world.post("/v1/Trunks", {}, host="trunking.twilio.com")).json["sid"]
    sent = {
        "FriendlyName": "Desk", "SmsUrl": "https://example.com/1", "SmsMethod": "GET", "VoiceMethod": "GET",
        "SmsFallbackUrl": "https://example.com/2", "SmsFallbackMethod": "GET", "VoiceUrl": "https://example.com/3",
        "VoiceFallbackUrl": "https://example.com/4", "VoiceFallbackMethod": "GET", "VoiceCallerIdLookup": "true",
        "StatusCallback": "https://example.com/5", "StatusCallbackMethod": "GET", "SmsApplicationSid": application,
        "VoiceApplicationSid": application, "VoiceReceiveMode": "fax", "TrunkSid": trunk,
        "AddressSid": "AD" + "1" * 32, "IdentitySid": "RI" + "1" * 32, "BundleSid": "BU" + "1" * 32,
        "EmergencyStatus": "Active", "EmergencyAddressSid": "AD" + "2" * 32,
    }  # fmt: skip
    shown = (await world.post(world.path(f"IncomingPhoneNumbers/{number.sid}.json"), sent)).json
    for parameter, value in sent.items():
        name = "".join("_" + c.lower() if c.isupper() else c for c in parameter)[1:]
        assert shown[name] == (True if value == "true" else value), name


async def test_bad_settings_are_refused(world: World) -> None:
    number = await owned(world)
    for sent, code in (
        ({"SmsUrl": "nonsense"}, 21402),
        ({"SmsApplicationSid": "AP" + "0" * 32}, 21218),
        ({"TrunkSid": "XX"}, 20423),
        ({"TrunkSid": "TK" + "0" * 32}, 21245),
        ({"VoiceReceiveMode": "telex"}, 20422),
    ):
        assert (await world.post(world.path(f"IncomingPhoneNumbers/{number.sid}.json"), sent)).code == code


async def test_two_changes_at_once_both_count(world: World) -> None:
    number = await owned(world)
    uri = world.path(f"IncomingPhoneNumbers/{number.sid}.json")
    replies = await asyncio.gather(
        world.post(uri, {"FriendlyName": "Desk"}), world.post(uri, {"SmsUrl": "https://example.com/"})
    )
    assert {reply.status for reply in replies} == {200}
    shown = (await world.get(uri)).json
    assert (shown["friendly_name"], shown["sms_url"]) == ("Desk", "https://example.com/")


async def test_a_number_moves_to_a_subaccount_and_back(world: World) -> None:
    child = await world.subaccount()
    number = await owned(world, sms_url="https://example.com/", sms_application_sid="AP" + "1" * 32)
    sender = ServiceSender(
        sid=number.sid, account_sid=world.owner.sid, service_sid="MG1", kind="phone_number", address="+15551230001"
    )
    await world.database.insert(sender)
    moved = await world.post(world.path(f"IncomingPhoneNumbers/{number.sid}.json"), {"AccountSid": child.sid})
    assert moved.json["account_sid"] == child.sid
    assert (moved.json["sms_url"], moved.json["sms_application_sid"]) == ("https://example.com/", "")
    assert world.services.directory.senders("MG1") == ()
    assert (await world.get(world.path(f"IncomingPhoneNumbers/{number.sid}.json"))).code == 20404
    back = await world.post(moved.json["uri"], {"AccountSid": world.owner.sid})
    assert back.json["account_sid"] == world.owner.sid


async def test_who_may_move_a_number_where(world: World) -> None:
    child = await world.subaccount()
    stranger = await create_account(world.database, world.clock, "Stranger")
    closed = await world.subaccount()
    await world.post(f"/2010-04-01/Accounts/{closed.sid}.json", {"Status": "closed"})
    number = await owned(world)
    uri = world.path(f"IncomingPhoneNumbers/{number.sid}.json")
    for target, code in (("AC1", 21470), ("AC" + "0" * 32, 21471), (closed.sid, 21472), (stranger.sid, 21473)):
        assert (await world.post(uri, {"AccountSid": target})).code == code
    moved = (await world.post(uri, {"AccountSid": child.sid})).json
    login = (child.sid, child.auth_token)
    assert (await world.post(moved["uri"], {"AccountSid": world.owner.sid}, auth=login)).code == 21474


async def test_a_released_number_is_blank_and_available(world: World) -> None:
    number = await owned(world, sms_url="https://example.com/", locality="Hilo", connector="smsc", friendly_name="Desk")
    uri = world.path(f"IncomingPhoneNumbers/{number.sid}.json")
    assert (await world.call("DELETE", uri)).status == 204
    assert (await world.get(uri)).code == 20404
    kept = await world.database.get(PhoneNumber, number.sid)
    assert kept is not None
    assert (kept.account_sid, kept.sms_url, kept.friendly_name, kept.bought_ms) == ("", "", "", 0)
    assert (kept.locality, kept.connector, kept.country) == ("Hilo", "smsc", "US")
    child = await world.subaccount()
    again = await world.post(world.path(NUMBERS, child.sid), {"PhoneNumber": "+15551230001"})
    assert (again.status, again.json["sms_url"]) == (201, "")
