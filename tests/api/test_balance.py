"""Balance: credit less usage."""

from decimal import Decimal

from tests.api.conftest import World
from trunkline.model.account import Account


async def balance(world: World, account: str = "") -> Decimal:
    reply = await world.get(world.path("Balance.json", account))
    assert reply.json["account_sid"] == (account or world.owner.sid)
    assert reply.json["currency"] == "USD"
    return Decimal(reply.json["balance"])


async def credit(world: World, amount: str) -> None:
    account = await world.database.get(Account, world.owner.sid)
    assert account is not None
    account.credit = amount
    await world.database.update(account)


async def test_messages_of_the_family_and_numbers_are_paid_from_the_credit(world: World) -> None:
    child = await world.subaccount()
    await credit(world, "20")
    world.usage.row(world.owner.sid, "2023-11-01", count=10, price="0.75")
    world.usage.row(child.sid, "2023-11-02", price="1.5")
    world.usage.row("AC" + "9" * 32, "2023-11-02", price="100")
    world.usage.row(world.owner.sid, "2023-11-02", price="7", price_unit="EUR")
    await world.stock("+15551230001", account_sid=world.owner.sid, bought_ms=world.clock.ms, monthly_price="1.15")
    assert await balance(world) == Decimal("20") - Decimal("0.75") - Decimal("1.5") - Decimal("1.15")
    assert await balance(world, child.sid) == Decimal("-1.5")


async def test_it_is_remembered_for_a_short_while(world: World) -> None:
    assert await balance(world) == 0
    world.usage.row(world.owner.sid, "2023-11-01", price="1")
    assert await balance(world) == 0
    assert len(world.usage.asked) == 1
    world.clock.ms += 16_000
    assert await balance(world) == -1


async def test_a_failure_is_not_remembered(world: World) -> None:
    world.usage.row(world.owner.sid, "2023-11-01", price="not a number")
    assert (await world.get(world.path("Balance.json"))).status == 500
    world.usage.rows.clear()
    assert await balance(world) == 0
