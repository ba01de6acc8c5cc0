"""Scheduled messages with an Idempotency-Key: once, whatever happens between the two stores that they lie in."""

import time
from types import SimpleNamespace

import pytest

from trunkline.inflight.store import Inflight
from trunkline.messaging.reader import Reader
from trunkline.model.message import Direction, Message
from trunkline.model.numbers import MessagingService, ScheduledMessage
from trunkline.model.sid import created_ms, new_sid
from trunkline.storage.unavailable import StoreUnavailable

KEY = {"Idempotency-Key": "order-4711"}
MINUTE, HOUR, DAY = 60_000, 3_600_000, 24 * 3_600_000


class NothingLanded:
    async def get(self, account, sid):
        return None


@pytest.fixture
async def schedule(world):
    """Posts a message for SendAt, in so many ms from the beginning of the test."""
    services, began_ms = world.services, world.clock.ms
    services.inflight = Inflight(services.queue, services.clock)
    services.reader = Reader(services.inflight, NothingLanded(), services.database)
    services.outbound = SimpleNamespace(draft=lambda new: draft(new, world.clock.ms))
    service = MessagingService(sid=new_sid("MG"), account_sid=world.owner.sid)
    await world.database.insert(service)

    async def post(in_ms, body="Your invoice", headers=KEY):
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime((began_ms + in_ms) / 1000))
        fields = {
            "To": "+14155550199", "MessagingServiceSid": service.sid, "Body": body, "ScheduleType": "fixed",
            "SendAt": at,
        }  # fmt: skip
        return await world.post(world.path("Messages.json"), fields, headers=headers)

    return post


def draft(new, now):
    return Message(
        sid=new.sid or new_sid("SM", now), account_sid=new.account_sid, direction=Direction.OUTBOUND_API, from_="",
        to=new.to, body=new.body, created_ms=now, updated_ms=now, messaging_service_sid=new.messaging_service_sid,
    )  # fmt: skip


def down(*_):
    raise StoreUnavailable("away for a moment")


async def kept(world):
    return [record.sid for record in await world.database.find(ScheduledMessage)]


@pytest.mark.parametrize("gone", ["lease", "released"])
async def test_answer_that_could_not_be_stored(world, schedule, monkeypatch, gone):
    """The message is in the Database, the key's row is not completed: the next attempt finds the message."""
    with monkeypatch.context() as away:
        away.setattr(world.replays, "complete_replay", down)
        assert (await schedule(2 * HOUR)).status == 503
    (sid,) = await kept(world)
    if gone == "released":
        world.replays.rows.clear()
    world.clock.ms += MINUTE + 1
    again = await schedule(2 * HOUR)
    assert (again.status, again.json["sid"], again.json["status"]) == (201, sid, "scheduled")
    third = await schedule(2 * HOUR)
    assert (third.body, third.headers["idempotency-replayed"]) == (again.body, "true")
    assert await kept(world) == [sid]
    (row,) = world.replays.rows.values()
    assert row.sid == sid  # or a deletion would not blank the stored answer
    assert created_ms(sid) <= world.clock.ms


async def test_commit_in_doubt(world, schedule, monkeypatch):
    """The insert fails, and is committed all the same; the next attempt cannot see that yet when it looks."""
    insert = world.database.insert

    async def doubtful(record):
        await insert(record)
        down()

    with monkeypatch.context() as away:
        away.setattr(world.database, "insert", doubtful)
        assert (await schedule(2 * HOUR)).status == 503
    find, looks = world.services.reader.find, []

    async def blind(account, sid):
        looks.append(sid)
        return None if len(looks) <= 2 else await find(account, sid)

    monkeypatch.setattr(world.services.reader, "find", blind)
    again = await schedule(2 * HOUR)
    assert [again.json["sid"]] == await kept(world)


async def test_attempt_that_comes_too_late_for_a_new_message(world, schedule, monkeypatch):
    """SendAt is too near by now, but the message was taken on in time."""
    with monkeypatch.context() as away:
        away.setattr(world.replays, "complete_replay", down)
        assert (await schedule(10 * MINUTE)).status == 503
    world.clock.ms += 8 * MINUTE
    assert [(await schedule(10 * MINUTE)).json["sid"]] == await kept(world)
    assert (await schedule(10 * MINUTE, headers={"Idempotency-Key": "another"})).code == 35114


@pytest.mark.parametrize("after_ms", [23 * HOUR + 50 * MINUTE, DAY])
async def test_key_is_new_after_its_life(world, schedule, monkeypatch, after_ms):
    with monkeypatch.context() as away:
        away.setattr(world.replays, "complete_replay", down)
        await schedule(3 * DAY + HOUR)
    (first,) = await kept(world)
    world.clock.ms += after_ms
    again = await schedule(3 * DAY + HOUR)
    assert again.status == 201
    assert (again.json["sid"] == first) == (after_ms < DAY)
    assert len(await kept(world)) == (1 if after_ms < DAY else 2)


async def test_other_messages_are_other_messages(world, schedule):
    replies = [
        await schedule(HOUR),
        await schedule(HOUR, headers={"Idempotency-Key": "order-4712"}),
        await schedule(HOUR, headers={}),
        await schedule(HOUR, headers={}),
    ]
    assert {reply.status for reply in replies} == {201}
    assert len(await kept(world)) == 4
    world.replays.rows.clear()
    assert (await schedule(HOUR, body="Another")).status == 201
    assert len(await kept(world)) == 5
