"""One account never sees or changes what is another's, by any path or parameter of any resource."""

import json
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from tests.e2e.conftest import Tenant
from tests.security.conftest import Target
from tests.security.raw import Reply, basic, request
from trunkline.api.resources import all_routes
from trunkline.api.route import Route
from trunkline.model.account import Account
from trunkline.model.clock import Clock
from trunkline.model.numbers import Alert, Media, ShortCode
from trunkline.model.recording import Recording
from trunkline.model.sid import new_sid
from trunkline.storage.database import Database

BUSY = "+12029900486"
"""A simulated phone that is engaged."""
FORM = b"Content-Type: application/x-www-form-urlencoded\r\n"
TEXTS = {
    "FriendlyName": "stolen",
    "Body": "",
    "Status": "canceled",
    "SmsUrl": "https://evil.example/",
    "Outcome": "confirmed",
    "Twiml": "<Response/>",
}


def call(target: Target, account: Account, method: str, path: str, form: dict[str, str] | None = None) -> Reply:
    """A request of an account."""
    login = basic(account.sid, account.auth_token)
    with target.raw() as raw:
        raw.send(request(method, path, login + FORM, urlencode(form or {}).encode()))
        return raw.reply()


def made(reply: Reply) -> dict[str, Any]:
    """The resource that was created."""
    assert reply.status == 201, reply
    return dict(json.loads(reply.body))


class Property(NamedTuple):
    """SIDs of the second tenant's resources, by the template that they stand in."""

    sids: dict[str, str]
    parents: dict[str, str]


def voice_property(base: str, number_sid: str, post: Callable[..., str]) -> Property:
    """A SIP domain and a trunk of a tenant's, with all that belongs to them. A mapping has the SID of its list."""
    sip = f"{base}/SIP"
    users = post(f"{sip}/CredentialLists.json", FriendlyName="theirs")
    user = post(f"{sip}/CredentialLists/{users}/Credentials.json", Username="theirs", Password="secretOfTheirs1")
    networks = post(f"{sip}/IpAccessControlLists.json", FriendlyName="theirs")
    network = post(
        f"{sip}/IpAccessControlLists/{networks}/IpAddresses.json", FriendlyName="theirs", IpAddress="192.0.2.1"
    )
    domain = post(f"{sip}/Domains.json", DomainName="theirs.sip.localhost")
    for group in ("Auth/Calls/", "Auth/Registrations/"):
        post(f"{sip}/Domains/{domain}/{group}CredentialListMappings.json", CredentialListSid=users)
    post(f"{sip}/Domains/{domain}/Auth/Calls/IpAccessControlListMappings.json", IpAccessControlListSid=networks)
    trunk = post("/trunking/v1/Trunks", FriendlyName="theirs")
    post(f"/trunking/v1/Trunks/{trunk}/CredentialLists", CredentialListSid=users)
    post(f"/trunking/v1/Trunks/{trunk}/IpAccessControlLists", IpAccessControlListSid=networks)
    post(f"/trunking/v1/Trunks/{trunk}/PhoneNumbers", PhoneNumberSid=number_sid)
    url = {"Weight": "1", "Priority": "1", "Enabled": "true", "FriendlyName": "x", "SipUrl": "sip:pbx.example.com"}
    return Property(
        {
            "CredentialLists/": users,
            "CredentialListMappings/": users,
            "Credentials/": user,
            "IpAccessControlLists/": networks,
            "IpAccessControlListMappings/": networks,
            "IpAddresses/": network,
            "Domains/": domain,
            "Trunks/": trunk,
            "OriginationUrls/": post(f"/trunking/v1/Trunks/{trunk}/OriginationUrls", **url),
        },
        {"CredentialListSid": users, "IpAccessControlListSid": networks, "DomainSid": domain, "TrunkSid": trunk},
    )


@pytest.fixture(scope="session")
def theirs(target: Target) -> Property:
    """Everything that the second tenant can have."""
    account, numbers = target.tenants[1]
    base, services = f"/2010-04-01/Accounts/{account.sid}", "/messaging/v1/Services"

    def post(path: str, **form: str) -> str:
        return str(made(call(target, account, "POST", path, form))["sid"])

    async def seed(database: Database, clock: Clock) -> tuple[str, ...]:
        common: dict[str, Any] = {"account_sid": account.sid, "created_ms": clock.now_ms()}
        code = ShortCode(sid=new_sid("SC"), short_code="54321", **common)
        alert = Alert(sid=new_sid("NO"), error_code="11200", resource_sid=message, **common)
        media = Media(sid=new_sid("ME"), message_sid=message, content_type="image/png", bytes=1, **common)
        heard = Alert(sid=new_sid("NO"), error_code="11200", resource_sid=phoned, **common)
        recording = Recording(
            sid=new_sid("RE"), call_sid=phoned, source="OutboundAPI", status="completed", duration_ms=1000, **common
        )
        await database.insert(code, alert, media, heard, recording)
        return code.sid, alert.sid, media.sid, heard.sid, recording.sid

    number = numbers[0]
    message = post(
        f"{base}/Messages.json", To=numbers[1].phone_number, From=number.phone_number, Body="secret of theirs"
    )
    phoned = post(f"{base}/Calls.json", To=BUSY, From=number.phone_number, Twiml="<Response><!-- secret of theirs -->")
    service = post(services, FriendlyName="theirs")
    code, alert, media, heard, recording = target.server.seed(seed)
    pool = f"{services}/{service}/ShortCodes"
    until = time.monotonic() + 10
    while call(target, account, "POST", pool, {"ShortCodeSid": code}).status != 201:
        assert time.monotonic() < until, "the server does not see what was written beside it"
        time.sleep(0.1)
    key = post(f"{base}/Keys.json")
    calls = voice_property(base, number.sid, post)
    return Property(
        calls.sids
        | {
            "Accounts/": account.sid,
            "Alerts/": alert,
            "Notifications/": alert,
            "Applications/": post(f"{base}/Applications.json", FriendlyName="theirs"),
            "IncomingPhoneNumbers/": number.sid,
            "Keys/": key,
            "SigningKeys/": key,
            "Media/": media,
            "Calls/": phoned,
            "Recordings/": recording,
            "{CallSid}/Notifications/": heard,
            "Messages/": message,
            "Services/": service,
            "AlphaSenders/": post(f"{services}/{service}/AlphaSenders", AlphaSender="THEIRS"),
            "DestinationAlphaSenders/": post(f"{services}/{service}/DestinationAlphaSenders", AlphaSender="THEIRS2"),
            "PhoneNumbers/": post(f"{services}/{service}/PhoneNumbers", PhoneNumberSid=number.sid),
            "ShortCodes/": code,
            "Triggers/": post(
                f"{base}/Usage/Triggers.json", CallbackUrl="https://a.example/", TriggerValue="+1", UsageCategory="sms"
            ),
        },
        calls.parents | {"MessageSid": message, "ServiceSid": service, "CallSid": phoned},
    )  # fmt: skip


def filled(route: Route, account_sid: str, property_: Property) -> str:
    """The route's path with the given account and the second tenant's SIDs."""
    path = route.template.replace("{AccountSid}", account_sid).replace("{CountryCode}", "US")
    path = path.replace("{PhoneNumber}", "+12025550100")
    path = path.replace(
        "{CallSid}/Notifications/{Sid}", "{CallSid}/Notifications/" + property_.sids["{CallSid}/Notifications/"]
    )
    for name, sid in property_.parents.items():
        path = path.replace("{" + name + "}", sid)
    path = re.sub(r"(\w+/)\{Sid\}", lambda m: m[1] + property_.sids[m[1]], path)
    if route.product == "api":
        return path + ".json"
    return f"/{route.product}{path}"


NAMED = [route for route in all_routes() if re.search(r"\{(?!AccountSid)\w*Sid\}", route.template)]
LISTS = [r for r in all_routes() if r.method == "GET" and not r.template.replace("{AccountSid}", "").count("{")]
SCOPED = [route for route in all_routes() if "{AccountSid}" in route.template]


@pytest.mark.parametrize("route", NAMED, ids=lambda route: f"{route.method} {route.template}")
def test_their_resources_are_not_there_for_us(target: Target, theirs: Property, route: Route) -> None:
    ours = target.tenants[0].account
    reply = call(target, ours, route.method, filled(route, ours.sid, theirs), TEXTS if route.method == "POST" else None)
    assert reply.status in (401, 404), reply
    assert b"secret of theirs" not in reply.body
    assert target.tenants[1].account.auth_token.encode() not in reply.body


@pytest.mark.parametrize("route", SCOPED, ids=lambda route: f"{route.method} {route.template}")
def test_their_account_is_closed_to_us(target: Target, theirs: Property, route: Route) -> None:
    ours, other = target.tenants[0].account, target.tenants[1].account
    reply = call(
        target, ours, route.method, filled(route, other.sid, theirs), TEXTS if route.method == "POST" else None
    )
    assert reply.status == 401, reply


@pytest.mark.parametrize("route", NAMED + SCOPED, ids=lambda route: f"{route.method} {route.template}")
def test_nothing_is_there_without_a_login(target: Target, theirs: Property, route: Route) -> None:
    other = target.tenants[1].account
    with target.raw() as raw:
        raw.send(request(route.method, filled(route, other.sid, theirs), FORM))
        assert raw.reply().status == 401


@pytest.mark.parametrize("route", LISTS, ids=lambda route: route.template)
def test_lists_hold_ours_alone(target: Target, theirs: Property, route: Route) -> None:
    ours = target.tenants[0].account
    reply = call(target, ours, "GET", filled(route, ours.sid, theirs))
    assert reply.status == 200
    for sid in {*theirs.sids.values(), target.tenants[1].account.sid}:
        assert sid.encode() not in reply.body


def test_they_still_have_everything(target: Target, theirs: Property) -> None:
    """None of the attempts above changed or deleted anything."""
    other = target.tenants[1].account
    for route in NAMED:
        if route.method == "GET" and route.template.endswith("{Sid}"):
            reply = call(target, other, "GET", filled(route, other.sid, theirs))
            assert reply.status == 200, (route.template, reply)
            assert b"stolen" not in reply.body
            assert b"evil" not in reply.body


def _senders(theirs: Property, ours: Tenant, other: Tenant) -> list[tuple[str, dict[str, str]]]:
    base = f"/2010-04-01/Accounts/{ours.account.sid}"
    own, foreign = ours.numbers[0].phone_number, other.numbers[0].phone_number
    to = {"To": "+12025550177", "Body": "x"}
    return [
        (f"{base}/Messages.json", {**to, "From": foreign}),
        (f"{base}/Messages.json", {**to, "From": "54321"}),
        (f"{base}/Messages.json", {**to, "From": "+12025550123"}),
        (f"{base}/Messages.json", {**to, "From": own, "FallbackFrom": foreign}),
        (f"{base}/Messages.json", {**to, "MessagingServiceSid": theirs.sids["Services/"]}),
        (f"{base}/Messages.json", {**to, "From": own, "MessagingServiceSid": theirs.sids["Services/"]}),
        (f"{base}/Messages.json", {**to, "From": own, "ApplicationSid": theirs.sids["Applications/"]}),
        (f"{base}/IncomingPhoneNumbers.json", {"PhoneNumber": foreign}),
        (f"{base}/Calls.json", {"To": BUSY, "From": foreign, "Twiml": "<Response/>"}),
        (f"{base}/Calls.json", {"To": BUSY, "From": "+12025550123", "Twiml": "<Response/>"}),
        (f"{base}/Calls.json", {"To": BUSY, "From": own, "ApplicationSid": theirs.sids["Applications/"]}),
    ]


@pytest.mark.parametrize("index", range(11))
def test_nobody_sends_with_what_is_not_his(target: Target, theirs: Property, index: int) -> None:
    """No open relay: neither another's number nor one that nobody has."""
    path, form = _senders(theirs, *target.tenants)[index]
    reply = call(target, target.tenants[0].account, "POST", path, form)
    assert reply.status == 400, reply


def test_foreign_references_are_not_taken(target: Target, theirs: Property) -> None:
    """Their application behind our number, their number in our pool, our number in their subaccount."""
    ours, numbers = target.tenants[0]
    number = f"/2010-04-01/Accounts/{ours.sid}/IncomingPhoneNumbers/{numbers[0].sid}.json"
    assert call(target, ours, "POST", number, {"SmsApplicationSid": theirs.sids["Applications/"]}).status in (400, 404)
    assert call(target, ours, "POST", number, {"AccountSid": target.tenants[1].account.sid}).status in (
        400,
        401,
        403,
        404,
    )
    service = made(call(target, ours, "POST", "/messaging/v1/Services", {"FriendlyName": "ours"}))["sid"]
    pool = f"/messaging/v1/Services/{service}"
    reply = call(target, ours, "POST", f"{pool}/PhoneNumbers", {"PhoneNumberSid": theirs.sids["IncomingPhoneNumbers/"]})
    assert reply.status in (400, 404), reply
    reply = call(target, ours, "POST", f"{pool}/ShortCodes", {"ShortCodeSid": theirs.sids["ShortCodes/"]})
    assert reply.status in (400, 404), reply


def test_subaccounts_do_not_reach_up_or_across(target: Target) -> None:
    parent = target.tenants[0].account
    subs = [made(call(target, parent, "POST", "/2010-04-01/Accounts.json", {"FriendlyName": "sub"})) for _ in range(2)]
    first = Account(sid=subs[0]["sid"], auth_token=subs[0]["auth_token"])
    for other in (parent.sid, subs[1]["sid"]):
        assert call(target, first, "GET", f"/2010-04-01/Accounts/{other}.json").status == 404
        assert call(target, first, "GET", f"/2010-04-01/Accounts/{other}/Messages.json").status == 401
        assert call(target, first, "POST", f"/2010-04-01/Accounts/{other}.json", {"Status": "closed"}).status == 404
    assert call(target, parent, "GET", f"/2010-04-01/Accounts/{first.sid}/Messages.json").status == 200
    assert call(target, first, "POST", "/2010-04-01/Accounts.json", {}).status == 403
    for status, expected in (("suspended", 403), ("active", 200), ("closed", 401)):
        assert call(target, parent, "POST", f"/2010-04-01/Accounts/{first.sid}.json", {"Status": status}).status == 200
        assert call(target, first, "GET", f"/2010-04-01/Accounts/{first.sid}/Messages.json").status == expected
    sent = call(target, parent, "POST", f"/2010-04-01/Accounts/{first.sid}/Messages.json", {"To": "+12025550100"})
    assert sent.status == 403


def test_standard_keys_and_test_credentials_reach_nothing_more(target: Target) -> None:
    account = target.tenants[0].account
    base = f"/2010-04-01/Accounts/{account.sid}"
    made_key = made(call(target, account, "POST", f"{base}/Keys.json"))
    key = Account(sid=made_key["sid"], auth_token=made_key["secret"])
    assert call(target, key, "GET", f"{base}/Messages.json").status == 200
    for path in (
        "/2010-04-01/Accounts.json",
        f"{base}.json",
        f"{base}/Keys.json",
        f"{base}/SigningKeys/{key.sid}.json",
    ):
        assert call(target, key, "GET", path).status in (401, 403), path
    test = Account(sid=account.test_account_sid, auth_token=account.test_auth_token)
    for path in (
        f"{base}/Messages.json",
        f"{base}.json",
        f"/2010-04-01/Accounts/{test.sid}/Messages.json",
        "/messaging/v1/Services",
    ):
        assert call(target, test, "GET", path).status in (401, 403, 404), path
    before = json.loads(call(target, account, "GET", f"{base}/Messages.json").body)["messages"]
    form = {"To": "+12025550177", "From": "+15005550006", "Body": "x"}
    assert call(target, test, "POST", f"/2010-04-01/Accounts/{test.sid}/Messages.json", form).status == 201
    after = json.loads(call(target, account, "GET", f"{base}/Messages.json").body)["messages"]
    assert len(after) == len(before)
