"""Credential lists and IP access control lists.

| property | |
|---|---|
| friendly_name | required; up to 64 characters (credential lists), 255 (access control lists) |
| subresource_uris | credentials, ip_addresses |
"""

from typing import Any

import pytest

from tests.api.conftest import World
from trunkline.api import sip_credential_lists, sip_ip_access_control_lists
from trunkline.api.sip_lists import ListKind
from trunkline.model.sip_domain import SipCredential, SipIpAddress

USERS, NETWORKS = sip_credential_lists.KIND, sip_ip_access_control_lists.KIND
both = pytest.mark.parametrize("kind", [USERS, NETWORKS], ids=lambda kind: kind.collection)
ENTRIES = {
    "CredentialLists": {"Username": "alice", "Password": "CorrectHorse1"},
    "IpAccessControlLists": {"FriendlyName": "Office", "IpAddress": "192.0.2.1"},
}


async def make(world: World, kind: ListKind, name: str = "List", account: str = "") -> dict[str, Any]:
    reply = await world.post(world.path(f"SIP/{kind.collection}.json", account), {"FriendlyName": name})
    assert reply.status == 201, reply.body
    made: dict[str, Any] = reply.json
    return made


async def add(world: World, kind: ListKind, made: dict[str, Any], entry: dict[str, str]) -> None:
    (entries,) = made["subresource_uris"].values()
    reply = await world.post(entries, entry)
    assert reply.status == 201, reply.body


@both
async def test_it_lives_through_all_operations(world: World, kind: ListKind) -> None:
    made = await make(world, kind)
    path = world.path(f"SIP/{kind.collection}/{made['sid']}")
    assert made["uri"] == path + ".json"
    assert list(made["subresource_uris"].values()) == [f"{path}/{kind.entries}.json"]
    assert (await world.get(made["uri"])).json == made
    changed = (await world.post(made["uri"], {"FriendlyName": "Renamed"})).json
    assert changed["friendly_name"] == "Renamed"
    listed = (await world.get(world.path(f"SIP/{kind.collection}.json"))).json
    assert listed[kind.key] == [changed]
    assert (await world.call("DELETE", made["uri"])).status == 204
    assert (await world.get(made["uri"])).code == 20404


@both
async def test_the_name_must_be_there_and_not_too_long(world: World, kind: ListKind) -> None:
    made = await make(world, kind, "x" * kind.max_name)
    for path in (world.path(f"SIP/{kind.collection}.json"), made["uri"]):
        for sent in ({}, {"FriendlyName": ""}, {"FriendlyName": "  "}):
            assert (await world.post(path, sent)).code == 20001
        assert (await world.post(path, {"FriendlyName": "x" * (kind.max_name + 1)})).code == kind.invalid
    assert await world.database.count(kind.record) == 1


@both
async def test_a_deleted_list_takes_its_entries_along(world: World, kind: ListKind) -> None:
    made, other = await make(world, kind), await make(world, kind)
    for one in (made, other):
        await add(world, kind, one, ENTRIES[kind.collection])
    assert (await world.call("DELETE", made["uri"])).status == 204
    assert await world.database.count(SipCredential) + await world.database.count(SipIpAddress) == 1


@both
async def test_a_mapped_list_cannot_be_deleted(world: World, kind: ListKind) -> None:
    made = await make(world, kind)
    domain = (await world.post(world.path("SIP/Domains.json"), {"DomainName": "acme.sip.localhost"})).json
    mappings = f"{domain['uri'].removesuffix('.json')}/{kind.element}Mappings"
    assert (await world.post(f"{mappings}.json", {f"{kind.element}Sid": made["sid"]})).status == 201
    reply = await world.call("DELETE", made["uri"])
    assert (reply.status, reply.code) == (400, kind.in_use)
    assert (await world.call("DELETE", f"{mappings}/{made['sid']}.json")).status == 204
    assert (await world.call("DELETE", made["uri"])).status == 204


@both
async def test_another_accounts_list_is_not_there(world: World, kind: ListKind) -> None:
    child = await world.subaccount()
    made = await make(world, kind, account=child.sid)
    path = world.path(f"SIP/{kind.collection}/{made['sid']}")
    assert (await world.get(path + ".json")).code == 20404
    assert (await world.call("DELETE", path + ".json")).code == 20404
    assert (await world.get(f"{path}/{kind.entries}.json")).code == 20404
    assert (await world.post(f"{path}/{kind.entries}.json", ENTRIES[kind.collection])).code == 20404
    other = NETWORKS if kind is USERS else USERS
    mixed = world.path(f"SIP/{other.collection}/{made['sid']}.json", child.sid)
    assert (await world.get(mixed)).code == 20404


async def test_a_hundred_credential_lists_are_the_most(world: World) -> None:
    for i in range(100):
        await make(world, USERS, f"List {i}")
    reply = await world.post(world.path("SIP/CredentialLists.json"), {"FriendlyName": "One more"})
    assert (reply.status, reply.code) == (400, 21239)


async def test_xml(world: World) -> None:
    made = await make(world, NETWORKS, "Büro & Co")
    body = (await world.get(made["uri"].removesuffix(".json"))).body.decode()
    assert "<IpAccessControlList><AccountSid>" in body
    assert "<FriendlyName>Büro &amp; Co</FriendlyName>" in body
    assert f"/SIP/IpAccessControlLists/{made['sid']}/IpAddresses</IpAddresses>" in body
