"""Mappings of lists to SIP domains.

| collection | lets |
|---|---|
| Domains/{}/CredentialListMappings, Auth/Calls/CredentialListMappings | users call |
| Domains/{}/IpAccessControlListMappings, Auth/Calls/IpAccessControlListMappings | addresses call |
| Auth/Registrations/CredentialListMappings | phones register |
"""

from typing import Any, NamedTuple

import pytest

from tests.api.conftest import World
from trunkline.api import sip_mappings
from trunkline.api.sip_mappings import KINDS, MappingKind

every = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.below + kind.collection)


class Scene(NamedTuple):
    domain: dict[str, Any]
    lists: dict[str, dict[str, Any]]

    def path(self, kind: MappingKind) -> str:
        return f"{self.domain['uri'].removesuffix('.json')}/{kind.below}{kind.collection}"

    def of(self, kind: MappingKind) -> dict[str, Any]:
        return self.lists[kind.lists.collection]

    def sent(self, kind: MappingKind) -> dict[str, str]:
        return {f"{kind.lists.element}Sid": self.of(kind)["sid"]}


async def build(world: World, account: str = "", name: str = "acme") -> Scene:
    domain = await world.post(world.path("SIP/Domains.json", account), {"DomainName": f"{name}.sip.localhost"})
    lists = {
        kind: (await world.post(world.path(f"SIP/{kind}.json", account), {"FriendlyName": kind})).json
        for kind in ("CredentialLists", "IpAccessControlLists")
    }
    return Scene(domain.json, lists)


@pytest.fixture
async def scene(world: World) -> Scene:
    return await build(world)


@every
async def test_it_lives_through_all_operations(world: World, scene: Scene, kind: MappingKind) -> None:
    reply = await world.post(scene.path(kind) + ".json", scene.sent(kind))
    assert reply.status == 201, reply.body
    made, mapped = reply.json, scene.of(kind)
    assert (made["sid"], made["friendly_name"]) == (mapped["sid"], mapped["friendly_name"])
    one = f"{scene.path(kind)}/{mapped['sid']}.json"
    if kind.below:
        assert "domain_sid" not in made
        assert "uri" not in made
    else:
        assert (made["domain_sid"], made["uri"]) == (scene.domain["sid"], one)
    assert (await world.get(one)).json == made
    listed = (await world.get(scene.path(kind) + ".json")).json
    assert listed["contents" if kind.below else kind.key] == [made]
    assert (await world.call("DELETE", one)).status == 204
    assert (await world.get(one)).code == 20404
    assert (await world.get(mapped["uri"])).status == 200


@every
async def test_a_list_is_mapped_once(world: World, scene: Scene, kind: MappingKind) -> None:
    assert (await world.post(scene.path(kind) + ".json", scene.sent(kind))).status == 201
    reply = await world.post(scene.path(kind) + ".json", scene.sent(kind))
    assert (reply.status, reply.code) == (400, 21231)


@every
async def test_what_is_not_the_accounts_own_cannot_be_mapped(world: World, scene: Scene, kind: MappingKind) -> None:
    path, parameter = scene.path(kind) + ".json", f"{kind.lists.element}Sid"
    theirs = await build(world, (await world.subaccount()).sid, "other")
    wrong = next(one for name, one in scene.lists.items() if name != kind.lists.collection)
    for sid in (theirs.of(kind)["sid"], wrong["sid"], "nonsense", kind.lists.prefix + "0" * 32):
        assert (await world.post(path, {parameter: sid})).code == 20404
    assert (await world.post(path, {})).code == 20001
    foreign = path.replace(scene.domain["sid"], theirs.domain["sid"])
    assert (await world.post(foreign, scene.sent(kind))).code == 20404
    assert (await world.get(foreign)).code == 20404


async def test_both_forms_show_the_same_but_registrations_stand_alone(world: World, scene: Scene) -> None:
    older, acl, auth, auth_acl, registrations = KINDS
    await world.post(scene.path(older) + ".json", scene.sent(older))
    await world.post(scene.path(auth_acl) + ".json", scene.sent(auth_acl))
    for kind, count in ((older, 1), (auth, 1), (acl, 1), (auth_acl, 1), (registrations, 0)):
        listed = (await world.get(scene.path(kind) + ".json")).json
        assert len(listed["contents" if kind.below else kind.key]) == count
    assert (await world.get(scene.domain["uri"])).json["auth_type"] == "IP_ACL,CREDENTIAL_LIST"
    await world.post(scene.path(registrations) + ".json", scene.sent(registrations))
    await world.call("DELETE", f"{scene.path(auth)}/{scene.of(auth)['sid']}.json")
    assert (await world.get(scene.domain["uri"])).json["auth_type"] == "IP_ACL"
    assert len((await world.get(scene.path(registrations) + ".json")).json["contents"]) == 1


async def test_the_list_is_paged(world: World, scene: Scene) -> None:
    kind = KINDS[2]
    sids = []
    for i in range(3):
        made = (await world.post(world.path("SIP/CredentialLists.json"), {"FriendlyName": f"List {i}"})).json
        await world.post(scene.path(kind) + ".json", {"CredentialListSid": made["sid"]})
        sids.append(made["sid"])
    sids.sort(reverse=True)
    page = (await world.get(scene.path(kind) + ".json?PageSize=2")).json
    assert [one["sid"] for one in page["contents"]] == sids[:2]
    rest = (await world.get(page["next_page_uri"])).json
    assert [one["sid"] for one in rest["contents"]] == sids[2:]
    back = (await world.get(rest["previous_page_uri"])).json
    assert [one["sid"] for one in back["contents"]] == sids[:2]


async def test_a_domain_has_so_many(world: World, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sip_mappings, "MAX_MAPPINGS", 0)
    reply = await world.post(scene.path(KINDS[0]) + ".json", scene.sent(KINDS[0]))
    assert (reply.status, reply.code) == (400, 21231)


async def test_xml(world: World, scene: Scene) -> None:
    await world.post(scene.path(KINDS[1]) + ".json", scene.sent(KINDS[1]))
    body = (await world.get(scene.path(KINDS[1]))).body.decode()
    assert "<IpAccessControlListMappings " in body
    assert "<IpAccessControlListMapping><AccountSid>" in body
