"""What one account said about a number does not reach the next."""

import msgspec

from trunkline.messaging import inventory
from trunkline.model.numbers import PhoneNumber, ServiceSender

AC = "AC" + "a" * 32
TEXT = {name.name: "said" for name in msgspec.structs.fields(PhoneNumber) if name.type is str}


async def test_released_number_keeps_its_plan_and_forgets_its_account(database):
    said = {name: value for name, value in TEXT.items() if name not in inventory.INVENTORY}
    number = PhoneNumber(sid="PN1", phone_number="+12025550142", country="US", connector="acme", bought_ms=5, **said)
    sender = ServiceSender(sid="PN1", service_sid="MG1", kind="phone_number", address=number.phone_number)
    await database.insert(number, sender)
    await inventory.release(database, number)
    kept = await database.get(PhoneNumber, "PN1")
    assert "said" not in msgspec.to_builtins(kept).values()
    assert (kept.account_sid, kept.bought_ms) == ("", 0)
    assert (kept.country, kept.connector) == ("US", "acme")
    assert await database.get(ServiceSender, "PN1") is None


async def test_closed_account_keeps_no_number(database):
    await database.insert(
        *(PhoneNumber(sid=f"PN{n}", phone_number=f"+1202555010{n}", account_sid=AC) for n in range(5)),
        PhoneNumber(sid="PN9", phone_number="+12025550109", account_sid="AC" + "b" * 32),
    )
    await inventory.release_all(database, AC)
    assert await database.count(PhoneNumber, {"account_sid": AC}) == 0
    assert await database.count(PhoneNumber, {"account_sid": ""}) == 5
