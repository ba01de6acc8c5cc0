"""The in-flight store: working copies that never disagree with what is stored."""

import asyncio
import time

import pytest

from trunkline.inflight.store import IllegalTransition, Inflight
from trunkline.model.message import TRANSITIONS, Direction, Message, SegmentState, Status
from trunkline.model.sid import new_sid
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.storage.queue import Advance, Exists, Owed, partition_of
from trunkline.storage.unavailable import NotOwned, StoreUnavailable
from trunkline.storage.written import Written

AC = "AC" + "a" * 32


class Clock:
    def now_ms(self):
        return time.time_ns() // 1_000_000

    def monotonic(self):
        return time.monotonic()


@pytest.fixture
async def queue(tmp_path):
    queue = SqliteQueue(tmp_path / "queue.db")
    yield queue
    await queue.close()


@pytest.fixture
def inflight(queue):
    return Inflight(queue, Clock())


def message(**changes):
    return Message(**({"sid": new_sid("SM"), "account_sid": AC, "direction": Direction.OUTBOUND_API} | changes))


async def accept(inflight, status=Status.QUEUED, **options):
    live, written = inflight.accept(message(), status, **options)
    await written
    return live


def callback(live):
    return Owed(sid=live.message.sid, account=AC, kind="status", host="http://h", request=b"{}")


async def test_copy_and_record_agree_after_every_step(inflight, queue):
    live = await accept(inflight, lane="c|a|s", due_ms=5)
    for to, lane in ((Status.SENDING, ""), (Status.QUEUED, "d|a|s"), (Status.SENDING, ""), (Status.SENT, "")):
        live.message.carrier_error = to
        assert await inflight.advance(live, to, lane=lane)
        flight = queue.by_id(live.id)
        assert (flight.status, flight.rev, flight.lane) == (live.status, live.rev, live.lane) == (to, live.rev, lane)
        assert b'"carrier_error":"%s"' % to.encode() in flight.record


@pytest.mark.parametrize("status", list(Status))
async def test_steps_follow_the_table(inflight, status):
    for to in Status:
        live = await accept(inflight, status)
        if to is status or to in TRANSITIONS[status]:
            assert await inflight.advance(live, to)
        else:
            with pytest.raises(IllegalTransition):
                inflight.advance(live, to)
            assert (live.status, live.rev, live.pending) == (status, 0, 0)


async def test_stale_copy_overwrites_nothing_and_is_dropped(inflight, queue):
    live = await accept(inflight)
    await queue.advance(Advance(id=live.id, sid=live.message.sid, account=AC, rev=0, status="canceled"))
    assert not await inflight.advance(live, Status.SENDING)
    assert queue.by_id(live.id).status == "canceled"
    assert inflight.cached(live.message.sid) is None
    fresh = await inflight.find(AC, live.message.sid)
    assert (fresh.status, fresh.rev) == (Status.CANCELED, 1)


async def test_stale_copy_is_not_claimed(inflight, queue):
    live, other = await accept(inflight, lane="l"), await accept(inflight, lane="l")
    await queue.advance(Advance(id=live.id, sid=live.message.sid, account=AC, rev=0, status="canceled"))
    assert await inflight.claim([live, other]) == [live.id]
    assert inflight.cached(live.message.sid) is None
    assert (other.status, other.rev, other.lane, other.pending) == (Status.SENDING, 1, "", 0)


async def test_sid_that_exists_leaves_the_first_as_it_is(inflight):
    live = await accept(inflight)
    _, written = inflight.accept(message(sid=live.message.sid, body="other"), Status.QUEUED)
    with pytest.raises(Exists):
        await written
    found = await inflight.find(AC, live.message.sid)
    assert found.message.body == ""
    assert found.id == live.id


async def test_message_of_another_account_is_not_found(inflight):
    live = await accept(inflight)
    assert await inflight.find("AC" + "b" * 32, live.message.sid) is None
    assert await inflight.find(AC, new_sid("SM")) is None


async def test_copies_are_bounded_and_come_back_from_the_store(queue):
    inflight = Inflight(queue, Clock(), max_live=5)
    lives = [await accept(inflight) for _ in range(20)]
    assert sum(inflight.cached(live.message.sid) is not None for live in lives) <= 5
    back = await inflight.find(AC, lives[0].message.sid)
    assert (back.id, back.rev, back.status) == (lives[0].id, 0, Status.QUEUED)
    assert await inflight.advance(back, Status.SENDING)


async def test_copy_with_a_write_under_way_stays(queue):
    inflight = Inflight(queue, Clock(), max_live=2)
    live = await accept(inflight)
    step = inflight.advance(live, Status.SENDING)
    others = [inflight.accept(message(), Status.QUEUED)[1] for _ in range(5)]
    assert inflight.cached(live.message.sid) is live
    assert await step
    for written in others:
        await written


async def test_carrier_id_leads_to_the_flight_also_after_eviction(queue):
    inflight = Inflight(queue, Clock(), max_live=2)
    live = await accept(inflight, Status.SENDING)
    live.message.connector, live.message.segments = "c", [SegmentState(id="7")]
    step = inflight.advance(live, Status.SENT, carrier_ids=[("c", "7")])
    assert inflight.by_carrier_id("c", "7") is live  # a receipt may be quicker than the commit
    await step
    for _ in range(5):
        await accept(inflight)
    assert inflight.cached(live.message.sid) is None
    found = inflight.by_carrier_id("c", "7")
    assert (found.message.sid, found.status) == (live.message.sid, Status.SENT)
    assert inflight.by_carrier_id("d", "7") is None


async def crowded_out(inflight, **options):
    """A copy that is in a lane's head and no longer in the cache."""
    live = await accept(inflight, Status.QUEUED, lane="c|a|s", **options)
    for _ in range(3):
        await accept(inflight)
    assert inflight.cached(live.message.sid) is None
    return live


@pytest.mark.parametrize("read_before", [True, False])
async def test_the_copy_that_is_claimed_is_the_one_that_is_found(queue, read_before):
    """It had left the cache, and the flight was perhaps read anew: else its receipt would find an old copy."""
    inflight = Inflight(queue, Clock(), max_live=2)
    live = await crowded_out(inflight)
    flight = queue.by_id(live.id)
    if read_before:
        assert inflight.adopt(flight) is not live
    claimed = inflight.claim([live])
    assert inflight.in_hand(live.id)
    assert await claimed == []
    assert inflight.adopt(flight) is inflight.cached(live.message.sid) is live
    assert inflight.in_hand(live.id)
    assert inflight.busy(partition_of(live.id))
    live.message.connector, live.message.segments = "c", [SegmentState(id="7")]
    assert await inflight.advance(live, Status.SENT, carrier_ids=[("c", "7")])
    assert inflight.by_carrier_id("c", "7") is live
    assert not inflight.in_hand(live.id)


async def test_a_copy_that_was_moved_on_is_not_displaced_by_an_older_one_that_is_claimed(queue):
    inflight = Inflight(queue, Clock(), max_live=2)
    old = await crowded_out(inflight)
    fresh = await inflight.find(AC, old.message.sid)
    canceled, claimed = inflight.advance(fresh, Status.CANCELED), inflight.claim([old])
    assert inflight.cached(fresh.message.sid) is fresh
    assert await canceled
    assert await claimed == [old.id]
    assert inflight.cached(fresh.message.sid) is fresh


async def test_a_claim_is_seen_when_the_newer_copys_step_was_not_written(queue):
    disk = FullDisk(queue)
    inflight = Inflight(disk, Clock(), max_live=2)
    old = await crowded_out(inflight)
    fresh = await inflight.find(AC, old.message.sid)
    disk.full = True
    canceled, claimed = inflight.advance(fresh, Status.CANCELED), inflight.claim([old])
    with pytest.raises(StoreUnavailable):
        await canceled
    assert await claimed == []
    assert inflight.cached(old.message.sid) is old
    assert inflight.busy(partition_of(old.id))


async def test_carriers_ids_leave_memory_with_the_copy(queue):
    inflight = Inflight(queue, Clock(), max_live=2)
    for number in range(20):
        live = await crowded_out(inflight)
        await inflight.claim([live])
        live.message.connector, live.message.segments = "c", [SegmentState(id=str(number))]
        await inflight.advance(live, Status.SENT, carrier_ids=[("c", str(number))], land_ms=1)
        await queue.remove([(live.id, live.rev)])
        inflight.forget(live.id, live.rev)
    assert len(inflight._by_carrier) <= 2


async def test_callbacks_are_told_after_the_commit_only(inflight, queue):
    told = []
    inflight.owed = told.extend
    live = await accept(inflight)
    step = inflight.advance(live, Status.SENDING, owed=[callback(live)])
    assert told == []
    await step
    assert [owed.flight for owed in told] == [live.id]
    assert [owed.id for owed in told] == [owed.id for owed in (await queue.get(AC, live.message.sid))[1]]


async def test_callbacks_of_a_lost_step_are_not_told(inflight, queue):
    told = []
    inflight.owed = told.extend
    live = await accept(inflight)
    await queue.advance(Advance(id=live.id, sid=live.message.sid, account=AC, rev=0, status="canceled"))
    assert not await inflight.advance(live, Status.SENDING, owed=[callback(live)])
    assert told == []
    assert (await queue.get(AC, live.message.sid))[1] == []


async def test_landing_is_told_when_the_last_write_is_through(inflight):
    told = []
    inflight.landed = lambda: told.append(1)
    live = await accept(inflight)
    assert told == []
    await inflight.advance(live, Status.CANCELED, land_ms=1)
    assert told == [1]


async def test_landed_flight_is_forgotten_unless_it_moved_on(inflight):
    live = await accept(inflight)
    inflight.forget(live.id, 7)
    assert inflight.cached(live.message.sid) is live
    inflight.forget(live.id, 0)
    assert inflight.cached(live.message.sid) is None


class FullDisk:
    """A queue whose writes of steps fail while `full`."""

    def __init__(self, queue):
        self._queue = queue
        self.full = False

    def __getattr__(self, name):
        return getattr(self._queue, name)

    def advance(self, step):
        if not self.full:
            return self._queue.advance(step)
        written = Written()
        written.settle(None, StoreUnavailable("disk full"))
        return written


async def being_submitted(disk, monkeypatch):
    """A store whose disk is full from here on, a message that is being submitted, and what tells of its next step once
    that is written."""
    monkeypatch.setattr("trunkline.inflight.store.REPEAT_S", 0.01)
    inflight, repeated = Inflight(disk, Clock()), asyncio.Event()
    inflight.repeated = lambda live, step: repeated.set()
    live, written = inflight.accept(message(), Status.QUEUED, lane="c/a/s")
    await written
    await inflight.claim([live])
    disk.full = True
    return inflight, live, repeated


async def test_a_step_that_could_not_be_written_is_repeated_until_it_is(queue, monkeypatch):
    disk, owed = FullDisk(queue), []
    inflight, live, repeated = await being_submitted(disk, monkeypatch)
    inflight.owed = owed.extend
    live.message.segments = [SegmentState(id="c-1")]
    callback = Owed(sid=live.message.sid, account=AC, kind="status", host="h", seq=1, request=b"{}")
    with pytest.raises(StoreUnavailable):
        await inflight.advance(live, Status.SENT, owed=[callback], carrier_ids=[("c", "c-1")])
    assert inflight.cached(live.message.sid) is None
    assert queue.by_id(live.id).status == Status.SENDING
    await asyncio.sleep(0.05)
    assert not repeated.is_set()
    disk.full = False
    await asyncio.wait_for(repeated.wait(), 60)
    assert queue.by_id(live.id).status == Status.SENT
    assert [one.sid for one in owed] == [live.message.sid]
    assert inflight.by_carrier_id("c", "c-1").status is Status.SENT


async def test_a_repeated_step_is_told_although_its_flight_cannot_be_read_just_then(queue, monkeypatch):
    """A receipt that came before the carrier's answer was written waits for nothing else."""
    disk, reads = FullDisk(queue), []
    inflight, live, repeated = await being_submitted(disk, monkeypatch)
    with pytest.raises(StoreUnavailable):
        await inflight.advance(live, Status.SENT, carrier_ids=[("c", "c-1")])

    def by_id(flight_id):
        reads.append(flight_id)
        if len(reads) == 1:
            raise StoreUnavailable("the connection was lost")
        return queue.by_id(flight_id)

    disk.by_id = by_id
    disk.full = False
    await asyncio.wait_for(repeated.wait(), 60)
    assert reads == [live.id] * 2


class OneByOne(FullDisk):
    """Its writes of steps end when the test says so."""

    def __init__(self, queue):
        super().__init__(queue)
        self.held = None
        self.handed = asyncio.Event()

    def advance(self, step):
        if self.held is None:
            return super().advance(step)
        written = Written()
        self.held.append((step, written))
        self.handed.set()
        return written

    async def both(self):
        while len(self.held) < 2:
            self.handed.clear()
            await self.handed.wait()
        held, self.held = self.held, []
        return held


async def test_a_step_that_was_tried_before_the_one_it_follows_is_not_forgotten(queue, monkeypatch):
    """A database that is switched over writes the second and not the first: it found nothing to fit on."""
    monkeypatch.setattr("trunkline.inflight.store.REPEAT_S", 0.01)
    disk = OneByOne(queue)
    inflight = Inflight(disk, Clock())
    live, written = inflight.accept(message(), Status.SENDING)
    await written
    disk.held = []
    inflight.advance(live, Status.SENT)
    inflight.advance(live, Status.DELIVERED)
    for _ in range(3):
        (_, sent), (_, delivered) = await asyncio.wait_for(disk.both(), 60)
        sent.settle(None, StoreUnavailable("no primary"))
        await asyncio.sleep(0)
        delivered.settle(False, None)
        assert inflight.in_hand(live.id)
        assert inflight.busy(partition_of(live.id))
    held, disk.held = await asyncio.wait_for(disk.both(), 60), None
    repeated = asyncio.Event()
    inflight.repeated = lambda live, step: repeated.set() if step.status == Status.DELIVERED else None
    for step, was in held:
        was.settle(await queue.advance(step), None)
    await asyncio.wait_for(repeated.wait(), 60)
    assert queue.by_id(live.id).status == Status.DELIVERED
    assert not inflight.in_hand(live.id)


async def test_a_repeated_step_does_not_undo_what_happened_meanwhile(queue, monkeypatch):
    monkeypatch.setattr("trunkline.inflight.store.REPEAT_S", 0.01)
    disk = FullDisk(queue)
    inflight = Inflight(disk, Clock())
    live, written = inflight.accept(message(), Status.QUEUED, lane="c/a/s")
    await written
    disk.full = True
    with pytest.raises(StoreUnavailable):
        await inflight.advance(live, Status.QUEUED, lane="d/a/s")
    disk.full = False
    again = await inflight.find(AC, live.message.sid)
    assert await inflight.advance(again, Status.CANCELED)
    await asyncio.sleep(0.1)
    assert queue.by_id(live.id).status == Status.CANCELED


async def test_a_flight_being_submitted_stays_in_memory(queue):
    """It tells that its partition is busy, and that its outcome is still to come."""
    inflight = Inflight(queue, Clock(), max_live=2)
    live = await accept(inflight, Status.SENDING)
    for _ in range(5):
        await accept(inflight)
    assert inflight.in_hand(live.id)
    assert inflight.busy(partition_of(live.id))
    await inflight.advance(live, Status.SENT)
    assert not inflight.in_hand(live.id)


async def test_a_step_of_a_flight_that_is_another_nodes_is_not_repeated(inflight, queue, monkeypatch):
    live = await accept(inflight, Status.SENDING)
    failed = Written()
    failed.settle(None, NotOwned("another's"))
    monkeypatch.setattr(queue, "advance", lambda step: failed)
    inflight.advance(live, Status.SENT)
    await asyncio.sleep(0)
    assert not inflight.in_hand(live.id)
    assert inflight._unwritten == {}
