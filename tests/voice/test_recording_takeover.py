"""A recording goes on with its call on another host, or is put together where the call has ended."""

import asyncio
import struct
import wave

import msgspec
import pytest

from tests.objects import shared_folder
from tests.voice.lines import APP
from tests.voice.test_takeover_back import holds_closes
from trunkline.media import protocol, recorded
from trunkline.model.recording import Recording
from trunkline.storage.objects import AsyncObjects, Objects
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice import recording_takeover
from trunkline.voice.lost_recordings import LostRecordings
from trunkline.voice.recording_pieces import Head, pack, piece_name
from trunkline.voice.recording_takeover import SharedRecordings
from trunkline.voice.recordings import NewRecording
from trunkline.voice.verbs import record

from ..messaging.world import AC, eventually

FRAME = 160
LONGEST_MS = 3_600_000


def entries(count, kind=0, first=0):
    """Loud frames."""
    return b"".join(
        struct.pack("<QIIII", (first + n) * FRAME, 0, 1, kind, 0) + struct.pack("<h", 9000) * 2 * FRAME
        for n in range(count)
    )


@pytest.fixture
async def left(lines):
    """A call that goes on here, whose recording a lost host has begun: `lines` with its row, pieces and takeover."""
    lines.sid = await lines.create()
    await lines.until(lines.sid, "in-progress")
    new = NewRecording(channels=2, max_ms=600_000, finish_on="#")
    lines.row = await lines.recordings.start(AC, lines.sid, new)
    await eventually(lambda: lines.row.sid in lines.media.recording)
    lines.was = lines.media.recording.pop(lines.row.sid)
    lines.recordings._running.clear()
    lines.call = lines.services.live[lines.sid]
    lines.store = Objects(shared_folder(lines.folder / "shared"))
    shared = SharedRecordings(
        AsyncObjects(lines.store), lines.recordings, lines.database, lines.services.clock, lines.folder / "spool",
        "here", LONGEST_MS,
    )  # fmt: skip
    shared.start()
    lines.takeover = shared.takeover
    yield lines
    await shared.stop()


def upload(lines, frames=100, ago_ms=3000, **changes):
    """What the lost host had uploaded; its last frame is so old."""
    now = lines.services.clock.now_ms()
    fields = {"end_ms": now - ago_ms, "end_sample": frames * FRAME, **changes}
    head = Head(description=msgspec.to_builtins(lines.was), **fields)
    lines.store.write(piece_name(lines.row.sid, 0, "lost", 0, frames), pack(head, entries(frames)))


async def go_on(lines):
    now = lines.services.clock.now_ms()
    goes_on = await lines.takeover.continue_recording(lines.call, lines.row.sid, now - 3000)
    if goes_on:
        await eventually(lambda: lines.row.sid in lines.media.recording)
    return goes_on


async def completed(lines):
    """Its row, once it is complete."""

    async def is_complete():
        return (await lines.database.get(Recording, lines.row.sid)).status == "completed"

    await eventually(is_complete, 30.0)
    return await lines.database.get(Recording, lines.row.sid)


async def test_it_goes_on_where_it_would_be_by_now(left):
    upload(left)
    assert await go_on(left)
    command = left.media.recording[left.row.sid]
    assert abs(command.offset_ms - 5000) < 1000
    assert command.max_ms == 600_000 - command.offset_ms
    assert (command.channels, command.finish_on, command.beep, command.leg) == (2, "#", False, left.sid)
    folder = left.folder / "spool" / left.row.sid
    await eventually(lambda: (folder / f"{left.row.sid}{recorded.EARLIER}").exists())
    assert (folder / f"{left.row.sid}{recorded.EARLIER}").stat().st_size == 100 * recorded.ENTRY_BYTES
    await eventually(lambda: not (folder / f"{left.row.sid}{recorded.PENDING}").exists())
    left.media.recorded(left.row.sid, ms=9000)
    row = await completed(left)
    assert (row.status, row.duration_ms) == ("completed", 9000)
    await eventually(lambda: not list(left.store.names("live")))


class Away:
    """A database that answers from when the test says so."""

    def __init__(self, database):
        self._database = database
        self.is_back = False

    async def get(self, kind, sid):
        if not self.is_back:
            raise StoreUnavailable("the test says so")
        return await self._database.get(kind, sid)

    def __getattr__(self, name):
        return getattr(self._database, name)


async def test_it_goes_on_before_the_database_can_be_asked(left, monkeypatch):
    monkeypatch.setattr(recording_takeover, "CATCH_UP_S", 0.01)
    upload(left)
    known = msgspec.structs.replace(left.row, rev=0)
    away = left.takeover._database = Away(left.database)
    assert await left.takeover.continue_recording(left.call, known.sid, left.services.clock.now_ms() - 3000, known)
    command = await eventually(lambda: left.media.recording.get(known.sid))
    assert command.offset_ms > 4000
    running = left.recordings.running(known.sid)
    left.media.recorded(known.sid, ms=9000)
    assert not running.stored.done()
    away.is_back = True
    assert (await completed(left)).duration_ms == 9000


@pytest.mark.parametrize("status", ["completed", "failed"])
async def test_one_that_has_ended_in_the_database_is_let_go_of(left, monkeypatch, status):
    monkeypatch.setattr(recording_takeover, "CATCH_UP_S", 0.01)
    upload(left)
    known = msgspec.structs.replace(left.row)
    left.row.status, left.row.duration_ms = status, 5000
    await left.database.update(left.row)
    away = left.takeover._database = Away(left.database)
    assert await left.takeover.continue_recording(left.call, known.sid, left.services.clock.now_ms() - 3000, known)
    away.is_back = True
    await eventually(lambda: left.recordings.running(known.sid) is None)
    assert [one.recording for one in left.media.sent if isinstance(one, protocol.StopRecord)] == [known.sid]
    stored = await left.database.get(Recording, known.sid)
    assert (stored.status, stored.duration_ms) == (status, 5000)


async def test_a_paused_one_stays_paused_and_its_time_stood_still(left):
    left.row.status = "paused"
    await left.database.update(left.row)
    upload(left, ago_ms=60_000, paused="skip")
    assert await go_on(left)
    assert left.media.recording[left.row.sid].offset_ms == 2000
    pauses = [command for command in left.media.sent if isinstance(command, protocol.PauseRecord)]
    assert [(one.recording, one.mode) for one in pauses] == [(left.row.sid, "skip")]


async def test_with_nothing_known_its_beginning_is_silence(left):
    left.row.start_ms = left.services.clock.now_ms() - 8000
    await left.database.update(left.row)
    assert await go_on(left)
    command = left.media.recording[left.row.sid]
    assert abs(command.offset_ms - 8000) < 1000
    assert command.channels == 2


# -- a host that was started anew goes on with its own calls ---------------------------------------------------


def finished_here(lines, ms=2000):
    """What our recorder has made of the spool that it found."""
    folder = lines.folder / "spool" / lines.row.sid
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{lines.row.sid}.wav"
    with wave.open(str(file), "wb") as audio:
        audio.setnchannels(1)
        audio.setsampwidth(2)
        audio.setframerate(8000)
        audio.writeframes(b"\1\0" * 8 * ms)
    event = protocol.Recorded(recording=lines.row.sid, leg=lines.sid, why="closed", duration_ms=ms, file=str(file))
    recorded.note(folder, event)
    return file


async def looks(lines):
    """It looks for recordings whose end nobody heard, once."""
    lost = LostRecordings(lines.recordings, lines.database, lines.folder / "spool", lambda: ())
    await lost.start()
    return lost


async def test_what_the_host_had_here_before_it_was_started_anew_is_not_the_end_of_it(left):
    upload(left)
    file = finished_here(left)
    lost = await looks(left)
    left.call.reached = False  # its peer was not heard yet
    await lost.look()
    left.call.reached = True
    assert await go_on(left)
    assert not file.exists()
    finished_here(left)  # and had the note come later
    await lost.look()
    running = left.recordings.running(left.row.sid)
    assert not running.done.done()
    assert lost._rows == []
    left.media.recorded(left.row.sid, ms=9000)
    assert (await completed(left)).duration_ms == 9000


async def test_what_is_being_made_of_it_is_waited_for(left):
    upload(left)
    folder = left.folder / "spool" / left.row.sid
    folder.mkdir(parents=True, exist_ok=True)
    spool = folder / f"{left.row.sid}{recorded.SUFFIX}"
    spool.touch()
    going = asyncio.create_task(go_on(left))
    await eventually(lambda: left.row.sid in left.recordings.deciding)
    lost = await looks(left)
    await lost.look()
    assert [row.sid for row in lost._rows] == [left.row.sid], "nothing is decided"
    assert left.row.sid not in left.media.recording
    spool.unlink()
    assert await going


async def test_where_nothing_had_left_the_host_what_it_has_is_the_recording(left):
    finished_here(left, ms=2000)
    assert not await go_on(left)
    lost = await looks(left)
    await lost.look()
    assert (await completed(left)).duration_ms == 2000


async def test_one_that_had_ended_is_kept_as_it_is(left):
    upload(left, stopped=True)
    assert not await go_on(left)
    assert left.row.sid not in left.media.recording
    row = await completed(left)
    assert row.duration_ms == 2000
    assert len(await left.blobs.get(row.sid)) > 60_000


async def test_one_that_is_finished_is_not_begun_again(left):
    left.row.status = "completed"
    await left.database.update(left.row)
    assert not await go_on(left)
    assert left.row.sid not in left.media.recording


async def test_recordings_of_ended_calls_are_put_together_by_their_new_owner_alone(left):
    upload(left)
    stranger, owner = (
        LostRecordings(
            left.recordings, left.database, left.folder / "spool", set, mine=mine, assemble=left.takeover.assemble
        )
        for mine in (lambda call: False, lambda call: call == left.sid)
    )
    await stranger.start()
    await stranger.look(give_up=True)
    assert (await left.database.get(Recording, left.row.sid)).status == "in-progress"
    assert await stranger.take(lambda call: False) == 0
    assert await owner.take(lambda call: call == left.sid) == 1
    await owner.look()
    row = await completed(left)
    assert (row.status, row.duration_ms) == ("completed", 2000)


async def test_an_object_store_that_is_away_is_waited_for(left, monkeypatch):
    monkeypatch.setattr("trunkline.storage.objects.REST_S", 0.0)
    upload(left)
    (left.folder / "shared").rename(left.folder / "gone")
    lost = LostRecordings(left.recordings, left.database, left.folder / "spool", set, assemble=left.takeover.assemble)
    await lost.start()
    await lost.look(give_up=True)
    assert (await left.database.get(Recording, left.row.sid)).status == "in-progress"
    (left.folder / "gone").rename(left.folder / "shared")
    await lost.look()
    await completed(left)


async def test_audio_waits_for_its_store(left, monkeypatch):
    from trunkline.storage.unavailable import StoreUnavailable

    monkeypatch.setattr("trunkline.voice.recordings.KEEP_RETRY_S", 0.01)
    put, tries = left.blobs.put, []

    async def away(sid, content):
        tries.append(sid)
        if len(tries) < 4:
            raise StoreUnavailable("away")
        return await put(sid, content)

    monkeypatch.setattr(left.blobs, "put", away)
    upload(left)
    assert await go_on(left)
    left.media.recorded(left.row.sid, ms=4000)
    await completed(left)
    assert len(tries) == 4


# -- its call ends, or it cannot go on, while that is being decided ---------------------------------------------


def knows_no_leg(lines):
    """Recordings of legs that the media process does not have fail, as they do in trunkline.media.engine.commands."""
    do = lines.media._do

    def engine(command):
        if isinstance(command, protocol.Record) and command.leg not in lines.media.watchers:
            lines.recordings.event(protocol.Recorded(recording=command.recording, leg=command.leg, why="failed"))
        else:
            do(command)

    lines.media._do = engine


def asked(lines):
    """The object store is asked for what is known of it, and answers when it may: (asked, may answer)."""
    known, begun, gate = lines.takeover._pieces.known, asyncio.Event(), asyncio.Event()

    async def slow(sid):
        begun.set()
        await gate.wait()
        return await known(sid)

    lines.takeover._pieces.known = slow
    return begun, gate


@pytest.mark.parametrize("in_memory", [False, True])
async def test_a_caller_who_hangs_up_while_the_object_store_is_asked_leaves_what_was_recorded(left, in_memory):
    upload(left)
    knows_no_leg(left)
    begun, gate = asked(left)
    known = [msgspec.structs.replace(left.row)] if in_memory else []
    lost_ms = left.services.clock.now_ms() - 3000
    going = asyncio.create_task(left.takeover.continue_recording(left.call, left.row.sid, lost_ms, *known))
    await begun.wait()
    left.call.hangup("caller")
    await left.call.settled.wait()
    gate.set()
    assert not await going
    row = await completed(left)
    assert (row.duration_ms, row.error_code) == (2000, 0)
    assert len(await left.blobs.get(row.sid)) > 60_000
    await eventually(lambda: not list(left.store.names("live")))


async def test_while_it_is_put_together_nobody_else_does_that(left):
    upload(left)
    rebuild, begun, gate, made = left.takeover._pieces.rebuild, asyncio.Event(), asyncio.Event(), []

    async def slow(sid, folder):
        made.append(sid)
        begun.set()
        await gate.wait()
        return await rebuild(sid, folder)

    left.takeover._pieces.rebuild = slow
    left.call.hangup("caller")
    await left.call.settled.wait()
    assert not await go_on(left)
    await begun.wait()
    lost = LostRecordings(left.recordings, left.database, left.folder / "spool", set, assemble=left.takeover.assemble)
    await lost.start()
    await lost.look(give_up=True)
    assert made == [left.row.sid]
    gate.set()
    await completed(left)


async def test_one_that_another_host_has_by_now_is_left_to_it(left):
    upload(left)
    begun, gate = asked(left)
    going = asyncio.create_task(go_on(left))
    await begun.wait()
    left.call.abandon()
    gate.set()
    assert not await going
    assert not left.takeover._tasks
    assert (await left.database.get(Recording, left.row.sid)).status == "in-progress"
    assert list(left.store.names("live"))


async def test_one_that_the_media_process_has_no_room_for_is_what_had_left_its_host(left):
    upload(left)
    assert await go_on(left)
    left.recordings.event(protocol.Recorded(recording=left.row.sid, leg=left.sid, why="failed"))
    row = await completed(left)
    assert row.duration_ms == 2000
    assert len(await left.blobs.get(row.sid)) > 60_000


async def test_its_pieces_are_waited_for(left, monkeypatch):
    """The object store is away just then."""
    monkeypatch.setattr("trunkline.voice.recordings.KEEP_RETRY_S", 0.01)
    upload(left)
    assert await go_on(left)
    rebuild, tries = left.takeover._pieces.rebuild, []

    async def away(sid, folder):
        tries.append(sid)
        if len(tries) < 4:
            raise StoreUnavailable("away") if len(tries) < 3 else OSError("the disk is full")
        return await rebuild(sid, folder)

    left.takeover._pieces.rebuild = away
    left.recordings.event(protocol.Recorded(recording=left.row.sid, leg=left.sid, why="failed"))
    assert (await completed(left)).duration_ms == 2000
    assert len(tries) == 4


async def test_pieces_that_cannot_be_read_before_the_end_stay_for_the_next_process(left):
    upload(left)
    assert await go_on(left)
    begun = asyncio.Event()

    async def is_away(sid, folder):
        begun.set()
        raise StoreUnavailable("away")

    left.takeover._pieces.rebuild = is_away
    left.recordings.event(protocol.Recorded(recording=left.row.sid, leg=left.sid, why="failed"))
    await begun.wait()
    await left.recordings.close()
    assert (await left.database.get(Recording, left.row.sid)).status == "in-progress"
    assert list(left.store.names("live"))


async def test_one_of_which_nothing_had_left_its_host_has_failed(left):
    assert await go_on(left)
    left.recordings.event(protocol.Recorded(recording=left.row.sid, leg=left.sid, why="failed"))

    async def failed():
        return (await left.database.get(Recording, left.row.sid)).status == "failed"

    await eventually(failed)


# -- the action of a <Record> whose caller has gone is told the last ---------------------------------------------


@pytest.fixture
async def spoken(hosts):
    """Somebody leaves a message on a host that is lost, 2 s of which have left it: `hosts` with its `sid` (of the
    recording), the `call` and the `pieces` of it."""
    heir = hosts.heir
    hosts.store = Objects(shared_folder(heir.folder / "shared"))
    hosts.shared = SharedRecordings(
        AsyncObjects(hosts.store), heir.recordings, heir.database, heir.clock, heir.folder / "spool", "heir", LONGEST_MS
    )
    hosts.shared.start()
    hosts.takeover.recordings = hosts.shared.takeover
    (hosts.was,) = await hosts.calls(f"<Record action='{APP}after' recordingStatusCallback='{APP}kept'/>")
    (hosts.sid,) = await eventually(lambda: list(hosts.lost.media.recording))
    head = Head(
        description=msgspec.to_builtins(hosts.lost.media.recording[hosts.sid]), end_ms=heir.clock.now_ms(),
        end_sample=100 * FRAME,
    )  # fmt: skip
    hosts.store.write(piece_name(hosts.sid, 0, "lost", 0, 100), pack(head, entries(100)))
    await hosts.lost.recordings.close()
    await hosts.die()
    yield hosts
    await hosts.shared.stop()


async def is_told(hosts):
    """The application knows that its caller has gone, and where his message is."""
    params = (await eventually(lambda: hosts.heir.web.params(APP + "after")))[0]
    assert (params["RecordingSid"], params["RecordingDuration"]) == (hosts.sid, "2")
    assert params["RecordingUrl"].endswith(f"/Recordings/{hosts.sid}")
    assert (params["Digits"], params["CallStatus"], params["CallSid"]) == ("hangup", "completed", hosts.was.sid)
    (told,) = await eventually(lambda: hosts.heir.events(hosts.was.sid, APP + "kept"))
    assert (told["RecordingStatus"], told["RecordingSid"]) == ("completed", hosts.sid)
    await asyncio.sleep(0.05)
    assert len(hosts.heir.web.params(APP + "after")) == 1


async def test_a_caller_who_hangs_up_while_the_object_store_is_asked_has_left_his_message(spoken):
    begun, gate = asked(spoken.shared)
    await spoken.goes_on()
    await begun.wait()
    close = holds_closes(spoken.heir.media)
    spoken.phone.hangs_up()
    await eventually(lambda: spoken.call().is_over)
    gate.set()
    await is_told(spoken)
    close()
    stored = await spoken.heir.until(spoken.was.sid, "completed")
    assert any(APP + "after" in str(entry) for entry in stored.timeline)
    assert await spoken.heir.memory.scan("call/") == []


@pytest.mark.parametrize("how", ["before the loss was noticed", "before his host knew that he has followed"])
async def test_a_caller_who_hangs_up_in_the_gap_has_left_his_message(spoken, how):
    if how.startswith("before the loss"):
        spoken.phone.dialogs[0].abandon()
        await spoken.goes_on()
    else:
        report = await spoken.takeover.take_over(lambda sid: True)
        spoken.call().hangup("caller")
        await asyncio.wait_for(report.settled.wait(), 5)
        await spoken.writes()
        await asyncio.sleep(0.05)  # its leg is closed before the message is there
    heir = spoken.heir
    lost = LostRecordings(
        heir.recordings, heir.database, heir.folder / "spool", set, assemble=spoken.shared.takeover.assemble
    )
    assert await lost.take(lambda sid: True) == 1
    await lost.look()
    await is_told(spoken)
    stored = await heir.until(spoken.was.sid, "completed")
    assert any(APP + "after" in str(entry) for entry in stored.timeline)


async def test_a_database_that_fails_over_meanwhile_is_waited_for(spoken, monkeypatch):
    monkeypatch.setattr(record, "KEPT_LOOK_S", 0.01)
    heir = spoken.heir
    away = heir.recordings._database = Away(heir.database)
    spoken.phone.dialogs[0].abandon()
    await spoken.speaks()
    await asyncio.sleep(0.1)
    away.is_back = True
    await spoken.writes()
    lost = LostRecordings(
        heir.recordings, heir.database, heir.folder / "spool", set, assemble=spoken.shared.takeover.assemble
    )
    await lost.take(lambda sid: True)
    await lost.look()
    await is_told(spoken)


async def test_the_application_is_not_told_of_a_call_that_another_host_has_by_now(spoken):
    begun, gate = asked(spoken.shared)
    await spoken.goes_on()
    await begun.wait()
    assert spoken.takeover.let_go() == 1
    gate.set()
    await asyncio.sleep(0.1)
    assert spoken.heir.web.params(APP + "after") == []


class Fence:
    open = True


@pytest.mark.parametrize("lost", [True, False])
async def test_one_that_ended_behind_a_closed_fence_is_told_by_who_has_it_then(spoken, lost):
    """Its leg is closed by then, so that it is no live call any more."""
    heir, fence = spoken.heir, Fence()
    heir.services.gate = heir.flights.gate = fence
    report = await spoken.takeover.take_over(lambda sid: True)
    await asyncio.wait_for(report.settled.wait(), 5)
    fence.open = False
    spoken.call().hangup("caller")
    await eventually(lambda: not heir.services.live)
    assert await heir.memory.scan(f"call/{spoken.was.sid}/position"), "the next one goes on with it"
    if lost:
        assert spoken.takeover.let_go() == 0
    fence.open = True
    heir.flights.reopened()
    after = LostRecordings(
        heir.recordings, heir.database, heir.folder / "spool", set, assemble=spoken.shared.takeover.assemble
    )
    await after.take(lambda sid: True)
    await after.look()
    if lost:
        await asyncio.sleep(1.5)
        assert heir.web.params(APP + "after") == []
    else:
        await is_told(spoken)
