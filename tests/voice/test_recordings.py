"""Recordings of live calls: begun, paused, stopped, kept, deleted; what their owner is told."""

import asyncio

import pytest

from trunkline.media import protocol
from trunkline.model.errors import ApiError
from trunkline.model.recording import Recording, Source
from trunkline.storage.blobs import BlobsFull
from trunkline.storage.unavailable import StoreUnavailable
from trunkline.voice.recordings import (
    CURRENT,
    DAY_MS,
    DELETED_DAYS,
    MAX_RECORDINGS,
    NewRecording,
    derived_name,
    open_rows,
)

from ..messaging.world import AC, eventually
from .lines import APP

CALLBACK = {
    "status_callback": APP + "rec",
    "status_callback_events": ("in-progress", "completed", "absent"),
}


@pytest.fixture
async def up(lines):
    """A call that is up; (lines, SID)."""
    lines.sid = await lines.create()
    await lines.until(lines.sid, "in-progress")
    return lines


def told(lines):
    return [(one["RecordingStatus"], one["RecordingDuration"]) for one in lines.events(lines.sid, APP + "rec")]


async def started(lines, **changes):
    row = await lines.recordings.start(AC, lines.sid, NewRecording(**(CALLBACK | changes)))
    await eventually(lambda: row.sid in lines.media.recording)
    return row


async def finished(lines):
    await eventually(lambda: not lines.recordings.of_call(lines.sid))


async def test_a_recording_is_found_while_it_runs_and_kept_when_it_is_stopped(up):
    row = await started(up, channels=2, track="both")
    assert (await up.database.get(Recording, row.sid)).status == "in-progress"
    assert (await up.recordings.get(AC, row.sid)).call_sid == up.sid
    assert await up.recordings.get("AC" + "b" * 32, row.sid) is None
    assert await up.recordings.get(AC, row.sid, "CA" + "0" * 32) is None
    stopped = await up.recordings.update(AC, up.sid, row.sid, "stopped")
    assert stopped.status in ("stopped", "completed")
    await finished(up)
    kept = await up.database.get(Recording, row.sid)
    assert (kept.status, kept.channels, kept.source, kept.duration_ms) == (
        "completed", 2, Source.START_CALL_RECORDING_API, 1500,
    )  # fmt: skip
    assert kept.audio_bytes == len(await up.blobs.get(row.sid))
    assert told(up) == [("in-progress", "0"), ("completed", "2")]
    (last,) = up.events(up.sid, APP + "rec")[-1:]
    assert last["RecordingUrl"] == f"http://us/2010-04-01/Accounts/{AC}/Recordings/{row.sid}"
    assert last["RecordingStartTime"].endswith("+0000")


async def test_pause_and_resume_the_current_one(up):
    row = await started(up)
    paused = await up.recordings.update(AC, up.sid, CURRENT, "paused", "skip")
    assert (paused.sid, paused.status) == (row.sid, "paused")
    await up.recordings.update(AC, up.sid, CURRENT, "paused")  # again: nothing
    resumed = await up.recordings.update(AC, up.sid, CURRENT, "in-progress")
    assert resumed.status == "in-progress"
    assert [one.mode for one in up.media.of(protocol.PauseRecord)] == ["skip"]
    assert [one.recording for one in up.media.of(protocol.ResumeRecord)] == [row.sid]
    await up.recordings.close()
    assert (await up.database.get(Recording, row.sid)).status == "in-progress"


async def test_the_end_of_the_call_ends_its_recording(up):
    row = await started(up)
    up.phone.hangs_up()
    assert (await up.until(up.sid, "completed")).recordings == [row.sid]
    await finished(up)
    assert told(up)[-1][0] == "completed"


@pytest.mark.parametrize("ms", [0, -5])
async def test_no_audio_is_absent(up, ms):
    row = await started(up)
    up.media.recorded(row.sid, ms=0)
    await finished(up)
    absent = await up.recordings.get(AC, row.sid)
    assert (absent.status, absent.error_code) == ("absent", 16101)
    assert told(up) == [("in-progress", "0"), ("absent", "0")]
    assert up.events(up.sid, APP + "rec")[-1]["ErrorCode"] == "16101"


async def test_silence_is_audio_where_it_was_not_said_to_the_record_verb(up):
    row = await started(up)
    up.media.voiced_ms = 0
    up.media.recorded(row.sid)
    await finished(up)
    assert (await up.recordings.get(AC, row.sid)).status == "completed"


async def test_audio_that_cannot_be_kept_has_failed(up, monkeypatch):
    async def full(sid, content):
        raise BlobsFull("10 GiB are full")

    monkeypatch.setattr(up.blobs, "put", full)
    row = await started(up)
    up.media.recorded(row.sid)
    await finished(up)
    kept = await up.recordings.get(AC, row.sid)
    assert (kept.status, kept.error_code, kept.audio_key) == ("failed", 31000, "")
    assert up.events(up.sid, APP + "rec")[-1]["ErrorCode"] == "31000"


async def test_an_end_that_cannot_be_stored_yet_is_stored_later(up, monkeypatch):
    monkeypatch.setattr("trunkline.voice.recordings.STORE_RETRY_S", 0.01)
    row = await started(up)
    update, tries = up.database.update, []

    async def full(*records):
        tries.append(records)
        if len(tries) < 3:
            raise StoreUnavailable("the disk is full")
        await update(*records)

    monkeypatch.setattr(up.database, "update", full)
    up.media.recorded(row.sid)
    await finished(up)
    assert (await up.database.get(Recording, row.sid)).status == "completed"
    assert told(up)[-1][0] == "completed"
    assert len(tries) == 3


async def test_an_end_that_can_never_be_stored_waits_in_the_spool(up, monkeypatch):
    monkeypatch.setattr("trunkline.voice.recordings.STORE_TRIES", 1)
    row = await started(up)
    folder = up.folder / "spool" / row.sid
    folder.mkdir(parents=True)

    async def full(*records):
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(up.database, "update", full)
    running = up.recordings.running(row.sid)
    up.media.recorded(row.sid)
    await running.finished
    assert up.recordings.of_call(up.sid) == []
    assert folder.exists()


async def test_one_that_could_not_be_stored_when_it_began_is_stored_at_its_end(up, monkeypatch):
    insert = up.database.insert

    async def full(*records):
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(up.database, "insert", full)
    row = await started(up)
    monkeypatch.setattr(up.database, "insert", insert)
    up.media.recorded(row.sid)
    await finished(up)
    assert (await up.database.get(Recording, row.sid)).status == "completed"


async def test_a_writer_that_failed_is_told(up):
    row = await started(up)
    up.media.recorded(row.sid, "failed")
    await finished(up)
    assert told(up)[-1][0] == "failed"


async def test_only_the_wanted_events_are_told(up):
    row = await started(up, status_callback_events=("completed",))
    up.media.recorded(row.sid, ms=0)
    await finished(up)
    assert told(up) == []


async def test_what_is_told_while_the_call_lasts_is_kept_with_the_call(up):
    row = await started(up)
    await up.recordings.update(AC, up.sid, row.sid, "stopped")
    await finished(up)
    hooks = await up.reader.webhooks(AC, up.sid)
    said = [dict(hook["request"]["params"]).get("RecordingStatus") for hook in hooks]
    assert [status for status in said if status] == ["in-progress", "completed"]


async def test_what_cannot_be_recorded(up):
    for account, sid in ((AC, "CA" + "0" * 32), ("AC" + "b" * 32, up.sid)):
        with pytest.raises(ApiError) as refused:
            await up.recordings.start(account, sid, NewRecording())
        assert refused.value.code == 21220
    for _ in range(MAX_RECORDINGS):
        await up.recordings.start(AC, up.sid, NewRecording())
    with pytest.raises(ApiError) as refused:
        await up.recordings.start(AC, up.sid, NewRecording())
    assert refused.value.code == 21220


async def test_updates_of_what_does_not_run(up):
    assert await up.recordings.update(AC, up.sid, CURRENT, "stopped") is None
    assert await up.recordings.update(AC, up.sid, "RE" + "0" * 32, "stopped") is None
    row = await started(up)
    up.media.recorded(row.sid)
    await finished(up)
    with pytest.raises(ApiError) as refused:
        await up.recordings.update(AC, up.sid, row.sid, "paused")
    assert refused.value.code == 21220


async def test_deleting(up):
    row = await started(up)
    with pytest.raises(ApiError) as refused:
        await up.recordings.delete(row)
    assert refused.value.code == 20009
    up.media.recorded(row.sid)
    await finished(up)
    assert await up.recordings.delete(row)
    assert not await up.recordings.delete(row)
    assert await up.recordings.get(AC, row.sid) is None
    assert await up.blobs.get(row.sid) is None


async def kept(up):
    """A recording that is complete."""
    row = await started(up)
    up.media.recorded(row.sid)
    await finished(up)
    return row


async def test_a_deleted_one_is_forgotten_after_its_time(up):
    gone, stays = await kept(up), await kept(up)
    assert await up.recordings.delete(gone)
    soft = await up.recordings.get(AC, gone.sid, include_deleted=True)
    assert (soft.status, soft.duration_ms, soft.status_callback, soft.audio_bytes) == ("deleted", 1500, "", 0)
    up.clock.offset_ms += (DELETED_DAYS - 1) * DAY_MS
    assert await up.recordings.sweep() == 0
    up.clock.offset_ms += 2 * DAY_MS
    assert await up.recordings.sweep() == 1
    assert await up.recordings.get(AC, gone.sid, include_deleted=True) is None
    assert (await up.recordings.get(AC, stays.sid)).status == "completed"


async def test_recordings_are_kept_for_as_long_as_the_operator_says(make_lines):
    lines = await make_lines(recording_days=30)
    lines.sid = await lines.create()
    await lines.until(lines.sid, "in-progress")
    old = await kept(lines)
    made = derived_name(old.sid, "mp3", 1)
    await lines.blobs.put(made, b"ID3")
    running = await started(lines)
    lines.clock.offset_ms += 31 * DAY_MS
    new = await started(lines)
    done = lines.recordings.running(new.sid).finished
    lines.media.recorded(new.sid)
    await done
    assert await lines.recordings.sweep() == 1
    assert await lines.recordings.get(AC, old.sid, include_deleted=True) is None
    assert (await lines.blobs.get(old.sid), await lines.blobs.get(made)) == (None, None)
    assert (await lines.recordings.get(AC, running.sid)).status == "in-progress", "what runs goes on"
    assert await lines.blobs.get(new.sid)


async def test_every_open_recording_is_found_at_the_start(up, monkeypatch):
    monkeypatch.setattr("trunkline.voice.recordings.OPEN_PAGE", 2)
    rows = [await started(up) for _ in range(5)]
    assert {row.sid for row in await open_rows(up.database)} == {row.sid for row in rows}


async def test_audio_of_a_recording_that_another_process_began_is_kept(up):
    row = await started(up)
    record = up.media.recording[row.sid]
    old = up.media
    await up.crash()
    file = old.folder / "late.wav"
    file.write_bytes(b"RIFFlate")
    assert up.recordings.event(
        protocol.Recorded(recording=row.sid, leg=record.leg, why="closed", duration_ms=4000, file=str(file))
    )
    await eventually(lambda: told(up))
    kept = await up.database.get(Recording, row.sid)
    assert (kept.status, kept.duration_ms) == ("completed", 4000)
    assert await up.blobs.get(row.sid) == b"RIFFlate"
    up.recordings.event(protocol.Recorded(recording=row.sid, leg=record.leg, duration_ms=1, file=""))  # told again
    await up.recordings.close()
    assert (await up.database.get(Recording, row.sid)).duration_ms == 4000


async def test_a_lost_leg_loses_its_recording_and_says_so(up):
    row = await started(up)
    up.recordings.lost(up.sid)
    await finished(up)
    assert (await up.recordings.get(AC, row.sid)).status == "failed"


async def test_other_events_are_none_of_its_business(up):
    assert not up.recordings.event(protocol.Silent(leg=up.sid))
    await asyncio.sleep(0)
