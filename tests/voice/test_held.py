"""What happens to calls while the queue cannot be told: noted, kept for the next node, written in order later."""

import asyncio

import msgspec
import pytest

from tests.voice.lines import APP, OTHER
from trunkline.media import protocol
from trunkline.model.call import Status
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice import checkpoints, recordings
from trunkline.voice.checkpoints import FlightCheckpoint

from ..messaging.world import eventually

MENU = f"<Gather numDigits='1' timeout='60' action='{APP}chosen'><Say>press</Say></Gather>"


class Fence:
    """A gate that the test opens."""

    def __init__(self):
        self.open = True


async def kept(node, sid):
    """What other nodes know of a call's flight."""
    value = await node.memory.get(checkpoints.key(sid, checkpoints.FLIGHT))
    return msgspec.msgpack.decode(value, type=FlightCheckpoint) if value is not None else None


def no_queue(node):
    """The node's queue fails whatever is asked of it; gives what undoes that."""

    class Away:
        def __getattr__(self, name):
            raise StoreUnavailable(f"{name}: the test says so")

    queue, node.flights.queue = node.flights.queue, Away()

    def back():
        node.flights.queue = queue

    return back


async def test_each_step_is_kept_until_the_last_is_in_the_queue(hosts):
    (call,) = await hosts.calls(MENU)
    await eventually(lambda: not call.flight.pending)
    found = await kept(hosts.lost, call.sid)
    assert (found.id, found.status) == (call.flight.id, "in-progress")
    assert [status for status, _ in found.path] == ["ringing", "in-progress"]
    hosts.phone.hangs_up()
    await hosts.lost.until(call.sid, "completed")
    await eventually(lambda: not hosts.lost.flights._by_sid)
    assert await hosts.lost.memory.scan("call/") == []


async def test_a_single_node_keeps_nothing(lines):
    lines.web.pages[APP + "in"] = MENU
    sid = await lines.create()
    await lines.until(sid, "in-progress")
    assert lines.flights.cached(sid).path == []
    assert await kept(lines, sid) is None


async def test_calls_go_on_while_the_queue_is_away(hosts):
    (call,) = await hosts.calls(MENU)
    await hosts.die()
    back = no_queue(hosts.heir)
    report = await hosts.speaks()
    assert (report.reached, report.gone) == (1, 0)
    await eventually(lambda: hosts.heir.media.of(protocol.Play))
    hosts.heir.web.pages[APP + "chosen"] = "<Say>two</Say>"
    hosts.heir.media.tell(protocol.Digit(leg=call.sid, digit="4"))
    await eventually(lambda: len(hosts.heir.media.of(protocol.Play)) == 2)
    assert hosts.heir.web.params(APP + "chosen")[0]["Digits"] == "4"
    back()
    await hosts.writes()
    assert hosts.heir.flights.held() == []
    hosts.phone.hangs_up()
    stored = await hosts.heir.until(call.sid, "completed")
    assert "taken over by another host" in [entry.what for entry in stored.timeline]


async def test_a_call_that_ends_meanwhile_is_told_of_once_that_can_be_stored(hosts):
    sid = await hosts.lost.create("<Gather timeout='60'/>")
    await hosts.lost.until(sid, "in-progress")
    await hosts.die()
    before = [event["CallStatus"] for event in hosts.lost.events(sid)]
    assert before == ["initiated", "ringing", "in-progress"]
    back = no_queue(hosts.heir)
    await hosts.speaks()
    hosts.phone.dialogs[-1].bye()
    await eventually(lambda: not hosts.heir.services.live)
    assert hosts.heir.events(sid) == []
    assert (await kept(hosts.heir, sid)).status == "completed"
    back()
    await hosts.writes()
    stored = await hosts.heir.until(sid, "completed")
    (event,) = hosts.heir.events(sid)
    assert (event["CallStatus"], event["SequenceNumber"]) == ("completed", "3")
    assert stored.hangup_cause == "callee"
    assert await hosts.heir.memory.scan("call/") == []


async def test_the_next_heir_writes_the_end_that_this_one_could_not(hosts):
    sid = await hosts.lost.create("<Gather timeout='60'/>")
    await hosts.lost.until(sid, "in-progress")
    await hosts.die()
    back = no_queue(hosts.heir)
    await hosts.speaks()
    hosts.phone.dialogs[-1].bye()
    await eventually(lambda: not hosts.heir.services.live)
    hosts.heir.flights.abandon(lambda one: True)  # it dies, too
    back()
    report = await hosts.speaks()
    assert (report.ended, report.legs) == (1, 0)
    await hosts.writes()
    await hosts.heir.until(sid, "completed")
    assert [event["CallStatus"] for event in hosts.heir.events(sid)] == ["completed"]
    await eventually(lambda: not hosts.heir.flights._by_sid)


async def test_steps_that_the_lost_node_could_not_write_are_written(hosts):
    """Its queue was away when the call was answered, and ended: both are told of, in order."""
    hosts.lost.web.pages[APP + "in"] = MENU
    sid = await hosts.lost.create("<Gather timeout='60'/>")
    flight = hosts.lost.flights.cached(sid)
    await hosts.lost.until(sid, "in-progress")
    written = flight.rev
    back = no_queue(hosts.lost)
    hosts.lost.flights.queue = Stuck(hosts.lost.queue)
    hosts.phone.dialogs[-1].bye()
    await eventually(lambda: not hosts.lost.services.live)
    assert flight.rev > written
    hosts.lost.flights.abandon(lambda one: True)
    back()
    flight.pending = 0
    await hosts.die()
    report = await hosts.speaks()
    assert report.ended == 1
    await hosts.writes()
    stored = await hosts.heir.until(sid, "completed")
    assert stored.hangup_cause == "callee"
    assert [event["CallStatus"] for event in hosts.heir.events(sid)] == ["completed"]


class Stuck:
    """Writes are under way for ever."""

    def __init__(self, queue):
        self._queue = queue

    def advance(self, step):
        return asyncio.get_running_loop().create_future()

    def __getattr__(self, name):
        return getattr(self._queue, name)


async def test_what_the_queue_knows_to_be_over_is_over_here(hosts):
    (call,) = await hosts.calls(MENU)
    await hosts.die()
    await hosts.speaks()
    stored = (await hosts.heir.queue.get(call.account.sid, call.sid))[0]
    other = hosts.lost.flights.cached(call.sid) or hosts.lost.flights.adopt(stored)
    await hosts.lost.flights.advance(other, Status.COMPLETED)  # its last commit, before the partition was opened here
    await hosts.writes()
    await eventually(lambda: not hosts.heir.services.live)
    assert hosts.heir.flights.held() == []
    assert hosts.heir.events(call.sid) == []
    assert await hosts.heir.memory.scan("call/") == []


async def test_a_dial_goes_on_and_its_callee_is_told_of_later(hosts):
    (call,) = await hosts.calls(f"<Dial action='{APP}after'>{OTHER}</Dial>")
    await eventually(lambda: hosts.lost.media.of(protocol.Bridge))
    await hosts.die()
    back = no_queue(hosts.heir)
    await hosts.speaks()
    await eventually(lambda: hosts.heir.media.of(protocol.Bridge))
    hosts.phone.dialogs[-1].bye()  # the callee
    (params,) = await eventually(lambda: hosts.heir.web.params(APP + "after"))
    assert params["DialCallStatus"] == "completed"
    back()
    await hosts.writes()
    (child,) = await hosts.heir.children(call.sid)
    await hosts.heir.until(child.sid, "completed")


async def test_a_recording_goes_on_while_the_databases_are_away(hosts):
    went_on = []

    class Continues:
        async def continue_recording(self, call, sid, lost_ms, known_row=None):
            went_on.append((call.sid, sid, known_row))
            return True

    (call,) = await hosts.calls(f"<Record action='{APP}recorded'/>")
    (sid,) = await eventually(lambda: list(hosts.lost.media.recording))
    await eventually(lambda: hosts.lost.recordings.running(sid).stored.done())
    row = hosts.lost.recordings.running(sid).row
    await hosts.die()
    back = no_queue(hosts.heir)
    hosts.heir.recordings._database, database = NoDatabase(), hosts.heir.recordings._database
    hosts.takeover.recordings = Continues()
    await hosts.speaks()
    ((of, went, known),) = await eventually(lambda: went_on)
    assert (of, went, known.sid, known.start_ms) == (call.sid, sid, sid, row.start_ms)
    back()
    hosts.heir.recordings._database = database
    await hosts.writes()
    assert len(went_on) == 1
    hosts.phone.hangs_up()
    await hosts.heir.until(call.sid, "completed")


class NoDatabase:
    def __getattr__(self, name):
        raise StoreUnavailable(f"{name}: the test says so")


async def test_a_recording_is_not_finished_while_another_node_may_have_it(hosts, monkeypatch):
    monkeypatch.setattr(recordings, "STORE_RETRY_S", 0.01)
    (call,) = await hosts.calls("<Record/>")
    (sid,) = await eventually(lambda: list(hosts.lost.media.recording))
    running = hosts.lost.recordings.running(sid)
    await eventually(lambda: running.stored.done())
    fence = hosts.lost.recordings.gate = Fence()
    fence.open = False
    hosts.lost.recordings.event(protocol.Recorded(recording=sid, leg=call.sid, why="failed"))
    await asyncio.sleep(0.05)
    (row,) = await hosts.lost.recordings_of(call.sid)
    assert row.status == "in-progress"
    assert [name for name, _ in await hosts.lost.memory.scan(f"call/{call.sid}/recording/")]
    fence.open = True
    await asyncio.wait_for(asyncio.shield(running.finished), 20)
    (row,) = await hosts.lost.recordings_of(call.sid)
    assert row.status == "failed"
    assert await hosts.lost.memory.scan(f"call/{call.sid}/recording/") == []


async def test_a_closed_fence_writes_nothing_until_it_is_open(hosts):
    (call,) = await hosts.calls(MENU)
    flights = hosts.lost.flights
    await eventually(lambda: not call.flight.pending)
    fence = flights.gate = hosts.lost.services.gate = Fence()
    rev, fence.open = call.flight.rev, False
    stored = await hosts.lost.memory.scan("call/")
    call.hangup("rtp-timeout")
    await eventually(lambda: not hosts.lost.services.live)
    assert call.flight.rev == rev
    assert sorted(await hosts.lost.memory.scan("call/")) == sorted(stored), "another node may go on with it"
    assert (await hosts.lost.stored(call.sid)).status == "in-progress"
    fence.open = True
    flights.reopened()
    await hosts.lost.until(call.sid, "completed")
    await eventually(lambda: not flights._by_sid)
    assert await hosts.lost.memory.scan("call/") == []


async def test_what_was_held_for_the_fence_is_dropped_with_the_partition(hosts):
    (call,) = await hosts.calls(MENU)
    flights = hosts.lost.flights
    await eventually(lambda: not call.flight.pending)
    fence = flights.gate = Fence()
    fence.open = False
    held = flights.advance(call.flight, Status.COMPLETED)
    call.flight = None
    flights.abandon(lambda sid: True)
    assert await held is False
    fence.open = True
    flights.reopened()
    assert (await hosts.lost.stored(call.sid)).status == "in-progress"


@pytest.mark.parametrize(
    "garbage", [b"", b"\x93\x01", msgspec.msgpack.encode({"id": 1, "status": "x", "record": b"{}"})]
)
async def test_a_record_that_cannot_be_read_leaves_the_call_to_the_queue(hosts, garbage):
    (call,) = await hosts.calls(MENU)
    await hosts.die()
    hosts.heir.memory.post(checkpoints.key(call.sid, checkpoints.FLIGHT), garbage)
    report = await hosts.speaks()
    assert report.legs == 0
    report = await hosts.writes()
    assert (report.legs, report.reached) == (1, 1)
