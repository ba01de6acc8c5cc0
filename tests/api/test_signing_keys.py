"""SigningKeys are the API keys under another name (the rest: test_keys)."""

from tests.api.conftest import World


async def test_a_key_shows_under_both_names(world: World) -> None:
    made = (await world.post(world.path("SigningKeys.json"), {"FriendlyName": "both"})).json
    as_key = await world.get(world.path(f"Keys/{made['sid']}.json"))
    as_signing_key = await world.get(world.path(f"SigningKeys/{made['sid']}.json"))
    assert as_key.json == as_signing_key.json
    assert b"<SigningKey>" in (await world.get(world.path(f"SigningKeys/{made['sid']}"))).body
