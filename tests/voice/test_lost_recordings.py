"""Recordings whose end was told to nobody are found on disk and kept; what is nowhere has failed."""

import wave

import pytest

from trunkline.media import recorded
from trunkline.media.protocol import Recorded
from trunkline.model.recording import Recording
from trunkline.voice.lost_recordings import LostRecordings
from trunkline.voice.recordings import NewRecording

from ..messaging.world import AC, eventually


@pytest.fixture
async def left(lines):
    """A recording that a process before this one began: (lines, its row, its folder)."""
    lines.sid = await lines.create()
    await lines.until(lines.sid, "in-progress")
    row = await lines.recordings.start(AC, lines.sid, NewRecording())
    await eventually(lambda: row.sid in lines.media.recording)
    lines.row = row
    lines.spool = lines.folder / "spool"
    lines.place = lines.spool / row.sid
    lines.place.mkdir(parents=True, exist_ok=True)
    lines.recordings._running.clear()
    return lines


async def looking(lines, running=()):
    lost = LostRecordings(lines.recordings, lines.database, lines.spool, lambda: set(running))
    await lost.start()
    return lost


def write(path, seconds=2):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\1\0" * 8000 * seconds)


async def outcome(lines):
    await eventually(lambda: lines.recordings.running(lines.row.sid) is None)
    return await lines.database.get(Recording, lines.row.sid)


async def test_a_file_that_was_told_to_a_lost_process_is_kept(left):
    write(left.place / f"{left.row.sid}.wav")
    lost = await looking(left)
    await lost.look()
    await eventually(lambda: not left.place.exists())
    row = await outcome(left)
    assert (row.status, row.duration_ms) == ("completed", 2000)
    assert len(await left.blobs.get(row.sid)) > 32_000


async def test_what_the_recorder_noted_is_kept(left):
    file = left.place / f"{left.row.sid}.wav"
    write(file, 3)
    recorded.note(
        left.place, Recorded(recording=left.row.sid, leg=left.sid, why="closed", duration_ms=3000, file=str(file))
    )
    lost = await looking(left)
    await lost.look()
    await eventually(lambda: not left.place.exists())
    assert (await outcome(left)).duration_ms == 3000


async def test_a_spool_is_waited_for_and_nothing_at_all_is_a_failure(left):
    spool = left.place / f"{left.row.sid}{recorded.SUFFIX}"
    spool.touch()
    lost = await looking(left)
    await lost.look(give_up=True)
    assert (await left.database.get(Recording, left.row.sid)).status == "in-progress"
    spool.unlink()
    await lost.look()
    assert (await left.database.get(Recording, left.row.sid)).status == "in-progress"
    await lost.look(give_up=True)
    await eventually(lambda: not left.place.exists())
    row = await outcome(left)
    assert (row.status, row.error_code) == ("failed", 31000)


async def test_a_recording_that_runs_is_left_alone(left):
    lost = await looking(left, running=[left.row.sid])
    await lost.look(give_up=True)
    assert (await left.database.get(Recording, left.row.sid)).status == "in-progress"


async def test_folders_of_recordings_that_were_dealt_with_go(left):
    old, busy = left.spool / "REold", left.spool / "REbusy"
    for folder in (old, busy):
        folder.mkdir()
    (busy / f"REbusy{recorded.SUFFIX}").touch()
    await looking(left)
    assert not old.exists()
    assert busy.exists()
    assert left.place.exists()
