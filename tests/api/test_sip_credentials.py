"""Credentials.

| property | |
|---|---|
| username | up to 32 characters, unique in its list, never changed |
| password | at least 12 characters, a digit, mixed case; write-only |
"""

import hashlib

import pytest

from tests.api.conftest import World
from trunkline.api import sip_credentials
from trunkline.model.sip_domain import SipCredential

PASSWORD = "IWasAtSignal2018"


@pytest.fixture
async def path(world: World) -> str:
    made = (await world.post(world.path("SIP/CredentialLists.json"), {"FriendlyName": "Users"})).json
    found: str = made["subresource_uris"]["credentials"]
    return found


async def test_it_lives_through_all_operations(world: World, path: str) -> None:
    reply = await world.post(path, {"Username": "alice", "Password": PASSWORD})
    assert reply.status == 201
    made = reply.json
    assert set(made) == {
        "sid", "account_sid", "credential_list_sid", "username", "date_created", "date_updated", "uri"
    }  # fmt: skip
    assert made["uri"] == path.removesuffix(".json") + f"/{made['sid']}.json"
    assert (await world.get(made["uri"])).json == made
    assert (await world.get(path)).json["credentials"] == [made]
    assert (await world.post(made["uri"], {"Password": "AnotherOne2019"})).json["username"] == "alice"
    assert (await world.call("DELETE", made["uri"])).status == 204
    assert (await world.get(made["uri"])).code == 20404


async def test_the_password_is_kept_as_digests_of_the_realm(world: World, path: str) -> None:
    reply = await world.post(path, {"Username": "alice", "Password": PASSWORD})
    assert PASSWORD.encode() not in reply.body
    kept = await world.database.get(SipCredential, reply.json["sid"])
    assert kept is not None
    assert kept.realm == "trunkline"
    assert kept.ha1_md5 == hashlib.md5(f"alice:trunkline:{PASSWORD}".encode()).hexdigest()
    assert kept.ha1_sha256 == hashlib.sha256(f"alice:trunkline:{PASSWORD}".encode()).hexdigest()
    assert PASSWORD not in repr(kept)
    await world.post(reply.json["uri"], {"Password": "AnotherOne2019"})
    changed = await world.database.get(SipCredential, reply.json["sid"])
    assert changed is not None
    assert changed.ha1_md5 == hashlib.md5(b"alice:trunkline:AnotherOne2019").hexdigest()


async def test_the_directory_knows_the_user_at_once(world: World, path: str) -> None:
    domain = (await world.post(world.path("SIP/Domains.json"), {"DomainName": "acme.sip.localhost"})).json
    list_sid = path.split("/")[-2]
    below = domain["uri"].removesuffix(".json")
    await world.post(f"{below}/Auth/Registrations/CredentialListMappings.json", {"CredentialListSid": list_sid})
    made = (await world.post(path, {"Username": "alice", "Password": PASSWORD})).json
    login = world.services.directory.sip_login
    (known,) = login(domain["sid"], "alice", "registrations")
    assert known.md5 == hashlib.md5(f"alice:trunkline:{PASSWORD}".encode()).hexdigest()
    assert login(domain["sid"], "alice", "calls") == ()
    await world.call("DELETE", made["uri"])
    assert login(domain["sid"], "alice", "registrations") == ()


@pytest.mark.parametrize(
    "password",
    ["Short1Abcde", "nouppercase123", "NOLOWERCASE123", "NoDigitsAtAll", "Control\x07Char123", "A1" + "a" * 255],
)
async def test_a_weak_password_is_refused(world: World, path: str, password: str) -> None:
    reply = await world.post(path, {"Username": "alice", "Password": password})
    assert (reply.status, reply.code) == (400, 21243)
    assert password not in reply.json["message"]
    made = (await world.post(path, {"Username": "bob", "Password": PASSWORD})).json
    assert (await world.post(made["uri"], {"Password": password})).code == 21243


@pytest.mark.parametrize("name", ["a:b", "a b", 'a"b', "a@b", "ä", "x" * 33, "a\\b"])
async def test_a_name_that_digests_cannot_carry_is_refused(world: World, path: str, name: str) -> None:
    reply = await world.post(path, {"Username": name, "Password": PASSWORD})
    assert (reply.status, reply.code) == (400, 21243)
    assert await world.database.count(SipCredential) == 0


async def test_both_must_be_there(world: World, path: str) -> None:
    assert (await world.post(path, {"Password": PASSWORD})).code == 20001
    assert (await world.post(path, {"Username": "alice"})).code == 20001


async def test_a_name_is_once_in_a_list(world: World, path: str) -> None:
    for name in ("alice", "Alice", "+15005550006"):
        assert (await world.post(path, {"Username": name, "Password": PASSWORD})).status == 201
    reply = await world.post(path, {"Username": "alice", "Password": PASSWORD})
    assert (reply.status, reply.code) == (400, 21243)
    other = (await world.post(world.path("SIP/CredentialLists.json"), {"FriendlyName": "More"})).json
    again = await world.post(other["subresource_uris"]["credentials"], {"Username": "alice", "Password": PASSWORD})
    assert again.status == 201


async def test_it_is_found_in_its_own_list_only(world: World, path: str) -> None:
    made = (await world.post(path, {"Username": "alice", "Password": PASSWORD})).json
    other = (await world.post(world.path("SIP/CredentialLists.json"), {"FriendlyName": "More"})).json
    elsewhere = other["uri"].removesuffix(".json") + f"/Credentials/{made['sid']}.json"
    assert (await world.get(elsewhere)).code == 20404
    assert (await world.call("DELETE", elsewhere)).code == 20404
    assert (await world.get(other["subresource_uris"]["credentials"])).json["credentials"] == []


async def test_a_list_has_so_many(world: World, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sip_credentials, "MAX_CREDENTIALS", 1)
    await world.post(path, {"Username": "alice", "Password": PASSWORD})
    reply = await world.post(path, {"Username": "bob", "Password": PASSWORD})
    assert (reply.status, reply.code) == (400, 21242)
