"""Applications."""

from tests.api.conftest import World
from trunkline.model.numbers import Application

URLS = ("voice_url", "voice_fallback_url", "status_callback", "sms_url", "sms_fallback_url", "sms_status_callback")


def fields(**more: str) -> dict[str, str]:
    return {"FriendlyName": "Bot", "SmsUrl": "https://example.com/sms", "SmsMethod": "get", **more}


async def test_it_lives_through_all_operations(world: World) -> None:
    made = await world.post(world.path("Applications.json"), fields(VoiceCallerIdLookup="true"))
    assert made.status == 201
    assert made.json["sms_method"] == "GET"
    assert made.json["voice_caller_id_lookup"] is True
    assert made.json["voice_url"] is None
    uri = made.json["uri"]
    assert (await world.get(uri)).json == made.json
    changed = await world.post(uri, {"SmsUrl": "", "VoiceUrl": "http://example.com/v"})
    assert (changed.json["sms_url"], changed.json["voice_url"]) == (None, "http://example.com/v")
    assert changed.json["friendly_name"] == "Bot"
    assert (await world.call("DELETE", uri)).status == 204
    assert (await world.get(uri)).code == 20404


async def test_every_url_and_method_is_kept(world: World) -> None:
    sent = {name.title().replace("_", ""): f"https://example.com/{name}" for name in URLS}
    methods = {f"{name}Method": "GET" for name in ("Voice", "VoiceFallback", "StatusCallback", "Sms", "SmsFallback")}
    sent["MessageStatusCallback"] = "https://example.com/m"
    made = (await world.post(world.path("Applications.json"), sent | methods)).json
    assert {name: made[name] for name in URLS} == {name: f"https://example.com/{name}" for name in URLS}
    assert made["message_status_callback"] == "https://example.com/m"
    assert {value for key, value in made.items() if key.endswith("_method")} == {"GET"}


async def test_without_a_name_it_is_called_by_its_sid(world: World) -> None:
    made = (await world.post(world.path("Applications.json"))).json
    assert made["friendly_name"] == made["sid"]


async def test_bad_parameters_change_nothing(world: World) -> None:
    for sent, code in (
        ({"SmsUrl": "ftp://example.com"}, 21402),
        ({"SmsMethod": "PUT"}, 21403),
        ({"FriendlyName": "x" * 65}, 20002),
        ({"VoiceCallerIdLookup": "perhaps"}, 20422),
    ):
        reply = await world.post(world.path("Applications.json"), sent)
        assert (reply.status, reply.code) == (400, code)
    assert await world.database.count(Application) == 0


async def test_the_list_filters_by_name(world: World) -> None:
    await world.post(world.path("Applications.json"), fields())
    other = (await world.post(world.path("Applications.json"), fields(FriendlyName="Other"))).json
    found = (await world.get(world.path("Applications.json?FriendlyName=Other"))).json
    assert found["applications"] == [other]
    assert "FriendlyName=Other" in found["first_page_uri"]


async def test_another_accounts_application_is_not_there(world: World) -> None:
    child = await world.subaccount()
    made = (await world.post(world.path("Applications.json", child.sid), fields())).json
    assert (await world.get(world.path(f"Applications/{made['sid']}.json"))).code == 20404
    assert (await world.get(made["uri"])).status == 200


async def test_the_directory_follows(world: World) -> None:
    made = (await world.post(world.path("Applications.json"), fields())).json
    known = world.services.directory.application(made["sid"])
    assert known is not None
    assert known.sms_url == "https://example.com/sms"


async def test_test_credentials_are_refused(world: World) -> None:
    path = world.path("Applications.json", world.owner.test_account_sid)
    assert (await world.post(path, fields(), auth=world.test_login)).code == 20008
