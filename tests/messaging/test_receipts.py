"""Receipts: in time, early, late, of many segments, repeated; never lost, never backwards."""

import asyncio

import msgspec
import orjson
import pytest

from trunkline.messaging.connectors.base import Receipt, Submitted
from trunkline.model.message import Status
from trunkline.postflight.landing import document
from trunkline.settings import Messaging, Settings
from trunkline.storage.queue import Advance, Orphan
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.storage.written import Written

from .world import AC, eventually, none_parked


def receipt(carrier_id, state="delivered", **changes):
    return Receipt("carrier", carrier_id, state, **changes)


def told(world):
    return [dict(orjson.loads(owed.request)["params"])["MessageStatus"] for owed in world.delivered]


async def sent(world, body="hello", **changes):
    message = await world.send(body, status_callback="http://x/s", **changes)
    return await world.until(message, "sent")


async def land(world, message):
    """What `Landing` does, with every callback settled."""
    flight, owed = await world.queue.get(AC, message.sid)
    await world.archive.land([document(flight, owed)])
    await world.queue.remove([(flight.id, flight.rev)])
    world.inflight.forget(flight.id, flight.rev)


# Twilio: delivered; undelivered with 30003 unreachable, 30005 unknown, 30007 filtered, 30008 unknown error.
@pytest.mark.parametrize(
    ("state", "status", "code"),
    [
        ("delivered", "delivered", 0),
        ("undeliverable", "undelivered", 30005),
        ("expired", "undelivered", 30003),
        ("rejected", "undelivered", 30007),
        ("deleted", "undelivered", 30008),
        ("unknown", "undelivered", 30008),
        ("read", "read", 0),
    ],
)
async def test_final_states(world, state, status, code):
    message = await sent(world)
    await world.receipts.apply(receipt(message.segments[0].id, state, error="042", done_date="2401010203"))
    ended = await world.reader.get(AC, message.sid)
    assert (ended.status, ended.error_code, ended.done_date) == (status, code, "2401010203")
    assert ended.carrier_error == ("042" if code else "")
    assert told(world) == ["sent", status]
    params = dict(orjson.loads(world.delivered[-1].request)["params"])
    assert params.get("ErrorCode") == (str(code) if code else None)
    assert [f.sid for f, _ in await world.queue.landable(world.clock.now_ms() + 1, 10)] == []  # callbacks are owed


async def test_own_code_of_the_connector_wins(world):
    message = await sent(world)
    await world.receipts.apply(receipt(message.segments[0].id, "undeliverable", error_code=30004))
    assert (await world.reader.get(AC, message.sid)).error_code == 30004


@pytest.mark.parametrize("state", ["enroute", "accepted", "scheduled", "nonsense", ""])
async def test_intermediate_states_change_nothing(world, state):
    message = await sent(world)
    await world.receipts.apply(receipt(message.segments[0].id, state))
    assert (await world.reader.get(AC, message.sid)).rev == message.rev


async def test_repeated_receipt_changes_nothing(world):
    message = await sent(world)
    for _ in range(3):
        await world.receipts.apply(receipt(message.segments[0].id))
    assert told(world) == ["sent", "delivered"]


async def test_a_receipt_that_is_said_again_while_the_first_is_written_is_not_taken_for_kept(world):
    message = await sent(world)
    first = world.receipts.apply(receipt(message.segments[0].id))
    again = world.receipts.apply(receipt(message.segments[0].id))
    with pytest.raises(StoreUnavailable):
        await again
    await first
    await world.receipts.apply(receipt(message.segments[0].id))
    assert told(world) == ["sent", "delivered"]


async def test_a_receipt_for_a_copy_that_is_old_is_applied_to_what_is_stored(world):
    message = await sent(world)
    live = world.inflight.cached(message.sid)
    step = Advance(id=live.id, sid=message.sid, account=AC, rev=live.rev, status="sent", land_ms=live.land_ms)
    assert await world.queue.advance(step)  # behind the copy's back
    await world.receipts.apply(receipt(message.segments[0].id))
    assert (await world.reader.get(AC, message.sid)).status == "delivered"
    assert told(world) == ["sent", "delivered"]


async def test_a_receipt_that_the_store_refuses_again_is_not_taken_for_kept(world, monkeypatch):
    message = await sent(world)
    tried = []

    def refuse(step):
        tried.append(step.status)
        written = Written()
        asyncio.get_running_loop().call_soon(written.settle, False, None)
        return written

    monkeypatch.setattr(world.queue, "advance", refuse)
    with pytest.raises(StoreUnavailable):
        await world.receipts.apply(receipt(message.segments[0].id))
    assert tried == ["delivered", "delivered"]
    monkeypatch.undo()
    await world.receipts.apply(receipt(message.segments[0].id))
    assert told(world) == ["sent", "delivered"]


async def test_delivered_never_becomes_undelivered(world):
    message = await sent(world)
    await world.receipts.apply(receipt(message.segments[0].id))
    await world.receipts.apply(receipt(message.segments[0].id, "undeliverable"))
    ended = await world.reader.get(AC, message.sid)
    assert (ended.status, ended.error_code) == ("delivered", 0)
    assert told(world) == ["sent", "delivered"]


async def test_undelivered_may_become_delivered(world):
    message = await sent(world)
    await world.receipts.apply(receipt(message.segments[0].id, "expired"))
    await world.receipts.apply(receipt(message.segments[0].id))
    ended = await world.reader.get(AC, message.sid)
    assert (ended.status, ended.error_code, ended.error_message) == ("delivered", 0, "")
    assert told(world) == ["sent", "undelivered", "delivered"]


async def test_read_follows_delivered(world):
    message = await sent(world)
    for state in ("delivered", "read", "delivered"):
        await world.receipts.apply(receipt(message.segments[0].id, state))
    assert (await world.reader.get(AC, message.sid)).status == "read"


# -- several segments --------------------------------------------------------------------------------------------


async def test_message_is_delivered_when_its_last_segment_is(world):
    message = await sent(world, "x" * 400)
    ids = [s.id for s in message.segments]
    await world.receipts.apply(receipt(ids[2]))
    await world.receipts.apply(receipt(ids[0]))
    assert (await world.reader.get(AC, message.sid)).status == "sent"
    await world.receipts.apply(receipt(ids[1]))
    assert (await world.reader.get(AC, message.sid)).status == "delivered"
    assert told(world) == ["sent", "delivered"]


async def test_one_undelivered_segment_makes_the_message_undelivered(world):
    message = await sent(world, "x" * 400)
    ids = [s.id for s in message.segments]
    await world.receipts.apply(receipt(ids[0], "undeliverable", error="7"))
    await world.receipts.apply(receipt(ids[1]))
    assert (await world.reader.get(AC, message.sid)).status == "sent"
    await world.receipts.apply(receipt(ids[2]))
    ended = await world.reader.get(AC, message.sid)
    assert (ended.status, ended.error_code, ended.carrier_error) == ("undelivered", 30005, "7")


async def test_acknowledged_receipt_of_one_segment_survives_a_crash(world):
    message = await sent(world, "x" * 200)
    first, second = (s.id for s in message.segments)
    await world.receipts.apply(receipt(first))
    await world.restart()
    await world.receipts.apply(receipt(second))
    assert (await world.reader.get(AC, message.sid)).status == "delivered"


# -- early -------------------------------------------------------------------------------------------------------


async def test_receipt_before_the_answer_to_the_submit_is_held(world):
    carrier = world.carriers["carrier"]
    carrier.answer = lambda s: None
    message = await world.send(status_callback="http://x/s")
    await eventually(lambda: carrier.open)
    await world.receipts.apply(receipt("7"))
    carrier.settle(message.sid, Submitted(["7"]))
    await world.until(message, "delivered")
    assert told(world) == ["sent", "delivered"]
    await eventually(lambda: none_parked(world))


async def test_receipt_held_over_a_crash_is_applied(world):
    carrier = world.carriers["carrier"]
    carrier.answer = lambda s: None
    message = await world.send()
    await eventually(lambda: carrier.open)
    await world.receipts.apply(receipt("7"))
    carrier.open.clear()
    carrier.answer = lambda s: Submitted(["7"])
    await world.restart()
    await world.until(message, "delivered")


async def test_very_many_held_receipts_are_not_looked_for_one_by_one(world, monkeypatch):
    """Each look would hold up the event loop for a round trip, and with it the node's lease."""
    monkeypatch.setattr("trunkline.messaging.receipts.ASKED_AT_ONCE", 100)
    messages = [await sent(world) for _ in range(3)]
    ours = [message.segments[0].id for message in messages]
    names = [f"stranger {n}" for n in range(997)] + ours
    for name in names:
        orphan = msgspec.json.encode(receipt(name))
        parked = world.queue.park(Orphan(connector="carrier", carrier_id=name, at_ms=1, receipt=orphan))
    await parked
    await world.stop()
    await world.start()
    asked, one_by_one = [], []
    known, find = world.queue.known, world.queue.find_carrier_id
    monkeypatch.setattr(world.queue, "known", lambda pairs: asked.append(len(pairs)) or known(pairs))
    monkeypatch.setattr(world.queue, "find_carrier_id", lambda *pair: one_by_one.append(pair) or find(*pair))
    await world.receipts.recover()
    for message in messages:
        await world.until(message, "delivered")
    assert asked == [100] * 10
    assert {carrier_id for _, carrier_id in one_by_one} <= set(ours)
    await eventually(lambda: len(world.receipts._parked) == 997)


async def test_a_held_receipt_whose_message_is_named_while_those_are_read_is_applied(world, monkeypatch):
    carrier = world.carriers["carrier"]
    carrier.answer = lambda s: None
    message = await world.send()
    await eventually(lambda: carrier.open)
    orphan = Orphan(connector="carrier", carrier_id="7", at_ms=1, receipt=msgspec.json.encode(receipt("7")))
    await world.queue.park(orphan)  # by another node, whose partition this is now
    parked = world.queue.parked

    async def named_meanwhile():
        found = await parked()
        carrier.settle(message.sid, Submitted(["7"]))
        return found

    async def not_committed_yet(pairs):
        return []

    monkeypatch.setattr(world.queue, "parked", named_meanwhile)
    monkeypatch.setattr(world.queue, "known", not_committed_yet)
    await world.receipts.recover()
    await world.until(message, "delivered")


async def test_a_held_receipt_whose_message_was_named_by_a_node_that_died_is_applied(world, monkeypatch):
    monkeypatch.setattr("trunkline.messaging.receipts.LOOK_S", 0.1)
    monkeypatch.setattr("trunkline.messaging.receipts.AGAIN_S", 0.05)
    carrier = world.carriers["carrier"]
    carrier.answer = lambda s: None
    message = await world.send()
    await eventually(lambda: carrier.open)
    real, asked, errors = world.queue.known, [], [StoreUnavailable("away")]

    async def away_at_first(pairs):
        asked.extend(pairs)
        if errors:
            raise errors.pop()
        return await real(pairs)

    monkeypatch.setattr(world.queue, "known", away_at_first)
    monkeypatch.setattr(world.outbound, "submitted", lambda live: None)  # whom it would tell is dead
    await world.receipts.apply(receipt("7"))
    await world.receipts.apply(receipt("nobody's"))
    carrier.settle(message.sid, Submitted(["7"]))
    await world.until(message, "delivered")
    await eventually(lambda: not world.receipts._unsure)
    await asyncio.sleep(0.2)
    assert ("carrier", "nobody's") in asked
    looks = len(asked)
    await asyncio.sleep(0.3)
    assert len(asked) == looks, "strangers' receipts are looked for again and again"
    assert list(world.receipts._parked) == [("carrier", "nobody's")]


async def test_held_receipt_that_could_not_be_applied_is_kept(world, monkeypatch):
    carrier = world.carriers["carrier"]
    carrier.answer = lambda s: None
    message = await world.send()
    await eventually(lambda: carrier.open)
    await world.receipts.apply(receipt("7"))
    real = world.queue.orphans

    async def broken(*_):
        raise OSError("once")

    monkeypatch.setattr(world.queue, "orphans", broken)
    carrier.settle(message.sid, Submitted(["7"]))
    await world.until(message, "sent")
    monkeypatch.setattr(world.queue, "orphans", real)
    await world.restart()
    await world.until(message, "delivered")


async def test_receipts_of_strangers_are_held_and_acknowledged(world):
    await world.receipts.apply(receipt("nobody's"))
    assert await world.queue.parked() == [("carrier", "nobody's")]


async def test_same_id_at_another_carrier_is_another_message(world):
    message = await sent(world)
    await world.receipts.apply(Receipt("other", message.segments[0].id, "undeliverable"))
    assert (await world.reader.get(AC, message.sid)).status == "sent"


# -- late --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def short(make_world):
    return await make_world(Settings(messaging=Messaging(receipt_window_s=0.001)))


async def test_late_receipt_appends_a_revision_and_still_calls_back(short):
    message = await sent(short)
    await land(short, message)
    await short.receipts.apply(receipt(message.segments[0].id, done_date="2401010203"))
    found = await short.reader.get(AC, message.sid)
    assert (found.status, found.landed, found.done_date) == ("delivered", True, "2401010203")
    assert found.rev > message.rev
    assert found.body == "hello"
    assert told(short) == ["sent", "delivered"]
    assert [c for _, c, _ in await short.queue.owed_hosts()] == [1]


async def test_late_receipt_repeated_changes_nothing(short):
    message = await sent(short)
    await land(short, message)
    for _ in range(3):
        await short.receipts.apply(receipt(message.segments[0].id))
    assert told(short) == ["sent", "delivered"]


async def test_late_delivery_clears_the_error(short):
    message = await sent(short)
    await short.receipts.apply(receipt(message.segments[0].id, "undeliverable", error="9"))
    await land(short, message)
    await short.receipts.apply(receipt(message.segments[0].id))
    found = await short.reader.get(AC, message.sid)
    assert (found.status, found.error_code, found.error_message, found.carrier_error) == ("delivered", 0, "", "")


async def test_late_receipts_of_segments_that_come_together(short):
    message = await sent(short, "x" * 400)
    await land(short, message)
    futures = [short.receipts.apply(receipt(s.id)) for s in message.segments]
    for future in futures:
        await future
    found = await short.reader.get(AC, message.sid)
    assert found.status == "delivered"
    assert told(short) == ["sent", "delivered"]


async def test_late_receipt_keeps_what_the_document_holds_beside_the_message(short):
    message = await sent(short)
    await land(short, message)
    before = orjson.loads((await short.archive.get(AC, message.sid)).body)
    await short.receipts.apply(receipt(message.segments[0].id))
    after = orjson.loads((await short.archive.get(AC, message.sid)).body)
    assert after["kind"] == before["kind"] == "message"
    assert after["webhooks"] == before["webhooks"]
    msgspec.convert(after["status"], Status)


async def test_late_receipt_of_a_deleted_message_is_acknowledged(short):
    message = await sent(short)
    await land(short, message)
    short.archive.documents.clear()
    await short.receipts.apply(receipt(message.segments[0].id))
    assert told(short) == ["sent"]
