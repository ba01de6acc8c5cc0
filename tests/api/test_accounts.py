"""Accounts: who may see, make and change which."""

from tests.api.conftest import World
from trunkline.accounts.directory import create_account, create_api_key
from trunkline.model.numbers import PhoneNumber, ServiceSender

ACCOUNTS = "/2010-04-01/Accounts"


async def test_the_own_account_shows_its_token_and_links(world: World) -> None:
    reply = await world.get(f"{ACCOUNTS}/{world.owner.sid}.json")
    assert reply.status == 200
    shown = reply.json
    assert shown["auth_token"] == world.owner.auth_token
    assert shown["owner_account_sid"] == shown["sid"] == world.owner.sid
    assert shown["type"] == "Full"
    assert shown["status"] == "active"
    assert shown["subresource_uris"]["short_codes"] == f"{ACCOUNTS}/{world.owner.sid}/SMS/ShortCodes.json"
    assert len(shown["subresource_uris"]) == 20


async def test_xml_without_a_suffix(world: World) -> None:
    reply = await world.get(f"{ACCOUNTS}/{world.owner.sid}")
    assert reply.headers["content-type"] == "application/xml"
    assert b"<Account><AuthToken>" in reply.body
    assert f"<Uri>{ACCOUNTS}/{world.owner.sid}</Uri>".encode() in reply.body


async def test_a_subaccount_is_made_and_logs_in_at_once(world: World) -> None:
    made = await world.post(f"{ACCOUNTS}.json", {"FriendlyName": "Customer"})
    assert made.status == 201
    child = made.json
    assert child["owner_account_sid"] == world.owner.sid
    own = await world.get(child["uri"], auth=(child["sid"], child["auth_token"]))
    assert own.json["friendly_name"] == "Customer"
    by_parent = await world.get(child["uri"])
    assert by_parent.json == own.json


async def test_a_subaccount_without_a_name_is_called_by_its_time(world: World) -> None:
    made = await world.post(f"{ACCOUNTS}.json")
    assert made.json["friendly_name"] == "SubAccount Created at 2023-11-14 10:13 pm"


async def test_a_name_that_is_too_long(world: World) -> None:
    reply = await world.post(f"{ACCOUNTS}.json", {"FriendlyName": "x" * 65})
    assert (reply.status, reply.code) == (400, 20002)


async def test_a_subaccount_has_no_subaccounts(world: World) -> None:
    child = await world.subaccount()
    reply = await world.post(f"{ACCOUNTS}.json", {"FriendlyName": "x"}, auth=(child.sid, child.auth_token))
    assert (reply.status, reply.code) == (403, 20003)


async def test_the_list_holds_the_family_and_nobody_else(world: World) -> None:
    child = await world.subaccount("Child")
    await create_account(world.database, world.clock, "Stranger")
    found = (await world.get(f"{ACCOUNTS}.json")).json["accounts"]
    assert {one["sid"] for one in found} == {world.owner.sid, child.sid}
    only = (await world.get(f"{ACCOUNTS}.json?FriendlyName=Child")).json["accounts"]
    assert [one["sid"] for one in only] == [child.sid]
    assert (await world.get(f"{ACCOUNTS}.json?Status=closed")).json["accounts"] == []
    own = await world.get(f"{ACCOUNTS}.json", auth=(child.sid, child.auth_token))
    assert [one["sid"] for one in own.json["accounts"]] == [child.sid]


async def test_pages_follow_each_other_both_ways(world: World) -> None:
    children = []
    for number in range(4):
        world.clock.ms += 1
        children.append((await world.subaccount(f"Child {number}")).sid)
    expected = [*reversed(children), world.owner.sid]
    seen, pages, uri = [], [], f"{ACCOUNTS}.json?PageSize=2"
    while uri:
        page = (await world.get(uri)).json
        pages.append([one["sid"] for one in page["accounts"]])
        seen += pages[-1]
        last, uri = page, page["next_page_uri"]
    assert seen == expected
    back = (await world.get(last["previous_page_uri"])).json
    assert [one["sid"] for one in back["accounts"]] == pages[-2]


async def test_a_parent_suspends_and_reactivates(world: World) -> None:
    child = await world.subaccount()
    uri = f"{ACCOUNTS}/{child.sid}.json"
    login = (child.sid, child.auth_token)
    assert (await world.post(uri, {"Status": "suspended"})).json["status"] == "suspended"
    assert (await world.get(uri, auth=login)).code == 20005
    assert (await world.post(uri, {"Status": "active"})).json["status"] == "active"
    assert (await world.get(uri, auth=login)).status == 200


async def test_closing_is_final_and_gives_the_numbers_back(world: World) -> None:
    child = await world.subaccount()
    number = await world.stock("+15551230001", account_sid=child.sid, sms_url="https://example.com/", bought_ms=5)
    await world.database.insert(
        ServiceSender(
            sid=number.sid, account_sid=child.sid, service_sid="MG1", kind="phone_number", address=number.phone_number
        )
    )
    uri = f"{ACCOUNTS}/{child.sid}.json"
    assert (await world.post(uri, {"Status": "closed"})).json["status"] == "closed"
    freed = await world.database.get(PhoneNumber, number.sid)
    assert freed is not None
    assert (freed.account_sid, freed.sms_url, freed.bought_ms, freed.country) == ("", "", 0, "US")
    assert await world.database.get(ServiceSender, number.sid) is None
    assert (await world.post(uri, {"Status": "active"})).code == 21479
    assert (await world.post(uri, {"Status": "closed"})).status == 200


async def test_nobody_sets_the_status_of_a_main_account_or_of_himself(world: World) -> None:
    reply = await world.post(f"{ACCOUNTS}/{world.owner.sid}.json", {"Status": "closed"})
    assert (reply.status, reply.code) == (400, 21477)
    child = await world.subaccount()
    reply = await world.post(f"{ACCOUNTS}/{child.sid}.json", {"Status": "closed"}, auth=(child.sid, child.auth_token))
    assert (reply.status, reply.code) == (403, 20003)
    assert (await world.post(f"{ACCOUNTS}/{child.sid}.json", {"Status": "gone"})).code == 21475


async def test_renaming(world: World) -> None:
    reply = await world.post(f"{ACCOUNTS}/{world.owner.sid}.json", {"FriendlyName": "New"})
    assert reply.json["friendly_name"] == "New"
    assert (await world.get(f"{ACCOUNTS}/{world.owner.sid}.json")).json["friendly_name"] == "New"


async def test_strangers_are_not_there(world: World) -> None:
    stranger = await create_account(world.database, world.clock, "Stranger")
    assert (await world.get(f"{ACCOUNTS}/{stranger.sid}.json")).code == 20404


async def test_standard_keys_and_test_credentials_are_refused(world: World) -> None:
    key, secret = await create_api_key(world.database, world.clock, world.services.secrets, world.owner.sid)
    for path in (f"{ACCOUNTS}.json", f"{ACCOUNTS}/{world.owner.sid}.json"):
        reply = await world.get(path, auth=(key.sid, secret))
        assert (reply.status, reply.code) == (403, 20003)
    reply = await world.get(f"{ACCOUNTS}/{world.owner.test_account_sid}.json", auth=world.test_login)
    assert (reply.status, reply.code) == (403, 20008)
