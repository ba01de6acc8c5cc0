"""Scheduled messages: sent once at their time, canceled before it, whatever crashes."""

import pytest

from trunkline.messaging import scheduler
from trunkline.messaging.outbound import NewMessage
from trunkline.model import message as codec
from trunkline.model.errors import ApiError
from trunkline.model.numbers import MessagingService, ScheduledMessage, ServiceSender
from trunkline.model.sid import new_sid
from trunkline.storage.database import Conflict
from trunkline.storage.unavailable import StoreUnavailable

from .world import AC, OURS, THEM, eventually

HOUR_MS = 3_600_000


async def schedule(world, **changes):
    new = NewMessage(**({"account_sid": AC, "from_": OURS, "to": THEM, "body": "later"} | changes))
    message = world.outbound.draft(new)
    message.send_at_ms = world.clock.now_ms() + HOUR_MS
    record = ScheduledMessage(
        sid=message.sid,
        account_sid=AC,
        send_at_ms=message.send_at_ms,
        record=codec.encode(message).decode(),
        created_ms=message.created_ms,
    )
    await world.database.insert(record)
    return message


def statuses(world):
    import orjson

    return [dict(orjson.loads(owed.request)["params"])["MessageStatus"] for owed in world.delivered]


async def left(world):
    return await world.database.find(ScheduledMessage)


async def test_message_is_sent_at_its_time_and_not_before(world):
    message = await schedule(world, status_callback="http://x/s")
    assert await world.scheduler.send_due() == 0
    world.clock.offset_ms += HOUR_MS + 1
    assert await world.scheduler.send_due() == 1
    sent = await world.until(message, "sent")
    assert (sent.body, sent.created_ms, sent.sid) == ("later", message.created_ms, message.sid)
    assert await left(world) == []
    assert statuses(world) == ["queued", "sent"]
    assert len(world.carriers["carrier"].taken) == 1


async def test_many_messages_of_one_moment(world):
    messages = [await schedule(world, to=f"+1415555{n:04}") for n in range(50)]
    world.clock.offset_ms += HOUR_MS + 1000
    assert await world.scheduler.send_due() == 50
    assert await left(world) == []
    assert {await world.status(m) for m in messages} <= {"queued", "sending", "sent"}


async def test_service_chooses_the_sender_only_then(world):
    sid = new_sid("MG")
    await world.database.insert(MessagingService(sid=sid, account_sid=AC))
    message = await schedule(world, from_="", messaging_service_sid=sid)
    number = await world.give_number("+12025550133")
    await world.database.insert(
        ServiceSender(sid=number.sid, account_sid=AC, service_sid=sid, kind="phone_number", address="+12025550133")
    )
    world.clock.offset_ms += HOUR_MS + 1
    await world.scheduler.send_due()
    sent = await world.until(message, "sent")
    assert (sent.from_, sent.messaging_service_sid) == ("+12025550133", sid)


async def test_message_that_is_refused_at_its_time_fails(world):
    sid = new_sid("MG")
    await world.database.insert(MessagingService(sid=sid, account_sid=AC))
    message = await schedule(world, from_="", messaging_service_sid=sid, status_callback="http://x/s")
    world.clock.offset_ms += HOUR_MS + 1
    await world.scheduler.send_due()
    failed = await world.reader.get(AC, message.sid)
    assert (failed.status, failed.error_code) == ("failed", 21704)
    assert statuses(world) == ["failed"]
    assert await left(world) == []


async def test_recipient_who_opted_out_meanwhile_gets_nothing(world):
    message = await schedule(world)
    await world.optouts.apply_inbound(AC, OURS, THEM, "STOP")
    world.clock.offset_ms += HOUR_MS + 1
    await world.scheduler.send_due()
    assert (await world.reader.get(AC, message.sid)).error_code == 21610
    assert world.carriers["carrier"].taken == []


async def test_crash_after_the_intent_sends_it_once(world):
    message = await schedule(world)
    (record,) = await left(world)
    record.status = "sending"
    await world.database.update(record)
    await world.restart()
    await world.scheduler.recover()
    await world.until(message, "sent")
    assert await left(world) == []


async def test_crash_after_the_accept_does_not_send_it_again(world, monkeypatch):
    message = await schedule(world)
    world.clock.offset_ms += HOUR_MS + 1

    async def power_cut(*_):
        raise OSError("power cut")

    monkeypatch.setattr(world.database, "delete", power_cut)
    assert await world.scheduler.send_due() == 0
    monkeypatch.undo()
    assert [record.status for record in await left(world)] == ["sending"]
    await world.until(message, "sent")
    await world.restart()
    await world.scheduler.recover()
    assert await left(world) == []
    assert len(world.carriers["carrier"].taken) == 1


async def test_cancel(world):
    message = await schedule(world, status_callback="http://x/s")
    (record,) = await left(world)
    await world.scheduler.cancel(record)
    assert await world.status(message) == "canceled"
    assert statuses(world) == ["canceled"]
    assert await left(world) == []
    world.clock.offset_ms += HOUR_MS + 1
    assert await world.scheduler.send_due() == 0


async def test_cancel_too_late(world):
    await schedule(world)
    (record,) = await left(world)
    world.clock.offset_ms += HOUR_MS + 1
    await world.scheduler.send_due()
    with pytest.raises(ApiError) as refused:
        await world.scheduler.cancel(record)
    assert refused.value.code == 30409


async def test_send_loses_against_a_cancel_just_before(world, monkeypatch):
    message = await schedule(world)
    world.clock.offset_ms += HOUR_MS + 1
    real = world.database.find

    async def find_then_cancel(*args, **options):
        found = await real(*args, **options)
        monkeypatch.setattr(world.database, "find", real)
        (fresh,) = await real(ScheduledMessage)
        await world.scheduler.cancel(fresh)
        return found

    monkeypatch.setattr(world.database, "find", find_then_cancel)
    await world.scheduler.send_due()
    assert await world.status(message) == "canceled"
    assert world.carriers["carrier"].taken == []


async def test_crash_within_a_cancel_is_made_good(world):
    message = await schedule(world)
    (record,) = await left(world)
    record.status = "canceled"
    await world.database.update(record)
    await world.restart()
    await world.scheduler.recover()
    assert await world.status(message) == "canceled"
    assert await left(world) == []


async def test_loop_sends_by_itself_and_survives_trouble(world, monkeypatch):
    monkeypatch.setattr("trunkline.messaging.scheduler.TICK_S", 0.01)
    monkeypatch.setattr("trunkline.messaging.scheduler.RETRY_S", 0.01)
    real, failures = world.database.find, [Conflict("once")]

    async def find(*args, **options):
        if failures:
            raise failures.pop()
        return await real(*args, **options)

    monkeypatch.setattr(world.database, "find", find)
    message = await schedule(world)
    world.scheduler.start()
    world.clock.offset_ms += HOUR_MS + 1
    await world.until(message, "sent")
    await eventually(lambda: world.scheduler.sent == 1)


async def test_anothers_messages_are_left_to_that_node_until_they_are_ours(world):
    ours, theirs = await schedule(world), await schedule(world, to="+14155550188")
    begun = await schedule(world, to="+14155550177")
    record = await world.database.get(ScheduledMessage, begun.sid)
    record.status = "sending"
    await world.database.update(record)
    world.scheduler.is_ours = lambda sid: sid == ours.sid
    await world.scheduler.recover()
    world.clock.offset_ms += HOUR_MS + 1
    assert await world.scheduler.send_due() == 1
    assert {record.sid for record in await left(world)} == {theirs.sid, begun.sid}
    world.scheduler.is_ours = lambda sid: True
    await world.scheduler.recover()
    assert await world.scheduler.send_due() == 1
    assert await left(world) == []
    assert None not in [await world.reader.get(AC, message.sid) for message in (ours, theirs, begun)]


async def test_messages_of_an_owner_who_is_away_hold_up_nobody_elses(world, monkeypatch):
    """They come due first, and there are many pages of them."""
    monkeypatch.setattr(scheduler, "MAX_DUE", 2)
    monkeypatch.setattr(scheduler, "MORE_PAGES", 1)
    theirs = {(await schedule(world, to=f"+1415555{number:04}")).sid for number in range(100, 111)}
    world.clock.offset_ms += 1000
    ours = [await schedule(world, to=f"+1415555{number:04}") for number in range(200, 203)]
    world.scheduler.is_ours = lambda sid: sid not in theirs
    world.clock.offset_ms += HOUR_MS + 1
    taken = [await world.scheduler.send_due() for _ in range(8)]
    assert sum(taken) == 3
    assert {record.sid for record in await left(world)} == theirs
    assert None not in [await world.reader.get(AC, message.sid) for message in ours]


async def test_what_a_former_owner_has_begun_too_late_is_sent(world, monkeypatch):
    """A node that was stopped marks a message as its own after another has taken it over, and cannot send it."""
    monkeypatch.setattr(scheduler, "TICK_S", 0.01)
    monkeypatch.setattr(scheduler, "AGAIN_S", 0.01)
    message = await schedule(world)
    world.scheduler.start()
    await eventually(lambda: world.scheduler._recovered)
    (record,) = await left(world)
    record.status = "sending"
    await world.database.update(record)
    await world.until(message, "sent")


async def test_a_message_that_cannot_be_reached_holds_up_no_other_and_is_sent_later(world, monkeypatch):
    monkeypatch.setattr(scheduler, "TICK_S", 0.01)
    monkeypatch.setattr(scheduler, "RETRY_S", 60)
    away, real, is_away = await schedule(world), world.reader.get, True

    async def get(account, sid):
        if is_away and sid == away.sid:
            raise StoreUnavailable("its database is away")
        return await real(account, sid)

    monkeypatch.setattr(world.reader, "get", get)
    world.clock.offset_ms += HOUR_MS + 1
    world.scheduler.start()
    await eventually(lambda: is_sending(world, away))
    world.scheduler.look_again()
    for number in (101, 102):
        other = await schedule(world, to=f"+14155550{number}")
        world.clock.offset_ms += HOUR_MS + 1
        await eventually(lambda: are_left(world, away))
        assert await real(AC, other.sid) is not None
    is_away = False
    monkeypatch.setattr(scheduler, "AGAIN_S", 0.01)
    await eventually(lambda: are_left(world))
    assert await real(AC, away.sid) is not None


async def is_sending(world, message):
    return (await world.database.get(ScheduledMessage, message.sid)).status == "sending"


async def are_left(world, *messages):
    return [record.sid for record in await left(world)] == [message.sid for message in messages]


async def test_a_message_that_makes_no_sense_holds_up_no_other(world):
    broken, whole = await schedule(world), await schedule(world, to="+14155550102")
    record = await world.database.get(ScheduledMessage, broken.sid)
    record.record = "{}"
    await world.database.update(record)
    world.clock.offset_ms += HOUR_MS + 1
    assert await world.scheduler.send_due() == 1
    await world.scheduler.recover()
    assert [record.sid for record in await left(world)] == [broken.sid]
    await world.until(whole, "sent")


async def test_a_database_that_cannot_be_written_is_told(world, monkeypatch):
    """It is everybody's: the loop waits for it, as it does when nothing can be read."""
    await schedule(world)
    world.clock.offset_ms += HOUR_MS + 1

    async def update(*_):
        raise StoreUnavailable("disk full")

    monkeypatch.setattr(world.database, "update", update)
    with pytest.raises(StoreUnavailable):
        await world.scheduler.send_due()


async def test_a_cancel_that_fails_half_way_is_made_good(world, monkeypatch):
    monkeypatch.setattr(scheduler, "TICK_S", 0.01)
    monkeypatch.setattr(scheduler, "AGAIN_S", 0.01)
    message = await schedule(world, status_callback="http://x/s")
    world.scheduler.start()
    await eventually(lambda: world.scheduler._recovered)
    (record,) = await left(world)
    real = world.inflight.accept

    def accept(*_, **__):
        raise StoreUnavailable("full for a moment")

    monkeypatch.setattr(world.inflight, "accept", accept)
    with pytest.raises(StoreUnavailable):
        await world.scheduler.cancel(record)
    monkeypatch.setattr(world.inflight, "accept", real)
    await eventually(lambda: are_left(world))
    assert await world.status(message) == "canceled"
    assert statuses(world) == ["canceled"]
