"""A node is given a partition back just after it has let go of it: its calls go on, as others of the same name."""

import asyncio

import msgspec
import pytest

from tests.objects import shared_folder
from tests.voice.lines import AC, APP
from trunkline.media import protocol
from trunkline.media.recorded import ENTRY_BYTES, SUFFIX
from trunkline.storage.objects import AsyncObjects, Objects
from trunkline.voice import live, recording_takeover
from trunkline.voice.lost_recordings import LostRecordings
from trunkline.voice.recording_pieces import Head, pack, piece_name
from trunkline.voice.recording_takeover import SharedRecordings
from trunkline.voice.recordings import NewRecording
from trunkline.voice.recovery import Recovery
from trunkline.voice.takeover import Takeover

from ..messaging.world import eventually


def holds_closes(media):
    """The media process does not come to close anything, until it is told to."""
    held, do = [], media._do
    media._do = lambda command: held.append(command) if isinstance(command, protocol.Close) else do(command)

    def close():
        for command in held:
            do(command)

    return close


@pytest.mark.parametrize("closed", ["before its peer has answered", "after that", "never"])
async def test_a_call_that_comes_back_at_once_goes_on(hosts, monkeypatch, closed):
    monkeypatch.setattr(live, "CLOSED_WAIT_S", 0.1 if closed == "never" else 60.0)
    node = hosts.heir = hosts.lost
    hosts.takeover = Takeover(node.services, node.stack)
    node.web.pages[APP + "done"] = "<Hangup/>"
    (call,) = await hosts.calls(f"<Gather numDigits='1' timeout='60' action='{APP}done'/>")
    await eventually(lambda: not any(flight.pending for flight in node.flights))
    close = holds_closes(node.media)
    assert hosts.takeover.let_go() == 1
    report = await hosts.takeover.take_over(lambda sid: True)
    assert report.legs == 1
    again = hosts.call(call.sid)
    assert again is not call
    assert not again.reached
    if closed.startswith("before"):
        close()
    await asyncio.wait_for(report.settled.wait(), 5)
    if closed.startswith("after"):
        close()
        assert not call.settled.is_set(), "what the media process tells is the other's"
    else:
        await asyncio.wait_for(call.settled.wait(), 5)
    report = await hosts.takeover.settle(node.queue, lambda sid: True)
    assert (report.legs, report.lost) == (0, 0)
    assert again.reached
    assert again.is_up
    assert node.services.live == {call.sid: again}
    assert node.services.counts.account == {AC: 1}
    assert list(node.services.traced.values()) == [again]
    await eventually(lambda: again.session is not None)
    node.media.tell(protocol.Digit(leg=call.sid, digit="5"))
    (params,) = await eventually(lambda: node.web.params(APP + "done"))
    assert params["Digits"] == "5"
    await eventually(lambda: hosts.phone.byes)


# -- its call is being recorded ----------------------------------------------------------------------------------


@pytest.fixture
async def recorded(hosts):
    """A call that is recorded on the node that lets go of it and gets it back: `hosts` with its `row`."""
    node = hosts.heir = hosts.lost
    store = hosts.store = Objects(shared_folder(node.folder / "shared"))
    shared = SharedRecordings(
        AsyncObjects(store), node.recordings, node.database, node.clock, node.folder / "spool", "here", 3_600_000
    )
    shared.start()
    hosts.takeover = Takeover(node.services, node.stack, shared.takeover)
    (hosts.was,) = await hosts.calls("<Gather timeout='60'/>")
    hosts.row = await node.recordings.start(AC, hosts.was.sid, NewRecording(max_ms=600_000))
    command = await eventually(lambda: node.media.recording.get(hosts.row.sid))
    left(hosts, command)
    await eventually(lambda: not any(flight.pending for flight in node.flights))
    yield hosts
    await shared.stop()


def left(hosts, command):
    """2 s of a recording have left the node."""
    head = Head(description=msgspec.to_builtins(command), end_ms=hosts.heir.clock.now_ms(), end_sample=16_000)
    hosts.store.write(piece_name(command.recording, 0, "here", 0, 100), pack(head, bytes(100 * ENTRY_BYTES)))


def finishes_late(media):
    """What is recorded of a leg that closes is not finished, until it is told to be; nothing begins under that name
    before."""
    finish, do, ended = media.recorded, media._do, []
    media.recorded = lambda name, why: ended.append((name, why))

    def engine(command):
        if not isinstance(command, protocol.Record) or command.recording not in media.recording:
            do(command)

    media._do = engine

    def finished():
        media.recorded = finish
        for name, why in ended:
            finish(name, why, ms=2000)

    return finished


@pytest.mark.parametrize("told", ["before its peer has answered", "while it is about to go on"])
async def test_a_recording_whose_call_comes_back_at_once_goes_on(recorded, told):
    node, sid = recorded.lost, recorded.row.sid
    finished = finishes_late(node.media)
    assert recorded.takeover.let_go() == 1
    await eventually(lambda: len(node.media.of(protocol.Close)) == 1)
    report = await recorded.takeover.take_over(lambda sid: True)
    if told.startswith("before"):
        finished()
    await asyncio.wait_for(report.settled.wait(), 5)
    if told.startswith("while"):
        await eventually(lambda: sid in node.recordings.deciding)
        await asyncio.sleep(0.1)
        finished()
    (first, again) = await eventually(lambda: (found := node.media.of(protocol.Record))[1:] and found)
    assert (first.offset_ms, again.recording) == (0, sid)
    assert 2000 <= again.offset_ms < 10_000
    running = node.recordings.running(sid)
    await asyncio.sleep(0.05)
    assert not running.done.done(), "the end of the first part is not its end"
    await eventually(lambda: sid in node.media.recording)
    node.media.recorded(sid, ms=9000)
    await asyncio.wait_for(running.finished, 5)
    (row,) = await node.recordings_of(recorded.was.sid)
    assert (row.status, row.duration_ms) == ("completed", 9000)


async def test_a_media_process_that_was_lost_meanwhile_keeps_no_recording_from_going_on(recorded):
    """It has nothing more to tell of the first part."""
    node, sid, epoch = recorded.lost, recorded.row.sid, 1
    recovery = Recovery(node.services, node.stack, node.inbound, "run", lambda: epoch)
    recovery.greeted([])
    node.media.recording.clear()
    assert recorded.takeover.let_go() == 1
    await asyncio.sleep(0)
    assert node.recordings.former == {sid}
    epoch = 2
    recovery.greeted([])
    assert node.recordings.former == set()
    await recorded.goes_on()
    await eventually(lambda: sid in node.media.recording)
    running = node.recordings.running(sid)
    node.media.recorded(sid, ms=9000)
    await asyncio.wait_for(running.finished, 5)
    (row,) = await node.recordings_of(recorded.was.sid)
    assert (row.status, row.duration_ms) == ("completed", 9000)


def makes_a_file(node, sid):
    """The recorder is at what this node has recorded; its spool."""
    folder = node.recordings.folder(sid)
    folder.mkdir(parents=True, exist_ok=True)
    spool = folder / f"{sid}{SUFFIX}"
    spool.touch()
    return spool


@pytest.mark.parametrize("told", ["before its spool goes", "after that"])
async def test_a_recording_goes_on_once_what_was_recorded_here_is_finished(recorded, told):
    node, sid = recorded.lost, recorded.row.sid
    finished, spool = finishes_late(node.media), makes_a_file(node, sid)
    assert recorded.takeover.let_go() == 1
    report = await recorded.takeover.take_over(lambda sid: True)
    await asyncio.wait_for(report.settled.wait(), 5)
    await eventually(lambda: sid in node.recordings.deciding)
    steps = [finished, spool.unlink]
    for step in steps if told.startswith("before") else reversed(steps):
        await asyncio.sleep(0.2)
        assert len(node.media.of(protocol.Record)) == 1
        step()
    await eventually(lambda: sid in node.media.recording)
    (row,) = await node.recordings_of(recorded.was.sid)
    assert row.status == "in-progress"
    running = node.recordings.running(sid)
    assert not running.done.done()
    node.media.recorded(sid, ms=9000)
    await asyncio.wait_for(running.finished, 5)


@pytest.mark.parametrize("spool", [True, False])
async def test_where_that_is_never_finished_the_recording_is_that_part(recorded, monkeypatch, spool):
    """Nothing of ours has begun by then that its end could be taken for the end of."""
    monkeypatch.setattr(recording_takeover, "OWN_S", 0.2)
    node, sid = recorded.lost, recorded.row.sid
    finished = finishes_late(node.media)
    if spool:
        makes_a_file(node, sid)
    assert recorded.takeover.let_go() == 1
    await recorded.goes_on()
    await eventually(lambda: sid in node.recordings.deciding)
    await eventually(lambda: sid not in node.recordings.deciding)
    assert node.recordings.running(sid) is None
    assert node.recordings.former == set()
    finished()

    async def kept():
        (row,) = await node.recordings_of(recorded.was.sid)
        return row.status == "completed" and row

    row = await eventually(kept)
    assert row.duration_ms == 2000
    assert recorded.call().is_up
    assert len(node.media.of(protocol.Record)) == 1


async def test_a_recording_whose_call_goes_and_comes_back_once_more_meanwhile_goes_on(recorded):
    """It comes back, and goes before it is known whether its recording goes on."""
    node, sid = recorded.lost, recorded.row.sid
    finished = finishes_late(node.media)
    for _ in range(2):
        assert recorded.takeover.let_go() == 1
        report = await recorded.takeover.take_over(lambda sid: True)
        await asyncio.wait_for(report.settled.wait(), 5)
        await eventually(lambda: sid in node.recordings.deciding)
        await asyncio.sleep(0.1)
    finished()
    await eventually(lambda: sid in node.media.recording)
    running = node.recordings.running(sid)
    assert running.call is recorded.call()
    node.media.recorded(sid, ms=9000)
    await asyncio.wait_for(running.finished, 5)
    (row,) = await node.recordings_of(recorded.was.sid)
    assert (row.status, row.duration_ms) == ("completed", 9000)


async def test_two_recordings_of_a_call_that_comes_back_go_on_side_by_side(recorded):
    """What is there of the one is waited for; nobody takes the other one for lost meanwhile."""
    node, sids = recorded.lost, {recorded.row.sid}
    row = await node.recordings.start(AC, recorded.was.sid, NewRecording(max_ms=600_000))
    sids.add(row.sid)
    left(recorded, await eventually(lambda: node.media.recording.get(row.sid)))
    finished = finishes_late(node.media)
    assert recorded.takeover.let_go() == 1
    report = await recorded.takeover.take_over(lambda sid: True)
    await asyncio.wait_for(report.settled.wait(), 5)
    await recorded.takeover.settle(node.queue, lambda sid: True)
    await eventually(lambda: node.recordings.deciding)
    await asyncio.sleep(0)
    assert node.recordings.deciding == sids
    assemble = recorded.takeover.recordings.assemble
    lost = LostRecordings(node.recordings, node.database, node.folder / "spool", set, assemble=assemble)
    assert await lost.take(lambda sid: True) == 2
    await lost.look()
    finished()
    await eventually(lambda: node.media.recording.keys() == sids)
    await asyncio.sleep(0.1)
    rows = await node.recordings_of(recorded.was.sid)
    assert {one.sid: one.status for one in rows} == dict.fromkeys(sids, "in-progress")
    for sid in sids:
        node.media.recorded(sid, ms=9000)
    await eventually(lambda: not node.recordings.of_call(recorded.was.sid))
    rows = await node.recordings_of(recorded.was.sid)
    assert [(one.status, one.duration_ms) for one in rows] == [("completed", 9000)] * 2


async def test_a_recording_that_cannot_go_on_keeps_no_other_from_that(recorded, monkeypatch):
    node, bad = recorded.lost, recorded.row.sid
    good = await node.recordings.start(AC, recorded.was.sid, NewRecording(max_ms=600_000))
    await eventually(lambda: good.sid in node.media.recording)
    goes_on, shared = recorded.takeover.recordings.continue_recording, recorded.takeover.recordings

    async def fails(call, sid, *known):
        if sid == bad:
            raise TypeError("the test says so")
        return await goes_on(call, sid, *known)

    monkeypatch.setattr(shared, "continue_recording", fails)
    assert recorded.takeover.let_go() == 1
    await recorded.goes_on()
    await eventually(lambda: node.media.recording.keys() == {good.sid})
