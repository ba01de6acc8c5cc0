"""SIP domains.

| property | |
|---|---|
| domain_name | the host that phones call; ends with the server's suffix or sip.twilio.com |
| auth_type | IP_ACL, CREDENTIAL_LIST, both with a comma, or empty: nobody may call |
| voice_url, voice_fallback_url, voice_status_callback_url | and their methods |
| sip_registration, secure, emergency_calling_enabled | switches, off |
| byoc_trunk_sid, emergency_caller_sid | |
| subresource_uris | the two kinds of mappings |
"""

from typing import Any

import pytest

from tests.api.conftest import World
from trunkline.api import sip_domains
from trunkline.model.sip_domain import SipDomain, SipMapping

NAME = "acme.sip.localhost"


async def make(world: World, name: str = NAME, account: str = "", **more: str) -> dict[str, Any]:
    reply = await world.post(world.path("SIP/Domains.json", account), {"DomainName": name, **more})
    assert reply.status == 201, reply.body
    made: dict[str, Any] = reply.json
    return made


async def test_it_lives_through_all_operations(world: World) -> None:
    made = await make(world, VoiceUrl="https://example.com/v", SipRegistration="true", Secure="true")
    assert made["domain_name"] == made["friendly_name"] == NAME
    assert (made["auth_type"], made["voice_method"], made["voice_fallback_url"]) == ("", "POST", None)
    assert (made["sip_registration"], made["secure"], made["emergency_calling_enabled"]) == (True, True, False)
    path = world.path(f"SIP/Domains/{made['sid']}")
    assert made["uri"] == path + ".json"
    assert made["subresource_uris"] == {
        "credential_list_mappings": path + "/CredentialListMappings.json",
        "ip_access_control_list_mappings": path + "/IpAccessControlListMappings.json",
    }
    assert (await world.get(made["uri"])).json == made
    sent = {
        "FriendlyName": "Office", "VoiceUrl": "", "VoiceMethod": "GET", "SipRegistration": "false",
        "VoiceStatusCallbackUrl": "https://example.com/s", "VoiceStatusCallbackMethod": "GET",
        "VoiceFallbackUrl": "https://example.com/f", "VoiceFallbackMethod": "GET",
    }  # fmt: skip
    changed = (await world.post(made["uri"], sent)).json
    assert (changed["friendly_name"], changed["voice_url"], changed["sip_registration"]) == ("Office", None, False)
    assert changed["voice_status_callback_url"] == "https://example.com/s"
    assert changed["voice_fallback_url"] == "https://example.com/f"
    assert {value for name, value in changed.items() if name.endswith("_method")} == {"GET"}
    assert changed["secure"] is True
    assert (await world.get(world.path("SIP/Domains.json"))).json["domains"] == [changed]
    assert (await world.call("DELETE", made["uri"])).status == 204
    assert (await world.get(made["uri"])).code == 20404
    assert world.services.directory.sip_domain(NAME) is None


async def test_the_directory_follows(world: World) -> None:
    made = await make(world, "ACME.Sip.Twilio.com")
    assert made["domain_name"] == "acme.sip.twilio.com"
    for host in ("acme.sip.twilio.com", "acme.sip.localhost"):
        known = world.services.directory.sip_domain(host)
        assert known is not None
        assert known.sid == made["sid"]
    await world.post(made["uri"], {"DomainName": "other.sip.localhost"})
    assert world.services.directory.sip_domain("acme.sip.twilio.com") is None
    known = world.services.directory.sip_domain("other.sip.localhost")
    assert known is not None
    assert known.domain_name == "other.sip.localhost"


@pytest.mark.parametrize(
    "name",
    [
        "acme", "acme.example.com", "sip.localhost", ".sip.localhost", "a_b.sip.localhost", "-a.sip.localhost",
        "a-.sip.localhost", "a..sip.localhost", "x" * 64 + ".sip.localhost", "é.sip.localhost", "a b.sip.localhost",
        "acme.sip.us1.twilio.com", "acme.pstn.twilio.com",
    ],
)  # fmt: skip
async def test_a_name_that_cannot_be_is_refused(world: World, name: str) -> None:
    reply = await world.post(world.path("SIP/Domains.json"), {"DomainName": name})
    assert (reply.status, reply.code) == (400, 21232)
    assert await world.database.count(SipDomain) == 0


async def test_a_name_is_taken_once_whatever_its_suffix(world: World) -> None:
    made = await make(world)
    other = await make(world, "other.sip.localhost")
    child = await world.subaccount()
    for name in (NAME, "acme.sip.twilio.com"):
        for account in ("", child.sid):
            reply = await world.post(world.path("SIP/Domains.json", account), {"DomainName": name})
            assert (reply.status, reply.code) == (400, 21232)
        assert (await world.post(other["uri"], {"DomainName": name})).code == 21232
    assert (await world.post(made["uri"], {"DomainName": NAME, "FriendlyName": "Same"})).status == 200


async def test_subdomains_are_their_owners(world: World) -> None:
    child = await world.subaccount()
    alone = await world.post(world.path("SIP/Domains.json"), {"DomainName": "eu.acme.sip.localhost"})
    assert alone.code == 21232
    made = await make(world)
    reply = await world.post(world.path("SIP/Domains.json", child.sid), {"DomainName": "eu.acme.sip.localhost"})
    assert reply.code == 21232
    below = await make(world, "eu.acme.sip.localhost")
    assert (await world.call("DELETE", made["uri"])).code == 21233
    assert (await world.post(made["uri"], {"DomainName": "renamed.sip.localhost"})).code == 21233
    assert (await world.call("DELETE", below["uri"])).status == 204
    assert (await world.call("DELETE", made["uri"])).status == 204


async def test_bad_parameters_change_nothing(world: World) -> None:
    made = await make(world)
    stranger = await world.stock("+12025550111", account_sid="AC" + "9" * 32)
    for sent, code in (
        ({"VoiceUrl": "ftp://example.com"}, 21231),
        ({"VoiceFallbackMethod": "PUT"}, 21231),
        ({"FriendlyName": "x" * 65}, 21231),
        ({"Secure": "perhaps"}, 20422),
        ({"ByocTrunkSid": "BY" + "1" * 32}, 21300),
        ({"EmergencyCallingEnabled": "true"}, 21231),
        ({"EmergencyCallerSid": "nonsense"}, 21231),
        ({"EmergencyCallerSid": stranger.sid}, 21231),
    ):
        for path in (world.path("SIP/Domains.json"), made["uri"]):
            reply = await world.post(path, {"DomainName": "new.sip.localhost"} | sent)
            assert (reply.status, reply.code) == (400, code), (sent, reply.body)
            assert next(iter(sent)) in reply.json["message"] or code == 21300
    assert (await world.get(made["uri"])).json == made
    assert await world.database.count(SipDomain) == 1
    assert (await world.post(world.path("SIP/Domains.json"), {})).code == 20001


async def test_an_emergency_caller_is_a_number_of_the_account(world: World) -> None:
    own = await world.stock("+12025550112", account_sid=world.owner.sid)
    made = await make(world, EmergencyCallerSid=own.sid, EmergencyCallingEnabled="false")
    assert made["emergency_caller_sid"] == own.sid
    assert (await world.post(made["uri"], {"EmergencyCallerSid": ""})).json["emergency_caller_sid"] is None


async def test_another_accounts_domain_is_not_there(world: World) -> None:
    child = await world.subaccount()
    made = await make(world, account=child.sid)
    path = world.path(f"SIP/Domains/{made['sid']}.json")
    assert (await world.get(path)).code == 20404
    assert (await world.post(path, {"FriendlyName": "mine"})).code == 20404
    assert (await world.call("DELETE", path)).code == 20404
    assert (await world.get(world.path("SIP/Domains.json"))).json["domains"] == []
    assert (await world.get(made["uri"])).json == made


async def test_an_account_has_so_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sip_domains, "MAX_DOMAINS", 1)
    await make(world)
    reply = await world.post(world.path("SIP/Domains.json"), {"DomainName": "two.sip.localhost"})
    assert (reply.status, reply.code) == (400, 21230)


async def test_the_list_is_paged(world: World) -> None:
    for i in range(3):
        world.clock.ms += 1000
        await make(world, f"d{i}.sip.localhost")
    page = (await world.get(world.path("SIP/Domains.json?PageSize=2"))).json
    assert [one["domain_name"] for one in page["domains"]] == ["d2.sip.localhost", "d1.sip.localhost"]
    rest = (await world.get(page["next_page_uri"])).json
    assert [one["domain_name"] for one in rest["domains"]] == ["d0.sip.localhost"]
    assert rest["next_page_uri"] is None


async def test_xml(world: World) -> None:
    made = await make(world)
    body = (await world.get(made["uri"].removesuffix(".json"))).body.decode()
    assert "<TwilioResponse><Domain><AccountSid>" in body
    assert f"<DomainName>{NAME}</DomainName>" in body
    assert "<SubresourceUris><CredentialListMappings>/2010-04-01/" in body
    listed = (await world.get(world.path("SIP/Domains"))).body.decode()
    assert "<Domains " in listed
    assert f"<Sid>{made['sid']}</Sid>" in listed


async def test_a_deleted_domain_takes_its_mappings_along(world: World) -> None:
    made = await make(world)
    users = (await world.post(world.path("SIP/CredentialLists.json"), {"FriendlyName": "Users"})).json
    mappings = made["uri"].removesuffix(".json") + "/Auth/Calls/CredentialListMappings.json"
    assert (await world.post(mappings, {"CredentialListSid": users["sid"]})).status == 201
    assert (await world.get(made["uri"])).json["auth_type"] == "CREDENTIAL_LIST"
    assert (await world.call("DELETE", made["uri"])).status == 204
    assert await world.database.count(SipMapping) == 0
    assert (await world.call("DELETE", users["uri"])).status == 204


async def test_test_credentials_are_refused(world: World) -> None:
    path = world.path("SIP/Domains.json", world.owner.test_account_sid)
    assert (await world.post(path, {"DomainName": NAME}, auth=world.test_login)).code == 20008
