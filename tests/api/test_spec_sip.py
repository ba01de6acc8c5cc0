"""SIP domains, lists and mappings have every operation and field that Twilio specifies."""

import re

from tests.api.conftest import World
from tests.api.spec_check import document, needs_contract, null_fields, problems
from tests.api.test_spec_2010 import AS_IN_THE_EXAMPLES, PAGING, PRODUCT, answer_of
from trunkline.api.resources import RESOURCES

SIP = "/2010-04-01/Accounts/{AccountSid}/SIP/"
ROUTES = {
    (route.method, route.template.removeprefix(SIP)): route
    for routes in RESOURCES.values()
    for route in routes
    if route.template.startswith(SIP)
}
URLS = dict.fromkeys(("VoiceUrl", "VoiceFallbackUrl", "VoiceStatusCallbackUrl"), "https://example.com/hook")
USERS, NETWORKS = "CredentialLists/{CredentialListSid}/", "IpAccessControlLists/{IpAccessControlListSid}/"
DOMAIN = "Domains/{DomainSid}/"
CREATED = {
    "Domains": {"DomainName": "acme.sip.localhost", **URLS},
    "CredentialLists": {"FriendlyName": "Users"},
    "IpAccessControlLists": {"FriendlyName": "Office"},
    USERS + "Credentials": {"Username": "alice", "Password": "Signal2018Signal"},
    NETWORKS + "IpAddresses": {"FriendlyName": "Gateway", "IpAddress": "192.0.2.1"},
    DOMAIN + "CredentialListMappings": {},
    DOMAIN + "IpAccessControlListMappings": {},
    DOMAIN + "Auth/Calls/CredentialListMappings": {},
    DOMAIN + "Auth/Calls/IpAccessControlListMappings": {},
    DOMAIN + "Auth/Registrations/CredentialListMappings": {},
}
"""Collections in the order in which they can be made, with what is sent."""
UPDATED = {
    "Domains": {"FriendlyName": "Head office"},
    "CredentialLists": {"FriendlyName": "Everybody"},
    "IpAccessControlLists": {"FriendlyName": "Offices"},
    USERS + "Credentials": {"Password": "Signal2019Signal"},
    NETWORKS + "IpAddresses": {"CidrPrefixLength": "24"},
}

pytestmark = needs_contract


class Checker:
    """Asks, and compares each answer with the document."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.sids = {"AccountSid": world.owner.sid}
        self.seen: set[tuple[str, str]] = set()

    async def ask(self, method: str, template: str, sid: str = "", **form: str) -> str:
        """The SID of what was answered, or of the first in a list."""
        route = ROUTES[method, template]
        self.seen.add((method, template))
        path = re.sub(r"\{(\w+)\}", lambda match: self.sids[match[1]], route.template.replace("{Sid}", sid)) + ".json"
        reply = await (self.world.post(path, form) if method == "POST" else self.world.call(method, path))
        if method == "DELETE":
            assert (reply.status, reply.body) == (204, b"")
            return ""
        status, key, schema = answer_of(route)
        assert reply.status == status, reply.body
        if key:
            assert set(reply.json) == PAGING | {key}
            assert reply.json[key], "there must be something to look at"
        for item in reply.json[key] if key else [reply.json]:
            found = problems(PRODUCT, schema, item)
            assert [one for one in found if not any(known.fullmatch(one) for known in AS_IN_THE_EXAMPLES)] == []
            null = {row.field for row in null_fields() if (row.product, row.schema) == (PRODUCT, schema)}
            assert {field for field in null if item[field] is not None} == set(), "null-fields.md says these are null"
        first = reply.json[key][0] if key else reply.json
        return str(first["sid"])


async def test_every_answer_has_what_is_specified(world: World) -> None:
    checker = Checker(world)
    number = await world.stock("+12025550100", account_sid=world.owner.sid)
    for template, form in CREATED.items():
        collection = template.rpartition("/")[2]
        sent = dict(form)
        if collection == "Domains":
            sent["EmergencyCallerSid"] = number.sid
        mapped = collection.removesuffix("Mappings")
        if mapped != collection:
            sent[mapped + "Sid"] = checker.sids[mapped + "Sid"]
        if template in (
            DOMAIN + "Auth/Calls/CredentialListMappings",
            DOMAIN + "Auth/Calls/IpAccessControlListMappings",
        ):
            older = DOMAIN + collection + "/{Sid}"
            await checker.ask("DELETE", older, sid=sent[mapped + "Sid"])
        sid = await checker.ask("POST", template, **sent)
        checker.sids[collection.removesuffix("s") + "Sid"] = sid
        assert await checker.ask("GET", template) == sid
        assert await checker.ask("GET", template + "/{Sid}", sid) == sid
        if template in UPDATED:
            assert await checker.ask("POST", template + "/{Sid}", sid, **UPDATED[template]) == sid
        if collection == "Domains":
            checker.sids["DomainSid"] = sid
    for template in reversed(CREATED):
        collection = template.rpartition("/")[2]
        if template in (DOMAIN + "CredentialListMappings", DOMAIN + "IpAccessControlListMappings"):
            continue
        sid = checker.sids[collection.removesuffix("s").removesuffix("Mapping") + "Sid"]
        sid = checker.sids["IpAddresseSid"] if collection == "IpAddresses" else sid
        await checker.ask("DELETE", template + "/{Sid}", sid)
    assert checker.seen == set(ROUTES)


def test_no_operation_is_lacking() -> None:
    def shape(method: str, template: str) -> tuple[str, str]:
        return method, template.removesuffix(".json")

    theirs = {
        shape(method.upper(), path.removeprefix(SIP))
        for path, methods in document(PRODUCT)["paths"].items()
        for method in methods
        if path.startswith(SIP) and method in ("get", "post", "delete")
    }
    assert set(ROUTES) == theirs
