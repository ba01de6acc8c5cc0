"""Calls in flight: durable acceptance, guarded steps, the callbacks they owe, landing."""

import asyncio
import json

import pytest

from trunkline.inflight.store import Inflight
from trunkline.model.call import Call, Direction, Status, StatusTarget
from trunkline.model.sid import new_sid
from trunkline.postflight import landing as landing_module
from trunkline.postflight.landing import Landing
from trunkline.storage.engines.sqlite.queue import SqliteQueue
from trunkline.storage.queue import Exists, Owed, Replay
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.testing.clock import ManualClock
from trunkline.voice import flights as module
from trunkline.voice.flights import CallFlights, IllegalTransition
from trunkline.voice.reader import CallReader

from ..messaging.world import MemoryArchive

AC = "AC" + "a" * 32
URL = "http://app.example/status"
ALL = ("initiated", "ringing", "answered", "completed")


@pytest.fixture
async def queue(tmp_path):
    queue = SqliteQueue(tmp_path / "queue.db")
    yield queue
    await queue.close()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def flights(queue, clock):
    return CallFlights(queue, clock)


def call(clock, *, events=ALL, **changes):
    values = {
        "sid": new_sid("CA", clock.now_ms()), "account_sid": AC, "direction": Direction.OUTBOUND_API,
        "from_": "+12025550100", "to": "+14155550199",
    }  # fmt: skip
    made = Call(**(values | changes))
    if events:
        made.status_callbacks = [StatusTarget(URL, "POST", events)]
    return made


async def events_of(queue, sid):
    """(event status, SequenceNumber, order) of every callback that is owed."""
    found = await queue.get(AC, sid)
    shown = []
    for owed in found[1]:
        params = dict(json.loads(owed.request)["params"])
        shown.append((params["CallStatus"], params["SequenceNumber"], owed.seq))
    return shown


async def test_a_whole_call_costs_three_commits_and_tells_its_events_in_order(flights, queue, clock):
    told = []
    flights.owed = told.extend
    made = call(clock, events=("answered", "completed"))
    flight, written = flights.accept(made, Status.QUEUED)
    await written
    before = flight.rev
    made.answered_ms = clock.now_ms()
    await flights.advance(flight, Status.IN_PROGRESS)
    clock.advance(61.5)
    await flights.advance(flight, Status.COMPLETED)
    assert flight.rev - before == 2
    assert await events_of(queue, made.sid) == [("in-progress", "0", 0), ("completed", "1", 1)]
    assert [dict(json.loads(o.request)["params"])["CallStatus"] for o in told] == ["in-progress", "completed"]
    last = dict(json.loads(told[-1].request)["params"])
    assert (last["CallDuration"], last["Duration"]) == ("62", "2")


async def test_acceptance_completes_the_idempotency_row_in_the_same_commit(flights, queue, clock):
    row = Replay(account=AC, method="POST", path="/Calls", key="k", fingerprint=b"f", expires_ms=clock.now_ms() + 9999)
    assert await queue.claim_replay(row, clock.now_ms()) is None
    made = call(clock)
    row.status, row.body, row.sid = 201, b"{}", made.sid
    _, written = flights.accept(made, Status.QUEUED, replay=row)
    await written
    again = Replay(account=AC, method="POST", path="/Calls", key="k", fingerprint=b"f", expires_ms=1)
    holder = await queue.claim_replay(again, clock.now_ms())
    assert (holder.state, holder.status, holder.sid) == ("done", 201, made.sid)


async def test_a_sid_is_accepted_once(flights, clock):
    made = call(clock)
    await flights.accept(made, Status.QUEUED)[1]
    with pytest.raises(Exists):
        await flights.accept(made, Status.QUEUED)[1]
    assert flights.cached(made.sid) is None or flights.cached(made.sid).call is made


@pytest.mark.parametrize(
    ("before", "after"),
    [(Status.COMPLETED, Status.IN_PROGRESS), (Status.IN_PROGRESS, Status.BUSY), (Status.IN_PROGRESS, Status.RINGING)],
)
async def test_steps_that_the_table_does_not_have_change_nothing(flights, clock, before, after):
    flight, written = flights.accept(call(clock), before)
    await written
    with pytest.raises(IllegalTransition):
        flights.advance(flight, after)
    assert (flight.status, flight.rev) == (before, 0)


async def test_a_call_canceled_while_queued_tells_nobody(flights, queue, clock):
    flight, written = flights.accept(call(clock), Status.QUEUED)
    await written
    await flights.advance(flight, Status.CANCELED)
    assert await events_of(queue, flight.call.sid) == []


async def test_the_password_is_gone_before_the_call_lands(flights, queue, clock):
    flight, written = flights.accept(call(clock, sip_auth_password="v1:sealed"), Status.QUEUED)
    await written
    assert b"v1:sealed" in queue.by_id(flight.id).record
    await flights.advance(flight, Status.FAILED)
    assert b"v1:sealed" not in queue.by_id(flight.id).record


async def test_the_price_is_put_into_the_last_record(flights, queue, clock):
    flights.price = lambda call: setattr(call, "price", "0.013")
    flight, written = flights.accept(call(clock), Status.QUEUED)
    await written
    await flights.advance(flight, Status.NO_ANSWER)
    assert b'"price":"0.013"' in queue.by_id(flight.id).record


async def test_a_step_from_a_stale_copy_is_refused(flights, queue, clock):
    flight, written = flights.accept(call(clock), Status.QUEUED)
    await written
    other = CallFlights(queue, clock)
    twin = await other.find(AC, flight.call.sid)
    assert await flights.advance(flight, Status.IN_PROGRESS)
    assert not await other.advance(twin, Status.CANCELED)
    assert queue.by_id(flight.id).status == "in-progress"


async def test_ended_calls_land_with_their_webhooks_and_leave_the_working_copies(flights, queue, clock):
    archive = MemoryArchive()
    inflight = Inflight(queue, clock)
    landing = Landing(inflight, archive, 1000)
    landing.forget.append(flights.forget)
    woken = []
    flights.landed = lambda: woken.append(True)
    flight, written = flights.accept(call(clock, events=()), Status.QUEUED)
    await written
    await flights.advance(flight, Status.IN_PROGRESS)
    assert not woken
    assert await landing.land_all() == 0
    clock.advance(3)
    await flights.advance(flight, Status.COMPLETED)
    assert woken
    assert await landing.land_all() == 1
    assert flights.cached(flight.call.sid) is None
    assert len(flights) == 0
    reader = CallReader(queue, archive)
    stored = await reader.get(AC, flight.call.sid)
    assert (stored.landed, stored.status, stored.to) == (True, "completed", "+14155550199")


async def test_what_is_told_besides_is_added_to_the_document_when_it_comes(flights, queue, clock, monkeypatch):
    monkeypatch.setattr(landing_module, "APPEND_WAIT_S", 0.01)
    archive = MemoryArchive()
    landing = Landing(Inflight(queue, clock), archive, 1000)
    flight, written = flights.accept(call(clock, events=()), Status.IN_PROGRESS)
    await written
    sid = flight.call.sid
    assert flights.id_of(sid) == flight.id
    clock.advance(3)
    await flights.advance(flight, Status.COMPLETED)
    assert flights.id_of(sid) == 0
    late = Owed(sid=sid, account=AC, kind="status", host="http://h", request=b'{"url":"http://h/"}', attempts=b"[7]")
    await queue.owe([late])
    late.state, late.tries = "delivered", 1
    landing.settled(late)  # the flight has ended and has not landed
    await asyncio.sleep(0.02)
    await landing.land_all()
    await landing.stop()
    (hook,) = (await CallReader(queue, archive).get(AC, sid)).webhooks
    assert hook == {
        "kind": "status",
        "state": "delivered",
        "tries": 1,
        "request": {"url": "http://h/"},
        "attempts": [7],
    }
    assert await queue.owed("http://h", 0, 9, clock.now_ms()) == []


async def test_a_step_that_could_not_be_written_is_repeated(flights, queue, clock, monkeypatch):
    monkeypatch.setattr(module, "REPEAT_S", 0.01)
    told = []
    flights.owed = told.extend
    flight, written = flights.accept(call(clock, events=("completed",)), Status.QUEUED)
    await written
    real, broken = queue.advance, [True, True]

    def advance(step):
        if broken:
            broken.pop()

            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(StoreUnavailable("full"))
            return failed
        return real(step)

    monkeypatch.setattr(queue, "advance", advance)
    with pytest.raises(StoreUnavailable):
        await flights.advance(flight, Status.FAILED)
    for _ in range(200):
        if told:
            break
        await asyncio.sleep(0.01)
    assert queue.by_id(flight.id).status == "failed"
    assert len(told) == 1


async def test_recovery_reads_every_call_of_a_status(flights, queue, clock):
    sids = []
    for _ in range(3):
        flight, written = flights.accept(call(clock), Status.QUEUED)
        await written
        sids.append(flight.call.sid)
    later = CallFlights(queue, clock)
    found = await later.in_state(Status.QUEUED)
    assert [one.call.sid for one in found] == sids
    assert later.cached(sids[0]) is found[0]
    assert await later.in_state(Status.IN_PROGRESS) == []
