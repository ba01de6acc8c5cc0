"""Customers' SIP trunks: every resource of trunking.twilio.com.

| resource | |
|---|---|
| Trunks | domain_name, disaster_recovery_url, secure, transfer_mode, recording, auth_type |
| Recording | mode, trim |
| OriginationUrls | sip_url, priority, weight, enabled |
| CredentialLists, IpAccessControlLists | who may call out |
| PhoneNumbers | whose calls go to the origination URLs |
"""

from typing import Any

import msgspec
import pytest

from tests.api.conftest import World
from tests.api.harness import Reply
from tests.api.spec_check import document, needs_contract, null_fields, problems
from trunkline.api import trunking_lists, trunking_origination_urls, trunking_trunks
from trunkline.api.resources import RESOURCES
from trunkline.model.numbers import PhoneNumber
from trunkline.model.sip_trunk import OriginationUrl, SipTrunk

HOST = {"host": "trunking.twilio.com"}
URL = {"Weight": "20", "Priority": "1", "Enabled": "true", "FriendlyName": "PBX", "SipUrl": "sip:pbx.example.com"}
PRODUCT = "trunking_v1"


class Trunking:
    """The product's API, as one account uses it."""

    def __init__(self, world: World, auth: tuple[str, str] | None = None) -> None:
        self.world = world
        self._auth = {"auth": auth} if auth else {}

    async def get(self, path: str) -> Reply:
        return await self.world.get("/v1/Trunks" + path, **HOST, **self._auth)

    async def post(self, path: str, **form: str) -> Reply:
        return await self.world.post("/v1/Trunks" + path, form, **HOST, **self._auth)

    async def delete(self, path: str) -> Reply:
        return await self.world.call("DELETE", "/v1/Trunks" + path, **HOST, **self._auth)

    async def trunk(self, **form: str) -> dict[str, Any]:
        reply = await self.post("", **form)
        assert reply.status == 201, reply.body
        made: dict[str, Any] = reply.json
        return made

    async def users(self, name: str = "Users") -> str:
        made = await self.world.post(self.world.path("SIP/CredentialLists.json"), {"FriendlyName": name})
        return str(made.json["sid"])


@pytest.fixture
def api(world: World) -> Trunking:
    return Trunking(world)


async def test_a_trunk_lives_through_all_operations(api: Trunking) -> None:
    made = await api.trunk(FriendlyName="Office", DomainName="Acme.pstn.twilio.com", DisasterRecoveryMethod="GET")
    sid = made["sid"]
    url = f"http://trunking.twilio.com/v1/Trunks/{sid}"
    assert (made["domain_name"], made["url"]) == ("acme.pstn.twilio.com", url)
    assert made["links"]["origination_urls"] == url + "/OriginationUrls"
    assert made["recording"] == {"mode": "do-not-record", "trim": "do-not-trim"}
    assert (made["auth_type"], made["auth_type_set"], made["transfer_mode"]) == ("", [], "disable-all")
    assert (await api.get(f"/{sid}")).json == made
    changed = (await api.post(f"/{sid}", FriendlyName="Head office", DisasterRecoveryUrl="https://example.com/r")).json
    assert (changed["friendly_name"], changed["disaster_recovery_url"]) == ("Head office", "https://example.com/r")
    assert changed["domain_name"] == "acme.pstn.twilio.com"
    assert (await api.get("")).json["trunks"] == [changed]
    assert (await api.delete(f"/{sid}")).status == 204
    assert (await api.get(f"/{sid}")).code == 20404


async def test_the_directory_knows_trunks_by_their_domains(api: Trunking) -> None:
    made = await api.trunk(DomainName="acme.pstn.localhost")
    known = api.world.services.directory.sip
    for host in ("acme.pstn.localhost", "ACME.pstn.twilio.com", "acme.pstn.ashburn.twilio.com"):
        found = known.trunk(host)
        assert found is not None
        assert found.sid == made["sid"]
    assert known.trunk("acme.sip.twilio.com") is None
    assert api.world.services.directory.sip_domain("acme.pstn.localhost") is None
    await api.post(f"/{made['sid']}", DomainName="")
    assert known.trunk("acme.pstn.localhost") is None
    assert known.trunk_of_sid(made["sid"]) is not None


async def test_domains_are_unique_but_may_be_absent(api: Trunking) -> None:
    for _ in range(2):
        assert (await api.trunk())["domain_name"] is None
    first = await api.trunk(DomainName="acme.pstn.twilio.com")
    child = await api.world.subaccount()
    theirs = Trunking(api.world, (child.sid, child.auth_token))
    for one in (api, theirs):
        assert (await one.post("", DomainName="acme.pstn.localhost")).code == 21248
    other = await api.trunk(DomainName="other.pstn.twilio.com")
    assert (await api.post(f"/{other['sid']}", DomainName=first["domain_name"])).code == 21248


async def test_what_would_have_no_effect_is_refused(api: Trunking) -> None:
    made = await api.trunk()
    for sent in (
        {"Secure": "true"}, {"CnamLookupEnabled": "true"},
        {"TransferMode": "nonsense"}, {"TransferCallerId": "nonsense"}, {"DisasterRecoveryUrl": "nonsense"},
        {"DisasterRecoveryMethod": "PUT"}, {"FriendlyName": "x" * 65}, {"DomainName": "acme.example.com"},
        {"DomainName": "a_b.pstn.twilio.com"}, {"DomainName": "acme.sip.twilio.com"},
    ):  # fmt: skip
        for path in ("", f"/{made['sid']}"):
            reply = await api.post(path, **sent)
            assert (reply.status, reply.code) == (400, 21245), sent
            assert next(iter(sent)) in reply.json["message"]
    allowed = {"Secure": "false", "CnamLookupEnabled": "false", "TransferMode": "disable-all"}
    assert (await api.post(f"/{made['sid']}", **allowed)).status == 200
    assert await api.world.database.count(SipTrunk) == 1


async def test_transfers(api: Trunking) -> None:
    made = await api.trunk(TransferMode="sip-only", TransferCallerId="from-transferor")
    assert (made["transfer_mode"], made["transfer_caller_id"]) == ("sip-only", "from-transferor")
    changed = (await api.post(f"/{made['sid']}", TransferMode="enable-all")).json
    assert (changed["transfer_mode"], changed["transfer_caller_id"]) == ("enable-all", "from-transferor")


async def test_a_secure_trunk_needs_tls(api: Trunking) -> None:
    settings = api.world.services.settings
    sip = msgspec.structs.replace(settings.sip, tls_port=5061)
    api.world.services.settings = msgspec.structs.replace(settings, sip=sip)
    made = await api.trunk(Secure="true")
    assert made["secure"] is True
    assert (await api.post(f"/{made['sid']}", FriendlyName="x")).json["secure"] is True
    assert (await api.post(f"/{made['sid']}", Secure="false")).json["secure"] is False


async def test_recording(api: Trunking) -> None:
    made = await api.trunk()
    path = f"/{made['sid']}/Recording"
    assert (await api.get(path)).json == {"mode": "do-not-record", "trim": "do-not-trim"}
    sent = {"Mode": "record-from-answer-dual", "Trim": "trim-silence"}
    assert (await api.post(path, **sent)).json == {"mode": sent["Mode"], "trim": sent["Trim"]}
    assert (await api.get(f"/{made['sid']}")).json["recording"] == (await api.get(path)).json
    assert (await api.post(path, Mode="always")).code == 21245


async def test_origination_urls(api: Trunking) -> None:
    made = await api.trunk()
    path = f"/{made['sid']}/OriginationUrls"
    one = (await api.post(path, **URL)).json
    assert (one["sip_url"], one["priority"], one["weight"], one["enabled"]) == ("sip:pbx.example.com", 1, 20, True)
    assert one["trunk_sid"] == made["sid"]
    assert (await api.get(f"{path}/{one['sid']}")).json == one
    known = api.world.services.directory.sip.origination_urls
    assert [url.sid for url in known(made["sid"])] == [one["sid"]]
    first = (await api.post(path, **(URL | {"Priority": "0", "SipUrl": "sip://10.0.0.1:5070;transport=tcp"}))).json
    assert [url.sid for url in known(made["sid"])] == [first["sid"], one["sid"]]
    changed = (await api.post(f"{path}/{one['sid']}", Enabled="false", Weight="5", FriendlyName="Old")).json
    assert (changed["enabled"], changed["weight"], changed["friendly_name"]) == (False, 5, "Old")
    assert [url.sid for url in known(made["sid"])] == [first["sid"]]
    assert len((await api.get(path)).json["origination_urls"]) == 2
    assert (await api.delete(f"{path}/{first['sid']}")).status == 204
    assert known(made["sid"]) == ()
    other = await api.trunk()
    assert (await api.get(f"/{other['sid']}/OriginationUrls/{one['sid']}")).code == 20404


@pytest.mark.parametrize(
    "sent",
    [
        {"SipUrl": "pbx.example.com"}, {"SipUrl": "sips:pbx.example.com"}, {"SipUrl": "sip:"}, {"SipUrl": "https://a.b"},
        {"SipUrl": "sip:a.b;transport=ws"}, {"SipUrl": "sip:a.b?Route=x"}, {"SipUrl": 'sip:a.b"/>'}, {"Weight": "0"},
        {"Weight": "65536"}, {"Priority": "-1"}, {"Priority": "x"}, {"FriendlyName": "x" * 65},
    ],
)  # fmt: skip
async def test_a_bad_origination_url_is_refused(api: Trunking, sent: dict[str, str]) -> None:
    made = await api.trunk()
    path = f"/{made['sid']}/OriginationUrls"
    reply = await api.post(path, **(URL | sent))
    assert (reply.status, reply.code) == (400, 21245)
    assert await api.world.database.count(OriginationUrl) == 0
    one = (await api.post(path, **URL)).json
    assert (await api.post(f"{path}/{one['sid']}", **sent)).code == 21245


async def test_every_parameter_of_an_origination_url_must_be_there(api: Trunking) -> None:
    made = await api.trunk()
    for name in URL:
        form = {key: value for key, value in URL.items() if key != name}
        assert (await api.post(f"/{made['sid']}/OriginationUrls", **form)).code == 20001


async def test_lists_let_a_pbx_in(api: Trunking) -> None:
    made, users = await api.trunk(), await api.users()
    networks = await api.world.post(api.world.path("SIP/IpAccessControlLists.json"), {"FriendlyName": "Office"})
    lists = f"/{made['sid']}/CredentialLists"
    reply = await api.post(lists, CredentialListSid=users)
    assert reply.status == 201
    assert (reply.json["sid"], reply.json["trunk_sid"], reply.json["friendly_name"]) == (users, made["sid"], "Users")
    assert (await api.post(lists, CredentialListSid=users)).code == 21245
    sent = {"IpAccessControlListSid": networks.json["sid"]}
    assert (await api.post(f"/{made['sid']}/IpAccessControlLists", **sent)).status == 201
    shown = (await api.get(f"/{made['sid']}")).json
    assert (shown["auth_type"], shown["auth_type_set"]) == ("IP_ACL,CREDENTIAL_LIST", ["IP_ACL", "CREDENTIAL_LIST"])
    assert [one["sid"] for one in (await api.get(lists)).json["credential_lists"]] == [users]
    assert (await api.get(f"{lists}/{users}")).json == reply.json
    taken = api.world.path(f"SIP/CredentialLists/{users}.json")
    assert (await api.world.call("DELETE", taken)).code == 21241
    assert (await api.delete(f"{lists}/{users}")).status == 204
    assert (await api.get(f"{lists}/{users}")).code == 20404
    assert (await api.world.call("DELETE", taken)).status == 204
    for sid in ("CL" + "0" * 32, networks.json["sid"], "nonsense"):
        assert (await api.post(lists, CredentialListSid=sid)).code == 20404


async def test_a_deleted_trunk_frees_its_lists(api: Trunking) -> None:
    made, users = await api.trunk(), await api.users()
    await api.post(f"/{made['sid']}/CredentialLists", CredentialListSid=users)
    await api.post(f"/{made['sid']}/OriginationUrls", **URL)
    assert (await api.delete(f"/{made['sid']}")).status == 204
    assert await api.world.database.count(OriginationUrl) == 0
    assert (await api.world.call("DELETE", api.world.path(f"SIP/CredentialLists/{users}.json"))).status == 204


async def test_phone_numbers(api: Trunking) -> None:
    world, made = api.world, await api.trunk()
    number = await world.stock("+12025550100", account_sid=world.owner.sid, voice_url="https://example.com/v")
    path = f"/{made['sid']}/PhoneNumbers"
    reply = await api.post(path, PhoneNumberSid=number.sid)
    assert reply.status == 201
    assert (reply.json["phone_number"], reply.json["trunk_sid"]) == ("+12025550100", made["sid"])
    incoming = world.path(f"IncomingPhoneNumbers/{number.sid}.json")
    assert reply.json["links"]["phone_number"] == "http://api.twilio.com" + incoming
    assert (await world.get(incoming)).json["trunk_sid"] == made["sid"]
    assert (await api.get(path)).json["phone_numbers"] == [reply.json]
    assert (await api.delete(f"/{made['sid']}")).code == 21247
    other = await api.trunk()
    assert (await api.get(f"/{other['sid']}/PhoneNumbers/{number.sid}")).code == 20404
    assert (await api.post(f"/{other['sid']}/PhoneNumbers", PhoneNumberSid=number.sid)).status == 201
    assert (await api.get(f"{path}/{number.sid}")).code == 20404
    assert (await api.delete(f"/{other['sid']}/PhoneNumbers/{number.sid}")).status == 204
    shown = (await world.get(incoming)).json
    assert (shown["trunk_sid"], shown["voice_url"]) == (None, "https://example.com/v")
    kept = await world.database.get(PhoneNumber, number.sid)
    assert kept is not None
    assert kept.account_sid == world.owner.sid


async def test_only_numbers_of_the_account_that_can_be_called(api: Trunking) -> None:
    made = await api.trunk()
    stranger = await api.world.stock("+12025550101", account_sid="AC" + "9" * 32)
    silent = await api.world.stock("+12025550102", account_sid=api.world.owner.sid, voice_enabled=False)
    path = f"/{made['sid']}/PhoneNumbers"
    assert (await api.post(path, PhoneNumberSid=stranger.sid)).code == 20404
    assert (await api.post(path, PhoneNumberSid="nonsense")).code == 20404
    assert (await api.post(path, PhoneNumberSid=silent.sid)).code == 21245
    assert (await api.post(path)).code == 20001


async def test_another_accounts_trunk_is_not_there(api: Trunking) -> None:
    child = await api.world.subaccount()
    theirs = Trunking(api.world, (child.sid, child.auth_token))
    made = await theirs.trunk()
    for path in ("", "/Recording", "/OriginationUrls", "/CredentialLists", "/IpAccessControlLists", "/PhoneNumbers"):
        assert (await api.get(f"/{made['sid']}{path}")).code == 20404
    assert (await api.delete(f"/{made['sid']}")).code == 20404
    assert (await api.get("")).json["trunks"] == []


async def test_limits(api: Trunking, monkeypatch: pytest.MonkeyPatch) -> None:
    made, users = await api.trunk(), await api.users()
    monkeypatch.setattr(trunking_trunks, "MAX_TRUNKS", 1)
    monkeypatch.setattr(trunking_origination_urls, "MAX_URLS", 0)
    monkeypatch.setattr(trunking_lists, "MAX_MAPPINGS", 0)
    assert (await api.post("")).code == 21244
    assert (await api.post(f"/{made['sid']}/OriginationUrls", **URL)).code == 21249
    assert (await api.post(f"/{made['sid']}/CredentialLists", CredentialListSid=users)).code == 21245


@needs_contract
async def test_every_answer_has_what_is_specified(api: Trunking) -> None:
    world, paths = api.world, document(PRODUCT)["paths"]
    sent = {
        "FriendlyName": "Office", "DomainName": "acme.pstn.twilio.com", "DisasterRecoveryUrl": "https://example.com/r"
    }  # fmt: skip
    made = await api.trunk(**sent)
    urls = dict.fromkeys(("sms_url", "sms_fallback_url", "voice_url", "voice_fallback_url"), "https://example.com/h")
    number = await world.stock(
        "+12025550100", account_sid=world.owner.sid, status_callback="https://example.com/s",
        sms_application_sid="AP" + "1" * 32, voice_application_sid="AP" + "1" * 32, **urls,
    )  # fmt: skip
    networks = await world.post(world.path("SIP/IpAccessControlLists.json"), {"FriendlyName": "Office"})
    for collection, form in {
        "": None,
        "/OriginationUrls": URL,
        "/CredentialLists": {"CredentialListSid": await api.users()},
        "/IpAccessControlLists": {"IpAccessControlListSid": networks.json["sid"]},
        "/PhoneNumbers": {"PhoneNumberSid": number.sid},
    }.items():
        one = made if form is None else (await api.post(f"/{made['sid']}{collection}", **form)).json
        template = "/v1/Trunks" + ("/{TrunkSid}" + collection if collection else "")
        schema = paths[template]["post"]["responses"]["201"]["content"]["application/json"]["schema"]["$ref"]
        name = schema.rpartition("/")[2]
        # Twilio's own example writes addresses of SIP as the format `uri`, which the checker takes for HTTP.
        assert [text for text in problems(PRODUCT, name, one) if not text.startswith("sip_url:")] == []
        assert not {row.field for row in null_fields() if (row.product, row.schema) == (PRODUCT, name)}
        listed = (await api.get(f"/{made['sid']}{collection}" if collection else "")).json
        assert listed[listed["meta"]["key"]] == [one]
    ours = {(r.method, r.template) for routes in RESOURCES.values() for r in routes if r.product == "trunking"}
    theirs = {(m.upper(), path) for path, ops in paths.items() for m in ops if m in ("get", "post", "delete")}
    assert ours == theirs
