"""Deletion of messages: gone for readers, still in the sums."""

import msgspec
import orjson
import pytest

from tests.postflight.harness import LIMITS, archive_at
from trunkline.messaging.privacy import Privacy, tally
from trunkline.messaging.reader import Reader, StoredMessage
from trunkline.model.message import Direction, MediaItem
from trunkline.model.sid import new_sid
from trunkline.storage.archive import USAGE_TALLY, Document

from .world import AC, OURS, THEM

FORGOTTEN = ("secret text", THEM, OURS)


def message(world, **changes):
    now = world.clock.now_ms() - 1000
    values = {
        "sid": new_sid("SM", now), "account_sid": AC, "direction": Direction.OUTBOUND_API, "from_": OURS, "to": THEM,
        "body": "secret text", "num_segments": 2, "created_ms": now, "sent_ms": now + 5, "price": "0.015",
        "price_unit": "USD", "status": "delivered",
    }  # fmt: skip
    return StoredMessage(**(values | changes))


def documents(messages):
    return [Document(sid=m.sid, account=AC, kind="message", rev=3, body=msgspec.json.encode(m)) for m in messages]


@pytest.fixture
async def archive(world, tmp_path):
    limits = msgspec.structs.replace(LIMITS, least_rows=1, settle_ms=0)
    folder = tmp_path / "landed"
    folder.mkdir()
    async with archive_at(folder, world.clock, limits) as archive:
        yield archive


@pytest.mark.parametrize("rolled", [False, True])
async def test_what_was_deleted_still_counts_once_and_says_nothing(world, archive, rolled):
    messages = [
        message(world),
        message(world, direction=Direction.INBOUND, from_=THEM, to="54321", price="0.0075", num_segments=1),
        message(world, sid=new_sid("MM"), media=[MediaItem(new_sid("ME"), "image/png")]),
        message(world, status="failed", price=""),
    ]
    await archive.land(documents(messages))
    if rolled:
        assert await archive.roll(force=True) == 4
    before = await archive.usage([AC], 0, 1 << 60, "day")
    assert sum(row["count"] for row in before) == 3
    privacy = Privacy(world.inflight, archive, world.database, world.blobs)
    for each in [*messages, messages[0]]:  # one twice, as after a crash
        await privacy.delete(each)
    assert await archive.usage([AC], 0, 1 << 60, "day") == before
    if rolled:
        await archive.roll(force=True)
    await archive.compact()
    assert await archive.usage([AC], 0, 1 << 60, "day") == before
    reader = Reader(world.inflight, archive, world.database)
    assert await reader.page(AC, older_than=None, newer_than=None, limit=9, filters={}) == []
    left = await archive.page(AC, USAGE_TALLY, limit=9, filters={})
    assert len(left) == 4
    for document in left:
        assert await reader.get(AC, document.sid) is None, "it is no message"
        text = document.body.decode()
        assert not [word for word in (*FORGOTTEN, *(m.sid for m in messages)) if word in text]


async def test_message_in_flight_counts_too(world, archive):
    made = await world.send("secret text")
    sent = await world.until(made, "sent")
    await Privacy(world.inflight, archive, world.database, world.blobs).delete(sent)
    (row,) = await archive.usage([AC], 0, 1 << 60, "all")
    assert (row["count"], row["segments"], row["country"]) == (1, 1, "US")
    assert await world.reader.get(AC, made.sid) is None


def test_tally_keeps_short_codes_only(world):
    assert orjson.loads(tally(message(world, from_="54321")).body)["from"] == "54321"
    assert orjson.loads(tally(message(world, from_="BRAND")).body)["from"] == ""
