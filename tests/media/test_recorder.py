"""The recorder: from the shared-memory ring to WAV files, whatever dies or stands still on the way."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from trunkline.media import recorded
from trunkline.media.engine.record_ring import FRAME, PAUSE, RESUME, STOP, RecordRing
from trunkline.media.recorder import Recorder

Samples = npt.NDArray[np.int16]
DEADLINE_S = 20.0


def audio(path: str | Path) -> npt.NDArray[np.int16]:
    """Samples of a WAV file, one column a channel."""
    with wave.open(str(path), "rb") as file:
        assert (file.getframerate(), file.getsampwidth()) == (8000, 2)
        data = file.readframes(file.getnframes())
        return np.frombuffer(data, "<i2").reshape(-1, file.getnchannels())


def ramp(frames: int, start: int = 0) -> Samples:
    """Loud samples that differ from each other, one row a frame."""
    values = (np.arange(start * FRAME, (start + frames) * FRAME) * 37) % 20_011 + 1000
    return values.astype(np.int16).reshape(-1, FRAME)


class Rig:
    """A ring, a recorder on it in this process, and the media process's part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ring, self.fd = RecordRing.create(64, 4096)
        self.recorder = Recorder(self.ring, folder)

    def begin(self, name: str, **fields: Any) -> int:
        slot = self.ring.open(
            {"recording": name, "leg": "CA1", "folder": str(self.folder / name), "t": "record", **fields}
        )
        assert slot >= 0
        return slot

    def put(self, slot: int, inbound: Samples, outbound: Samples | None = None, at: int = 0) -> None:
        """Frames from sample `at` on."""
        outbound = np.zeros_like(inbound) if outbound is None else outbound
        for index in range(len(inbound)):
            one = slice(index, index + 1)
            self.ring.put(np.array([slot]), np.array([at + index * FRAME]), inbound[one], outbound[one])

    def end(self, slot: int, sample: int, why: str = "stopped") -> dict[str, Any]:
        """Stop and wait for the result."""
        self.ring.control(slot, STOP, sample, {"why": why, "digit": ""})
        return self.wait(slot)

    def wait(self, slot: int) -> dict[str, Any]:
        limit = time.monotonic() + DEADLINE_S
        while time.monotonic() < limit:
            if not self.recorder.step():
                for done, _, result in self.ring.finished():
                    if done == slot:
                        self.ring.free(slot)
                        return result
                time.sleep(0.002)
        raise AssertionError("the recording was never finished")

    def settle(self) -> None:
        while self.recorder.step() or not self.recorder.idle:
            time.sleep(0.002)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.recorder.close()
    os.close(rig.fd)


def test_two_channels_are_aligned_by_sample(rig: Rig) -> None:
    slot = rig.begin("RE1", channels=2)
    inbound, outbound = ramp(100), ramp(100, 7)
    rig.put(slot, inbound, outbound)
    result = rig.end(slot, 100 * FRAME)
    assert result["why"] == "stopped"
    assert result["duration_ms"] == 2000
    assert result.get("gaps", []) == []
    got = audio(result["file"])
    assert got[:, 0].tolist() == inbound.reshape(-1).tolist()
    assert got[:, 1].tolist() == outbound.reshape(-1).tolist()
    assert sorted(path.name for path in (rig.folder / "RE1").iterdir()) == ["RE1.wav"]


def test_one_channel_is_the_mix_without_overflow(rig: Rig) -> None:
    slot = rig.begin("RE1", channels=1)
    inbound, outbound = ramp(10), np.full((10, FRAME), 25_000, np.int16)
    rig.put(slot, inbound, outbound)
    got = audio(rig.end(slot, 10 * FRAME)["file"])
    assert got.shape == (1600, 1)
    assert got[:, 0].tolist() == np.minimum(inbound.reshape(-1).astype(int) + 25_000, 32_767).tolist()


@pytest.mark.parametrize("tracks", ["inbound", "outbound"])
def test_a_single_track(rig: Rig, tracks: str) -> None:
    slot = rig.begin("RE1", tracks=tracks)
    inbound, outbound = ramp(5), ramp(5, 50)
    rig.put(slot, inbound, outbound)
    got = audio(rig.end(slot, 5 * FRAME)["file"])
    assert got[:, 0].tolist() == (inbound if tracks == "inbound" else outbound).reshape(-1).tolist()


def test_many_recordings_at_once_keep_apart(rig: Rig) -> None:
    slots = [rig.begin(f"RE{number}") for number in range(40)]
    for frame in range(20):
        rows = np.stack([ramp(1, 100 * slot + frame)[0] for slot in slots])
        rig.ring.put(np.array(slots), np.full(40, frame * FRAME), rows, np.zeros_like(rows))
        if frame % 7 == 0:
            rig.recorder.step()
    for slot in slots:
        got = audio(rig.end(slot, 20 * FRAME)["file"])
        assert got[:, 0].tolist() == ramp(20, 100 * slot).reshape(-1).tolist()


def test_what_no_frame_covers_is_silence_and_listed(rig: Rig) -> None:
    slot = rig.begin("RE1", channels=2)
    rig.put(slot, ramp(10))
    rig.put(slot, ramp(10), at=60 * FRAME)
    result = rig.end(slot, 75 * FRAME)
    assert result["gaps"] == [[200, 1000], [1400, 100]]
    got = audio(result["file"])[:, 0]
    assert len(got) == 75 * FRAME
    assert not got[10 * FRAME : 60 * FRAME].any()
    assert got[60 * FRAME : 70 * FRAME].all()


def test_frames_seen_twice_do_no_harm(rig: Rig) -> None:
    slot = rig.begin("RE1")
    rig.put(slot, ramp(10))
    rig.put(slot, ramp(10, 4)[:6], at=4 * FRAME)
    rig.put(slot, ramp(5, 10), at=10 * FRAME)
    result = rig.end(slot, 15 * FRAME)
    assert audio(result["file"])[:, 0].tolist() == ramp(15).reshape(-1).tolist()
    assert result.get("gaps", []) == []


@pytest.mark.parametrize("advances", [True, False], ids=["index-goes-on", "index-stands"])
def test_a_skipped_pause_is_left_out(rig: Rig, advances: bool) -> None:
    slot = rig.begin("RE1")
    resume = 50 * FRAME if advances else 10 * FRAME
    rig.put(slot, ramp(10))
    rig.ring.control(slot, PAUSE, 10 * FRAME, {"mode": "skip"})
    rig.ring.control(slot, RESUME, resume)
    rig.put(slot, ramp(10, 10), at=resume)
    rig.put(slot, ramp(5, 30), at=resume + 15 * FRAME)
    result = rig.end(slot, resume + 20 * FRAME)
    assert result["duration_ms"] == 600
    assert result["gaps"] == [[400, 100]]
    got = audio(result["file"])[:, 0]
    assert got[: 20 * FRAME].tolist() == ramp(20).reshape(-1).tolist()


def test_a_silent_pause_is_silence_and_no_gap(rig: Rig) -> None:
    slot = rig.begin("RE1")
    rig.put(slot, ramp(10))
    rig.ring.control(slot, PAUSE, 10 * FRAME, {"mode": "silence"})
    rig.put(slot, ramp(5), at=10 * FRAME)  # a frame that should not have come is not heard
    rig.ring.control(slot, RESUME, 30 * FRAME)
    rig.put(slot, ramp(10), at=30 * FRAME)
    result = rig.end(slot, 40 * FRAME)
    assert result["duration_ms"] == 800
    assert result.get("gaps", []) == []
    assert not audio(result["file"])[10 * FRAME : 30 * FRAME].any()


def test_silence_at_both_ends_is_trimmed(rig: Rig) -> None:
    slot = rig.begin("RE1", trim=True)
    rig.put(slot, np.full((50, FRAME), 20, np.int16))
    rig.put(slot, ramp(50), at=50 * FRAME)
    rig.put(slot, np.zeros((50, FRAME), np.int16), at=100 * FRAME)
    result = rig.end(slot, 150 * FRAME)
    assert result["duration_ms"] == 1000 + 2 * 100
    assert result["voiced_ms"] == 1000
    got = audio(result["file"])[:, 0]
    assert got[800:-800].tolist() == ramp(50).reshape(-1).tolist()


def test_nothing_but_silence_trims_to_no_file(rig: Rig) -> None:
    slot = rig.begin("RE1", trim=True)
    rig.put(slot, np.zeros((50, FRAME), np.int16))
    result = rig.end(slot, 50 * FRAME, why="silence")
    assert (result["why"], result["file"], result["duration_ms"], result["peak"]) == ("silence", "", 0, 0)


def test_peak_and_voiced_time_are_measured(rig: Rig) -> None:
    slot = rig.begin("RE1", channels=2)
    inbound = np.zeros((20, FRAME), np.int16)
    inbound[5:9] = 3000
    inbound[7, 3] = -32_768
    rig.put(slot, inbound, np.full((20, FRAME), 500, np.int16))
    result = rig.end(slot, 20 * FRAME)
    assert (result["peak"], result["voiced_ms"]) == (32_768, 80)


def test_a_folder_that_cannot_be_written_fails_that_recording_alone(rig: Rig) -> None:
    (rig.folder / "REbad").write_text("a file where the folder should be")
    bad, good = rig.begin("REbad"), rig.begin("REgood")
    rig.put(bad, ramp(5))
    rig.put(good, ramp(5))
    assert rig.end(bad, 5 * FRAME)["why"] == "failed"
    assert rig.end(good, 5 * FRAME)["duration_ms"] == 100


def test_what_a_full_disk_does_not_take_is_a_gap(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    slot = rig.begin("RE1")
    rig.put(slot, ramp(10))
    rig.recorder.step()

    def full(_fd: int, _data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("trunkline.media.recording_spool.os.write", full)
        rig.put(slot, ramp(10, 10), at=10 * FRAME)
        rig.recorder.step()
    rig.put(slot, ramp(10, 20), at=20 * FRAME)
    result = rig.end(slot, 30 * FRAME)
    assert (result["why"], result["gaps"]) == ("stopped", [[200, 200]])
    assert audio(result["file"])[20 * FRAME :, 0].tolist() == ramp(10, 20).reshape(-1).tolist()


def test_a_name_that_is_a_path_is_refused(rig: Rig) -> None:
    slot = rig.begin("../../evil")
    assert rig.end(slot, 0)["why"] == "failed"
    assert not list(rig.folder.parent.glob("evil*"))


def test_a_new_recorder_goes_on_where_the_old_one_was(rig: Rig) -> None:
    slot = rig.begin("RE1")
    rig.put(slot, ramp(10))
    rig.recorder.step()
    with (rig.folder / "RE1" / "RE1.spool").open("ab") as spool:
        spool.write(b"half an entry")  # it died in the middle of a write
    rig.put(slot, ramp(10, 10), at=10 * FRAME)
    rig.recorder = Recorder(RecordRing(rig.fd), rig.folder)
    rig.recorder.recover()
    result = rig.end(slot, 20 * FRAME)
    assert audio(result["file"])[:, 0].tolist() == ramp(20).reshape(-1).tolist()


def test_a_recorder_that_died_while_finishing_is_made_good(rig: Rig) -> None:
    slot = rig.begin("RE1")
    rig.put(slot, ramp(10))
    rig.ring.control(slot, STOP, 10 * FRAME, {"why": "digit", "digit": "5"})
    rig.recorder.step()  # spooled and released; the result is never told
    limit = time.monotonic() + DEADLINE_S
    while not (rig.folder / "RE1" / "RE1.wav").exists():
        assert time.monotonic() < limit
    rig.recorder = Recorder(RecordRing(rig.fd), rig.folder)
    rig.recorder.recover()
    result = rig.wait(slot)
    assert (result["why"], result["digit"], result["duration_ms"]) == ("digit", "5", 200)


def test_spools_without_a_ring_are_finished_and_noted(rig: Rig, tmp_path: Path) -> None:
    slot = rig.begin("RE1", channels=2)
    rig.put(slot, ramp(10), ramp(10, 3))
    rig.recorder.step()
    rig.recorder.close()
    spool = tmp_path / "RE1" / "RE1.spool"
    with spool.open("ab") as file:
        file.write(b"\1" * 300)
    (tmp_path / "RE2").mkdir()
    (tmp_path / "RE2" / "RE2.spool").write_bytes(os.urandom(5000))
    ring, fd = RecordRing.create(4, 64)
    rig.recorder = Recorder(ring, tmp_path)
    rig.recorder.recover()
    rig.settle()
    os.close(fd)
    (found,) = recorded.recovered(tmp_path)
    assert (found.recording, found.leg, found.why, found.duration_ms) == ("RE1", "CA1", "closed", 200)
    assert audio(found.file)[:, 1].tolist() == ramp(10, 3).reshape(-1).tolist()
    assert not spool.exists()
    assert [path.name for path in (tmp_path / "RE2").iterdir()] == ["RE2.damaged"]


async def _until(what: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not what():
            await asyncio.sleep(0.02)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[RecordRing, "subprocess.Popen[bytes]", Path]]:
    """A recorder process, started before its ring is laid out."""
    fd = os.memfd_create("ring")
    child = subprocess.Popen(
        [sys.executable, "-m", "trunkline.media.recorder", "--ring", str(fd), "--folder", str(tmp_path)], pass_fds=[fd]
    )
    ring = RecordRing(fd, slots=8, frames=1024)
    yield ring, child, tmp_path
    if child.poll() is None:
        child.send_signal(signal.SIGCONT)
        child.terminate()
        assert child.wait(DEADLINE_S) == 0
    os.close(fd)


async def test_a_recorder_that_stands_still_harms_nothing_and_leaves_a_gap(
    process: tuple[RecordRing, "subprocess.Popen[bytes]", Path],
) -> None:
    ring, child, folder = process
    slot = ring.open({"recording": "RE1", "leg": "CA1", "folder": str(folder / "RE1"), "t": "record", "channels": 2})
    await _until((folder / "RE1" / "RE1.spool").exists)
    child.send_signal(signal.SIGSTOP)
    silent = np.zeros((1, FRAME), np.int16)
    longest = 0.0
    for frame in range(1500):  # 30 s of audio into a ring of 20 s
        begin = time.perf_counter()
        ring.put(np.array([slot]), np.array([frame * FRAME]), ramp(1, frame), silent)
        longest = max(longest, time.perf_counter() - begin)
    assert longest < 0.02
    assert ring.dropped > 0
    child.send_signal(signal.SIGCONT)
    await _until(lambda: ring.held == 0)
    for frame in range(1500, 1600):
        ring.put(np.array([slot]), np.array([frame * FRAME]), ramp(1, frame), silent)
    ring.control(slot, STOP, 1600 * FRAME, {"why": "stopped"})
    await _until(ring.finished)
    result = ring.finished()[0][2]
    kept = 1500 - ring.dropped
    assert result["gaps"] == [[kept * 20, ring.dropped * 20]]
    got = audio(result["file"])[:, 0].reshape(-1, FRAME)
    assert (got[:kept] == ramp(kept)).all()
    assert not got[kept:1500].any()
    assert (got[1500:] == ramp(100, 1500)).all()


async def test_a_killed_recorder_loses_nothing(
    process: tuple[RecordRing, "subprocess.Popen[bytes]", Path],
) -> None:
    ring, child, folder = process
    slot = ring.open({"recording": "RE1", "leg": "CA1", "folder": str(folder / "RE1"), "t": "record"})
    silent = np.zeros((1, FRAME), np.int16)
    for frame in range(300):
        ring.put(np.array([slot]), np.array([frame * FRAME]), ramp(1, frame), silent)
        if frame == 150:
            await _until(lambda: ring.held == 0)
            child.kill()
            child.wait()
    second = Recorder(ring, folder)
    second.recover()
    ring.control(slot, STOP, 300 * FRAME, {"why": "stopped"})
    while not ring.finished():
        second.step()
        await asyncio.sleep(0.005)
    second.close()
    result = ring.finished()[0][2]
    assert result.get("gaps", []) == []
    assert audio(result["file"])[:, 0].tolist() == ramp(300).reshape(-1).tolist()
