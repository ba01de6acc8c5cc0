"""IP addresses of access control lists.

| property | |
|---|---|
| friendly_name, ip_address | required |
| cidr_prefix_length | the whole address unless it is given |
"""

from ipaddress import ip_network

import pytest

from tests.api.conftest import World
from trunkline.api import sip_ip_addresses
from trunkline.model.sip_domain import SipIpAddress


@pytest.fixture
async def path(world: World) -> str:
    made = (await world.post(world.path("SIP/IpAccessControlLists.json"), {"FriendlyName": "Office"})).json
    found: str = made["subresource_uris"]["ip_addresses"]
    return found


def entry(address: str, **more: str) -> dict[str, str]:
    return {"FriendlyName": "Gateway", "IpAddress": address, **more}


async def test_it_lives_through_all_operations(world: World, path: str) -> None:
    reply = await world.post(path, entry("192.0.2.77"))
    assert reply.status == 201
    made = reply.json
    assert (made["ip_address"], made["cidr_prefix_length"], made["friendly_name"]) == ("192.0.2.77", 32, "Gateway")
    assert made["uri"] == path.removesuffix(".json") + f"/{made['sid']}.json"
    assert (await world.get(made["uri"])).json == made
    changed = (await world.post(made["uri"], {"CidrPrefixLength": "24"})).json
    assert (changed["ip_address"], changed["cidr_prefix_length"]) == ("192.0.2.77", 24)
    assert (await world.post(made["uri"], {"IpAddress": "198.51.100.1"})).json["cidr_prefix_length"] == 24
    assert (await world.post(made["uri"], {"FriendlyName": "Other"})).json["friendly_name"] == "Other"
    assert [one["sid"] for one in (await world.get(path)).json["ip_addresses"]] == [made["sid"]]
    assert (await world.call("DELETE", made["uri"])).status == 204
    assert (await world.get(made["uri"])).code == 20404


async def test_version_6_is_taken_too(world: World, path: str) -> None:
    made = (await world.post(path, entry("2001:db8::1"))).json
    assert made["cidr_prefix_length"] == 128
    assert (await world.post(made["uri"], {"IpAddress": "192.0.2.1"})).json["cidr_prefix_length"] == 32
    network = (await world.post(path, entry("2001:db8::", CidrPrefixLength="48"))).json
    assert (await world.post(network["uri"], {"IpAddress": "10.0.0.1", "CidrPrefixLength": "48"})).code == 21238


@pytest.mark.parametrize(
    "sent",
    [
        entry("example.com"), entry("192.0.2"), entry("192.0.2.256"), entry("192.0.2.1/24"), entry("fe80::1%eth0"),
        entry("192.0.2.1", CidrPrefixLength="33"), entry("192.0.2.1", CidrPrefixLength="0"),
        entry("192.0.2.1", CidrPrefixLength="-1"), entry("192.0.2.1", CidrPrefixLength="x"),
        entry("2001:db8::1", CidrPrefixLength="129"), entry("192.0.2.1", FriendlyName="x" * 256),
    ],
)  # fmt: skip
async def test_what_is_no_address_is_refused(world: World, path: str, sent: dict[str, str]) -> None:
    reply = await world.post(path, sent)
    assert (reply.status, reply.code) == (400, 21238)
    assert await world.database.count(SipIpAddress) == 0
    made = (await world.post(path, entry("10.0.0.1"))).json
    assert (await world.post(made["uri"], sent)).code == 21238
    assert (await world.get(made["uri"])).json == made


async def test_name_and_address_must_be_there(world: World, path: str) -> None:
    assert (await world.post(path, {"IpAddress": "192.0.2.1"})).code == 20001
    assert (await world.post(path, {"FriendlyName": "Gateway"})).code == 20001


async def test_a_list_has_so_many(world: World, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sip_ip_addresses, "MAX_ADDRESSES", 1)
    await world.post(path, entry("192.0.2.1"))
    reply = await world.post(path, entry("192.0.2.2"))
    assert (reply.status, reply.code) == (400, 21237)


async def test_the_directory_follows(world: World, path: str) -> None:
    domain = (await world.post(world.path("SIP/Domains.json"), {"DomainName": "acme.sip.localhost"})).json
    below = domain["uri"].removesuffix(".json")
    sid = {"IpAccessControlListSid": path.split("/")[-2]}
    await world.post(f"{below}/Auth/Calls/IpAccessControlListMappings.json", sid)
    assert world.services.directory.sip_auth_types(domain["sid"], "calls") == ("IP_ACL",)
    made = (await world.post(path, entry("192.0.2.77", CidrPrefixLength="24"))).json
    assert world.services.directory.sip_addresses(domain["sid"], "calls") == (ip_network("192.0.2.0/24"),)
    await world.call("DELETE", made["uri"])
    assert world.services.directory.sip_addresses(domain["sid"], "calls") == ()


async def test_it_is_found_in_its_own_list_only(world: World, path: str) -> None:
    made = (await world.post(path, entry("192.0.2.1"))).json
    other = (await world.post(world.path("SIP/IpAccessControlLists.json"), {"FriendlyName": "More"})).json
    assert (await world.get(other["uri"].removesuffix(".json") + f"/IpAddresses/{made['sid']}.json")).code == 20404
