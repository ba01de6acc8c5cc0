"""Lists over what is scheduled, in flight and landed."""

import pytest

from trunkline.messaging.outbound import NewMessage
from trunkline.model import message as codec
from trunkline.model.message import Status
from trunkline.model.numbers import ScheduledMessage
from trunkline.storage.archive import Document

from .world import AC, OURS, THEM, eventually

OTHER = "AC" + "b" * 32
ELSEWHERE = "+14155550177"


async def schedule(world, status="scheduled", **changes):
    message = world.outbound.draft(NewMessage(**({"account_sid": AC, "from_": OURS, "to": THEM} | changes)))
    await world.database.insert(
        ScheduledMessage(
            sid=message.sid,
            account_sid=message.account_sid,
            send_at_ms=world.clock.now_ms() + 3_600_000,
            record=codec.encode(message).decode(),
            recipient=message.to,
            sender=message.from_,
            status=status,
        )
    )
    return message


@pytest.fixture
async def three(world):
    """Landed, scheduled and waiting, made in this order."""
    world.carriers["carrier"].down = True
    landed = world.outbound.draft(NewMessage(account_sid=AC, from_=OURS, to=THEM, body="landed"))
    body = codec.encode(landed)[:-1] + b',"status":"delivered"}'
    await world.archive.land([Document(sid=landed.sid, account=AC, kind="message", rev=9, body=body)])
    found = [landed]
    for make in (lambda: schedule(world, body="later"), lambda: world.send("now")):
        world.clock.offset_ms += 2
        found.append(await make())
    return [message.sid for message in found]


async def listed(world, account=AC, older_than=None, newer_than=None, limit=50, **filters):
    page = await world.reader.page(account, older_than=older_than, newer_than=newer_than, limit=limit, filters=filters)
    return [message.sid for message in page]


async def test_lists_show_all_three_newest_first(world, three):
    page = await world.reader.page(AC, older_than=None, newer_than=None, limit=50, filters={})
    assert [(m.sid, m.status) for m in page] == [
        (three[2], "queued"),
        (three[1], "scheduled"),
        (three[0], "delivered"),
    ]
    assert page[1].body == "later"
    assert await listed(world, OTHER) == []


async def test_pages_cross_from_one_to_the_other(world, three):
    assert await listed(world, limit=1) == three[2:]
    assert await listed(world, older_than=three[2][2:], limit=1) == [three[1]]
    assert await listed(world, older_than=three[1][2:]) == [three[0]]
    assert await listed(world, newer_than=three[0][2:], limit=1) == [three[1]]
    assert await listed(world, newer_than=three[1][2:]) == [three[2]]


async def test_filters_hold_for_scheduled_ones(world, three):
    other = await schedule(world, to=ELSEWHERE)
    assert await listed(world, to=ELSEWHERE) == [other.sid]
    assert set(await listed(world, to=THEM)) == set(three)
    assert await listed(world, **{"from": "+12025550999"}) == []
    assert await listed(world, to=ELSEWHERE, sent_ge_ms=0) == [], "it has not been sent"


async def test_taken_on_it_is_listed_once_and_as_what_it_is(world):
    message = await schedule(world, Status.SENDING)
    await world.send("later", sid=message.sid, created_ms=message.created_ms)
    await eventually(lambda: world.carriers["carrier"].taken)
    await world.until(message, "sent")
    page = await world.reader.page(AC, older_than=None, newer_than=None, limit=50, filters={})
    assert [(m.sid, m.status) for m in page] == [(message.sid, "sent")]
    assert (await world.reader.find(AC, message.sid)).status == "sent"


async def test_find_keeps_accounts_apart(world):
    message = await schedule(world)
    assert (await world.reader.find(AC, message.sid)).status == "scheduled"
    assert await world.reader.get(AC, message.sid) is None, "it is not taken on yet"
    assert await world.reader.find(OTHER, message.sid) is None
