"""API keys, under both of their names."""

import pytest

from tests.api.conftest import World
from trunkline.accounts.directory import create_api_key
from trunkline.model.account import ApiKey

NAMES = pytest.mark.parametrize(("collection", "list_key"), [("Keys", "keys"), ("SigningKeys", "signing_keys")])


@NAMES
async def test_a_key_works_as_soon_as_it_is_made(world: World, collection: str, list_key: str) -> None:
    made = await world.post(world.path(f"{collection}.json"), {"FriendlyName": "CI"})
    assert made.status == 201
    assert set(made.json) == {"sid", "friendly_name", "date_created", "date_updated", "secret"}
    login = (made.json["sid"], made.json["secret"])
    assert (await world.get(world.path("Applications.json"), auth=login)).status == 200
    shown = (await world.get(world.path(f"{collection}/{made.json['sid']}.json"))).json
    assert shown == {key: value for key, value in made.json.items() if key != "secret"}
    assert [one["sid"] for one in (await world.get(world.path(f"{collection}.json"))).json[list_key]] == [login[0]]


@NAMES
async def test_a_deleted_key_stops_at_once(world: World, collection: str, list_key: str) -> None:
    made = (await world.post(world.path(f"{collection}.json"))).json
    uri = world.path(f"{collection}/{made['sid']}.json")
    assert (await world.call("DELETE", uri)).status == 204
    login = (made["sid"], made["secret"])
    assert (await world.get(world.path("Applications.json"), auth=login)).status == 401
    assert (await world.get(uri)).code == 20404
    assert (await world.get(world.path(f"{collection}.json"))).json[list_key] == []


async def test_the_secret_is_not_kept(world: World) -> None:
    made = (await world.post(world.path("Keys.json"))).json
    kept = await world.database.get(ApiKey, made["sid"])
    assert kept is not None
    assert made["secret"] not in str(kept)
    assert not kept.main


async def test_renaming_leaves_the_secret_valid(world: World) -> None:
    made = (await world.post(world.path("Keys.json"), {"FriendlyName": "old"})).json
    renamed = await world.post(world.path(f"Keys/{made['sid']}.json"), {"FriendlyName": "new"})
    assert renamed.json["friendly_name"] == "new"
    assert (await world.get(world.path("Applications.json"), auth=(made["sid"], made["secret"]))).status == 200


async def test_standard_keys_may_not_touch_keys_but_main_keys_may(world: World) -> None:
    secrets = world.services.secrets
    standard, secret = await create_api_key(world.database, world.clock, secrets, world.owner.sid)
    reply = await world.post(world.path("Keys.json"), auth=(standard.sid, secret))
    assert (reply.status, reply.code) == (403, 20003)
    main, secret = await create_api_key(world.database, world.clock, secrets, world.owner.sid, main=True)
    assert (await world.post(world.path("Keys.json"), auth=(main.sid, secret))).status == 201


async def test_another_accounts_key_is_not_there(world: World) -> None:
    child = await world.subaccount()
    key, _ = await create_api_key(world.database, world.clock, world.services.secrets, child.sid)
    assert (await world.get(world.path(f"Keys/{key.sid}.json"))).code == 20404
    assert (await world.get(world.path(f"Keys/{key.sid}.json", child.sid))).status == 200
    assert (await world.call("DELETE", world.path(f"Keys/{key.sid}.json"))).code == 20404
