"""Less free space than asked for: nothing new is taken on, what was taken on goes its way."""

import pytest

from trunkline.messaging.connectors.base import Receipt
from trunkline.messaging.disk import DiskWatch, free_bytes
from trunkline.messaging.outbound import REFUSED_RETRY_S, NewMessage
from trunkline.model.errors import ApiError
from trunkline.model.message import Direction

from .world import AC, OURS, THEM

LEAST = 1000


class Disk:
    """A file system that has as much room as the test says."""

    def __init__(self, world):
        self.free = LEAST
        self.watch = DiskWatch(world.folder, LEAST, world.outbound, lambda folder: self.free)

    def has(self, free):
        self.free = free
        self.watch.look()


@pytest.fixture
def disk(world):
    return Disk(world)


async def test_new_messages_are_refused_until_there_is_room_again(world, disk):
    told = []
    disk.watch.told = told.append
    disk.has(LEAST)
    await world.send()
    disk.has(LEAST - 1)
    assert str(LEAST) in world.outbound.refuse
    with pytest.raises(ApiError) as caught:
        await world.send()
    assert (caught.value.status, caught.value.code) == (503, 20503)
    assert caught.value.headers == (("Retry-After", str(REFUSED_RETRY_S)),)
    with pytest.raises(ApiError):
        world.outbound.draft(NewMessage(account_sid=AC, from_=OURS, to=THEM, body="later"))
    disk.has(LEAST + 1)
    assert world.outbound.refuse, "not back and forth with every byte"
    disk.has(2 * LEAST)
    await world.send()
    assert [bool(why) for why in told] == [True, False]


async def test_receipts_replies_and_scheduled_messages_go_on(world, disk):
    message = await world.send(status_callback="http://x/s")
    sent = await world.until(message, "sent")
    disk.has(0)
    await world.receipts.apply(Receipt(connector="carrier", carrier_id=sent.segments[0].id, state="delivered"))
    await world.until(message, "delivered")
    assert len(world.delivered) == 2
    reply = await world.send("reply", direction=Direction.OUTBOUND_REPLY)
    scheduled = await world.send("scheduled", created_ms=world.clock.now_ms() - 1000)
    for each in (reply, scheduled):
        await world.until(each, "sent")


async def test_folder_that_cannot_be_asked_changes_nothing(world, tmp_path):
    disk = DiskWatch(tmp_path / "gone", LEAST, world.outbound)
    world.outbound.refuse = "as before"
    disk.look()
    assert world.outbound.refuse == "as before"
    assert free_bytes(tmp_path) > 0
