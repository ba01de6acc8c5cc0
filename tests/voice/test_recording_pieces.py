"""Recordings leave their host in pieces, and another host goes on with them or puts them together."""

import os
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.media.test_recorder import Rig, audio, ramp
from tests.objects import S3Server, shared_folder
from trunkline.media import recorded
from trunkline.media.engine.record_ring import AUDIO, ENTRY, FRAME, PAUSE, RESUME, STOP
from trunkline.model.sid import new_sid
from trunkline.storage.objects import AsyncObjects, Location, Objects
from trunkline.voice import recording_pieces as pieces_module
from trunkline.voice.recording_pieces import Head, RecordingPieces, RecordingUploads, pack, read_name, unpack

DEADLINE_S = 20.0


@pytest.fixture(params=["folder", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "folder":
        return shared_folder(tmp_path / "shared")
    server: S3Server = request.getfixturevalue("s3")
    return server.location()


@pytest.fixture
def pieces(location: Location) -> Iterator[RecordingPieces]:
    objects = AsyncObjects(Objects(location))
    yield RecordingPieces(objects)
    objects.close()


@pytest.fixture
def sid() -> str:
    return new_sid("RE")


@pytest.fixture
def rigs(tmp_path: Path) -> Iterator[Callable[[str], Rig]]:
    """Hosts: each has a ring, a recorder and a folder of its own."""
    made: list[Rig] = []

    def make(name: str) -> Rig:
        (tmp_path / name).mkdir()
        made.append(Rig(tmp_path / name))
        return made[-1]

    yield make
    for rig in made:
        rig.recorder.close()
        os.close(rig.fd)


def upload(rig: Rig, location: Location, origin: str = "one") -> RecordingUploads:
    """Everything that is in the spools now."""
    rig.recorder.step()
    uploads = RecordingUploads(Objects(location), rig.folder, origin)
    for job in uploads.look(all_of_it=True):
        job.result(DEADLINE_S)
    return uploads


def finish(spool: Path) -> Any:
    """As another process does it; what it notes."""
    command = [sys.executable, "-m", "trunkline.media.recorder", "--finish", str(spool)]
    assert subprocess.run(command, timeout=DEADLINE_S).returncode == 0
    (found,) = recorded.recovered(spool.parent.parent)
    return found


def test_the_head_of_an_entry_is_where_the_recorder_writes_it() -> None:
    assert ENTRY.itemsize == recorded.ENTRY_BYTES
    assert [ENTRY.fields[name][1] for name in ("sample", "slot", "generation", "kind", "length", "inbound")] == [
        0, 8, 12, 16, 20, 24,
    ]  # fmt: skip
    kinds = pieces_module._AUDIO, pieces_module._PAUSE, pieces_module._RESUME, pieces_module._STOP
    assert kinds == (AUDIO, PAUSE, RESUME, STOP)


@pytest.mark.parametrize("data", [b"", b"\0\0\0\1x", b"\xff" * 900, pack(Head(description={}, end_ms=1), b"x" * 663)])
def test_what_is_no_piece_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="piece"):
        unpack(data)


def test_a_bomb_is_no_piece() -> None:
    with pytest.raises(ValueError, match="damaged"):
        unpack(pack(Head(description={}, end_ms=1), bytes(pieces_module.MAX_PIECE_BYTES + 664)))


async def test_another_host_puts_together_what_had_left_the_lost_one(
    rigs: Callable[[str], Rig], location: Location, pieces: RecordingPieces, sid: str, tmp_path: Path
) -> None:
    first = rigs("first")
    slot = first.begin(sid, channels=2)
    first.put(slot, ramp(300), ramp(300, 5))
    assert upload(first, location).uploaded == 2, "5 s a piece at most"
    first.put(slot, ramp(50, 300), at=300 * FRAME)  # does not leave in time
    spool = await pieces.rebuild(sid, tmp_path / "second" / sid)
    assert spool is not None
    found = finish(spool)
    assert (found.recording, found.leg, found.why, found.duration_ms) == (sid, "CA1", "closed", 6000)
    got = audio(found.file)
    assert got[:, 0].tolist() == ramp(300).reshape(-1).tolist()
    assert got[:, 1].tolist() == ramp(300, 5).reshape(-1).tolist()
    assert await pieces.forget(sid) == 2
    assert await pieces.rebuild(sid, tmp_path / "second" / sid) is None


async def test_another_host_goes_on_under_the_same_name_with_a_gap_between(
    rigs: Callable[[str], Rig], location: Location, pieces: RecordingPieces, sid: str
) -> None:
    first, second = rigs("first"), rigs("second")
    slot = first.begin(sid)
    first.put(slot, ramp(200))
    upload(first, location)
    known = await pieces.known(sid)
    assert known is not None
    assert (known.offset_ms, known.paused, known.stopped) == (4000, "", False)
    assert abs(known.end_ms - time.time() * 1000) < 5000
    folder = second.folder / sid
    pieces.expect_earlier(sid, folder)
    slot = second.begin(sid, offset_ms=7000)
    second.put(slot, ramp(100, 350))
    upload(second, location, "two")
    second.ring.control(slot, STOP, 100 * FRAME, {"why": "stopped"})
    for _ in range(20):
        second.recorder.step()
    assert not second.ring.finished(), "what the first host had is still to come"
    assert await pieces.gather_earlier(sid, folder)
    result = second.wait(slot)
    assert (result["duration_ms"], result["gaps"]) == (9000, [[4000, 3000]])
    got = audio(result["file"])[:, 0]
    assert got[: 200 * FRAME].tolist() == ramp(200).reshape(-1).tolist()
    assert not got[200 * FRAME : 350 * FRAME].any()
    assert got[350 * FRAME :].tolist() == ramp(100, 350).reshape(-1).tolist()


async def test_a_third_host_has_the_parts_of_both(
    rigs: Callable[[str], Rig], location: Location, pieces: RecordingPieces, sid: str, tmp_path: Path
) -> None:
    first, second = rigs("first"), rigs("second")
    first.put(first.begin(sid), ramp(100))
    upload(first, location)
    second.put(second.begin(sid, offset_ms=3000), ramp(100, 150))
    upload(second, location, "two")
    known = await pieces.known(sid)
    assert known is not None
    assert known.offset_ms == 5000
    spool = await pieces.rebuild(sid, tmp_path / "third" / sid)
    assert spool is not None
    found = finish(spool)
    assert (found.duration_ms, found.gaps) == (5000, [(2000, 1000)])
    assert audio(found.file)[150 * FRAME :, 0].tolist() == ramp(100, 150).reshape(-1).tolist()


@pytest.mark.parametrize("frames", [100, 300], ids=["shorter than the first", "longer"])
async def test_a_host_that_goes_on_with_its_own_recording_at_once_sends_both_parts(
    rigs: Callable[[str], Rig], location: Location, pieces: RecordingPieces, sid: str, tmp_path: Path, frames: int
) -> None:
    """The spool of the second part has the name of the first, and comes between two looks at them."""
    first = rigs("first")
    slot = first.begin(sid)
    first.put(slot, ramp(200))
    uploads = upload(first, location)
    first.end(slot, 200 * FRAME, "closed")
    slot = first.begin(sid, offset_ms=7000)
    first.put(slot, ramp(frames, 350))
    first.recorder.step()
    for job in uploads.look(all_of_it=True):
        job.result(DEADLINE_S)
    spool = await pieces.rebuild(sid, tmp_path / "second" / sid)
    assert spool is not None
    found = finish(spool)
    assert (found.duration_ms, found.gaps) == (7000 + frames * 20, [(4000, 3000)])
    assert audio(found.file)[350 * FRAME :, 0].tolist() == ramp(frames, 350).reshape(-1).tolist()


@pytest.mark.parametrize("uploaded", [True, False])
async def test_an_upload_that_waited_while_the_next_part_began_sends_nothing_of_that_as_its_own(
    rigs: Callable[[str], Rig], pieces: RecordingPieces, location: Location, sid: str, tmp_path: Path, uploaded: bool
) -> None:
    """The object store is slow: all threads are busy while the call goes and comes back. What had not left the host of
    the first part by then is missing."""
    first = rigs("first")
    slot = first.begin(sid, offset_ms=1000)
    first.put(slot, ramp(50))
    uploads = upload(first, location) if uploaded else RecordingUploads(Objects(location), first.folder, "one")
    first.put(slot, ramp(50, 50), at=50 * FRAME)
    first.recorder.step()
    gate = threading.Event()
    for _ in range(pieces_module.UPLOADS):
        uploads._threads.submit(gate.wait, DEADLINE_S)
    jobs = uploads.look(all_of_it=True)
    assert len(jobs) == 1
    first.end(slot, 100 * FRAME, "closed")
    slot = first.begin(sid, offset_ms=7000)
    first.put(slot, ramp(200, 350))
    first.recorder.step()
    gate.set()
    for job in [*jobs, *uploads.look(all_of_it=True)]:
        job.result(DEADLINE_S)
    spool = await pieces.rebuild(sid, tmp_path / "second" / sid)
    assert spool is not None
    found = finish(spool)
    kept = 50 if uploaded else 0
    assert (found.duration_ms, found.gaps) == (
        11_000, [(0, 1000), (2000, 5000)] if uploaded else [(0, 7000)],
    )  # fmt: skip
    got = audio(found.file)[:, 0]
    assert got[50 * FRAME : (50 + kept) * FRAME].tolist() == ramp(kept).reshape(-1).tolist()
    assert not got[(50 + kept) * FRAME : 350 * FRAME].any()
    assert got[350 * FRAME :].tolist() == ramp(200, 350).reshape(-1).tolist()


async def test_a_pause_is_known_and_a_damaged_piece_is_a_gap(
    rigs: Callable[[str], Rig], location: Location, pieces: RecordingPieces, sid: str, tmp_path: Path
) -> None:
    first = rigs("first")
    slot = first.begin(sid)
    first.put(slot, ramp(249))  # with the START entry: one piece
    first.put(slot, ramp(100, 249), at=249 * FRAME)
    first.ring.control(slot, PAUSE, 349 * FRAME, {"mode": "silence"})
    upload(first, location)
    known = await pieces.known(sid)
    assert known is not None
    assert (known.paused, known.offset_ms) == ("silence", 6980)
    store = Objects(location)
    names = sorted(one.name for one in store.names(f"live/{sid}"))
    assert [(name.first, name.count) for name in map(read_name, names) if name] == [(0, 250), (250, 101)]
    store.write(names[0], b"broken")
    spool = await pieces.rebuild(sid, tmp_path / "second" / sid)
    assert spool is not None
    found = finish(spool)
    assert (found.duration_ms, found.gaps) == (6980, [(0, 4980)])


async def test_nothing_that_left_is_sent_twice_after_a_restart(
    rigs: Callable[[str], Rig], location: Location, pieces: RecordingPieces, sid: str
) -> None:
    first = rigs("first")
    slot = first.begin(sid)
    first.put(slot, ramp(99))
    assert upload(first, location).uploaded == 1
    assert upload(first, location).uploaded == 0
    first.put(slot, ramp(10, 99), at=99 * FRAME)
    assert upload(first, location).uploaded == 1
    known = await pieces.known(sid)
    assert known is not None
    assert known.offset_ms == 109 * 20


def test_a_store_that_is_away_holds_up_nobody_and_loses_nothing(
    rigs: Callable[[str], Rig], sid: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.storage.objects.REST_S", 0.0)
    monkeypatch.setattr(pieces_module, "RETRY_FIRST_S", 0.0)
    monkeypatch.setattr(pieces_module, "RETRY_LONGEST_S", 0.0)
    location = shared_folder(tmp_path / "shared")
    (tmp_path / "shared").rename(tmp_path / "gone")
    first = rigs("first")
    slot = first.begin(sid)
    first.put(slot, ramp(600))
    first.recorder.step()
    uploads = RecordingUploads(Objects(location), first.folder, "one")
    for _ in range(3):
        for job in uploads.look(all_of_it=True):
            job.result(DEADLINE_S)
    assert uploads.failed
    assert uploads.uploaded == 0
    first.put(slot, ramp(10, 600), at=600 * FRAME)
    first.recorder.step()
    (tmp_path / "gone").rename(tmp_path / "shared")
    for job in uploads.look(all_of_it=True):
        job.result(DEADLINE_S)
    assert (uploads.uploaded, uploads.failed) == (3, "")
    assert first.end(slot, 610 * FRAME)["duration_ms"] == 12_200
    uploads.look()
    assert uploads._parts == {}


async def test_pieces_that_nobody_wants_are_swept(
    rigs: Callable[[str], Rig], location: Location, pieces: RecordingPieces
) -> None:
    first, sids = rigs("first"), [new_sid("RE") for _ in range(3)]
    for one in sids:
        first.put(first.begin(one), ramp(5))
    upload(first, location)

    async def running(asked: Any) -> set[str]:
        assert sorted(asked) == sorted(sids)
        return {sids[0]}

    assert await pieces.sweep(time.time(), running) == 0
    assert await pieces.sweep(time.time() + pieces_module.STALE_S + 10, running) == 2
    assert await pieces.known(sids[0]) is not None
    assert await pieces.known(sids[1]) is None


HOST = """
import sys, time
from pathlib import Path
import numpy as np
from tests.media.test_recorder import ramp
from trunkline.media.engine.record_ring import FRAME, RecordRing
from trunkline.media.recorder import Recorder
from trunkline.storage.objects import Location, Objects
from trunkline.voice.recording_pieces import RecordingUploads

folder, shared, sid = sys.argv[1:]
ring, fd = RecordRing.create(8, 4096)
recorder = Recorder(ring, Path(folder))
uploads = RecordingUploads(Objects(Location(url="file://" + shared)), Path(folder), "first", piece_s=0.3)
uploads.start()
slot = ring.open({"recording": sid, "leg": "CA1", "folder": folder + "/" + sid, "t": "record", "channels": 2})
frame = 0
while True:
    ring.put(np.array([slot]), np.array([frame * FRAME]), ramp(1, frame), ramp(1, frame + 9))
    frame += 1
    recorder.step()
    print(frame, flush=True)
    time.sleep(0.01)
"""


async def test_a_killed_host_takes_no_more_than_what_had_not_left_it(tmp_path: Path, sid: str) -> None:
    location = shared_folder(tmp_path / "shared")
    first = tmp_path / "first"
    first.mkdir()
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", HOST, str(first), str(tmp_path / "shared"), sid], stdout=subprocess.PIPE, cwd=root
    )
    assert child.stdout is not None
    until, frames = time.monotonic() + DEADLINE_S, 0
    while frames < 400:
        frames = int(child.stdout.readline())
        assert time.monotonic() < until
    child.send_signal(signal.SIGKILL)
    lines = child.stdout.read().split()
    frames = int(lines[-1]) if lines else frames
    child.stdout.close()
    child.wait()
    for path in sorted(first.rglob("*"), reverse=True):  # the host is gone, with its disk
        path.unlink() if path.is_file() else path.rmdir()
    objects = AsyncObjects(Objects(location))
    spool = await RecordingPieces(objects).rebuild(sid, tmp_path / "second" / sid)
    objects.close()
    assert spool is not None
    found = finish(spool)
    got = audio(found.file)
    kept = len(got) // FRAME
    assert frames - 250 < kept <= frames, "5 s at most were on that host alone"
    assert found.gaps == []
    assert got[:, 0].tolist() == ramp(kept).reshape(-1).tolist()
    assert got[:, 1].tolist() == ramp(kept, 9).reshape(-1).tolist()
    with wave.open(found.file) as file:
        assert file.getnframes() == kept * FRAME
    mp3 = tmp_path / "out.mp3"
    command = ["ffmpeg", "-loglevel", "error", "-i", found.file, str(mp3)]
    if subprocess.run(["which", "ffmpeg"], capture_output=True).returncode == 0:
        assert subprocess.run(command).returncode == 0
        probe = ["ffprobe", "-loglevel", "error", "-show_entries", "format=duration", "-of", "csv=p=0", str(mp3)]
        seconds = float(subprocess.run(probe, capture_output=True, text=True).stdout)
        assert abs(seconds - kept * 0.02) < 0.3, "MP3 frames of 72 ms, and the encoder's delay"
