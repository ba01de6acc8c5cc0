"""Recordings hold what was said, sample by sample, and writing them never disturbs a call."""

import json
import os
import signal
import struct
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.e2e.audio_bridge import bridged, noise
from tests.e2e.audio_line import Call, Line
from tests.e2e.audio_peer import MASK, RATE, Got, Peer, Press, Samples, Sent, Wire, decoded, encoded, quiet
from tests.e2e.test_audio_prompts import check_order, ffmpeg
from tests.e2e.voice_app import response
from tests.interop.switch import Switch

FRAME = 160
SAMPLE_NS = 125_000
TICK_NS = FRAME * SAMPLE_NS
TRIM_PAD = RATE // 10
"""Silence that trimming leaves at each end."""
CALLBACK = 'recordingStatusCallback="/kept"'


def channels(octets: bytes) -> Samples:
    """The samples of a WAV file, by channel; its header is read by hand."""
    riff, size, kind, fmt, length = struct.unpack("<4sI4s4sI", octets[:20])
    coding, count, rate, byte_rate, block, bits, data, data_size = struct.unpack("<HHIIHH4sI", octets[20:44])
    assert (riff, kind, fmt, length, coding, data) == (b"RIFF", b"WAVE", b"fmt ", 16, 1, b"data")
    assert (rate, byte_rate, block, bits) == (RATE, RATE * 2 * count, 2 * count, 16)
    assert (size, data_size) == (len(octets) - 8, len(octets) - 44)
    return np.frombuffer(octets[44:], "<i2").reshape(-1, count).T


def as_heard(samples: Samples) -> Samples:
    """What is left of audio after G.711."""
    return decoded(encoded(samples))


def find(channel: Samples, mark: Samples) -> int:
    """Where a mark begins; it is there once, bit for bit."""
    octets = channel.astype("<i2").tobytes()
    at = octets.find(mark.astype("<i2").tobytes())
    assert at >= 0, "the mark is not in the recording"
    assert at % 2 == 0
    return at // 2


class Placed(NamedTuple):
    """How what a peer heard lies in a recording. The server sends and records a tick's frame together, and where it
    misses ticks it leaves out as much of both: whatever the machine did, the RTP timestamps are those of the file."""

    frames: list[tuple[int, Samples]]
    """Of each packet that was heard: where it belongs in the file (before 0: it was not recorded yet), its audio."""
    zero_ns: float
    """When, by the median of all packets, what the file begins with was heard."""

    def within(self, begin: int, end: int) -> list[tuple[int, Samples]]:
        return [(at, audio) for at, audio in self.frames if begin <= at <= end - FRAME]


def place(channel: Samples, packets: list[Got], begin: int = 0, end: int = 1 << 62) -> Placed:
    """Find the place by what is in this part of the file."""
    octets, first = channel.astype("<i2").tobytes(), packets[0].timestamp
    heard = [((got.timestamp - first) & MASK, decoded(got.payload)) for got in packets]
    votes: Counter[int] = Counter()
    for at, audio in heard:
        found = octets.find(audio.astype("<i2").tobytes()) if is_noise(audio) else -1
        if found % 2 == 0 and begin <= found // 2 < end:
            votes[found // 2 - at] += 1
    assert votes, "nothing of what was heard is in the recording"
    (offset, _), *_ = votes.most_common(1)
    zero = float(
        np.median([got.at_ns - (at + offset) * SAMPLE_NS for got, (at, _) in zip(packets, heard, strict=True)])
    )
    return Placed([(at + offset, audio) for at, audio in heard], zero)


def is_noise(audio: Samples) -> bool:
    """Whether it is found nowhere by chance."""
    return len(np.unique(audio)) > FRAME // 4


def recorded(channel: Samples, at: int, audio: Samples) -> bool:
    """Whether the file has this there, bit for bit as far as G.711 let it through."""
    return np.array_equal(as_heard(channel[at : at + FRAME]), audio)


@pytest.fixture
def kept(audio_switch: Switch) -> Any:
    """Waits for so many recordings: what their callbacks said, oldest first."""

    def wait(count: int = 1) -> list[dict[str, str]]:
        return audio_switch.app.wait("/kept", count)

    return wait


def test_both_channels_are_aligned(audio_switch: Switch, line: Line, wire: Wire, kept: Any, tmp_path: Path) -> None:
    caller, callee = Peer(wire, seed=1), Peer(wire, seed=2)
    with bridged(audio_switch, line, caller, callee, f'record="record-from-answer-dual" {CALLBACK}'):
        (sid,) = {form["CallSid"] for form in audio_switch.app.at("/voice")}
        recordings = audio_switch.client.calls(sid).recordings
        recordings.create(recording_channels="mono", recording_status_callback=f"{audio_switch.app.url}/kept")
        for at, peer in enumerate((caller, callee)):
            peer.say(quiet(130 * at + 7), noise(1.5, at + 1), quiet(150))  # they overlap, and begin within a packet
        caller.said(5)
        callee.said(5)
        time.sleep(0.2)
    told = kept(2)
    files = {form["RecordingChannels"]: form["RecordingUrl"] for form in told}
    dual = channels(audio_switch.fetch(f"{files['2']}.wav"))
    check_alignment(caller, callee, dual)
    (mono,) = channels(audio_switch.fetch(f"{files['1']}.wav"))
    check_mix(mono, dual)
    check_mp3(audio_switch.fetch(f"{files['2']}.mp3"), dual, tmp_path)


def check_alignment(caller: Peer, callee: Peer, dual: Samples) -> None:
    """Each side's channel is what the other side heard, all of it, and both of a tick lie at the same place."""
    sides = [place(dual[0], callee.audio()), place(dual[1], caller.audio())]
    for channel, side in zip(dual, sides, strict=True):
        frames = side.within(0, len(channel))
        other = [at for at, audio in frames if not recorded(channel, at, audio)]
        noisy = sum(is_noise(audio) for _, audio in frames)
        print(f"{len(frames)} frames were heard, {noisy} of noise, {len(other)} are not in the recording")
        assert not other
        assert noisy > 50
    apart = (sides[1].zero_ns - sides[0].zero_ns) / TICK_NS
    assert abs(apart) < 0.3, "heard in one tick, recorded in another"
    waits = [waited_ms(channel, peer.sent) for channel, peer in zip(dual, (caller, callee), strict=True)]
    print(f"{apart:.2f} ticks between the channels; {abs(waits[1] - waits[0]):.1f} ms more for one side to be recorded")
    assert abs(waits[1] - waits[0]) <= 45, "a tick and a packet for each side"


def waited_ms(channel: Samples, sent: list[Sent]) -> float:
    """From when packets left to where they are in the file, from an unknown beginning; of the one that waited least, as
    a machine that stands still makes others wait in the jitter buffer."""
    octets = channel.astype("<i2").tobytes()
    found = [(octets.find(decoded(one.payload).astype("<i2").tobytes()), one.at_ns) for one in sent
             if is_noise(decoded(one.payload))]  # fmt: skip
    return min(at / 16 - at_ns / 1e6 for at, at_ns in found if at >= 0)


def check_mix(mono: Samples, dual: Samples) -> None:
    """One channel is the sum of the two, without overflow."""
    mixed = np.clip(dual[0].astype(int) + dual[1], -32768, 32767).astype(np.int16)
    noisy = next(at for at in range(len(mono) // 2, len(mono), FRAME) if is_noise(mono[at : at + FRAME]))
    shift = find(mixed, mono[noisy : noisy + FRAME]) - noisy
    length = min(len(mono), len(mixed) - shift)
    assert length > RATE
    assert np.array_equal(mono[:length], mixed[shift : shift + length])


def check_mp3(octets: bytes, dual: Samples, folder: Path) -> None:
    """The MP3 holds the same two channels, as far as its codec goes."""
    source, target = folder / "a.mp3", folder / "a.raw"
    source.write_bytes(octets)
    ffmpeg("-i", str(source), "-f", "s16le", str(target))
    decoded_mp3 = np.fromfile(target, "<i2").reshape(-1, 2).T
    assert abs(decoded_mp3.shape[1] - dual.shape[1]) <= 1152 * 2
    length = min(decoded_mp3.shape[1], dual.shape[1])
    for channel, wanted in zip(decoded_mp3, dual, strict=True):
        low = spectrum_low(wanted[:length])
        likeness = np.corrcoef(spectrum_low(channel[:length]), low)[0, 1]
        print(f"the MP3 correlates {likeness:.3f} below 3 kHz")
        assert likeness > 0.9


def spectrum_low(samples: Samples) -> np.ndarray:
    """The part of the audio below 3 kHz."""
    spectrum = np.fft.rfft(samples.astype(float))
    spectrum[round(3000 / RATE * len(samples)) :] = 0
    return np.fft.irfft(spectrum, len(samples))


# -- pause, trim ---------------------------------------------------------------------------------------------------


class Recorded(NamedTuple):
    """One of several calls under way."""

    call: Call
    peer: Peer
    sid: str


def talking(switch: Switch, line: Line, wire: Wire, *documents: str) -> list[Recorded]:
    """A call for each of these documents."""
    callers = {f"+1555{index:07d}": document for index, document in enumerate(documents)}
    switch.answers()
    switch.app.answers["/voice"] = lambda form: response(callers[form["From"]])
    calls = [line.dials(switch.number, Peer(wire, seed=at), caller) for at, caller in enumerate(callers)]
    for call in calls:
        call.wait()
    sids = {form["From"]: form["CallSid"] for form in switch.app.at("/voice")}
    return [Recorded(call, call.peer, sids[caller]) for call, caller in zip(calls, callers, strict=True)]


def recording_of(switch: Switch, sid: str, count: int) -> Samples:
    """The only channel of a call's recording, once there are so many."""
    (url,) = {form["RecordingUrl"] for form in switch.app.wait("/kept", count) if form["CallSid"] == sid}
    (audio,) = channels(switch.fetch(f"{url}.wav"))
    return audio


def test_pauses(audio_switch: Switch, line: Line, wire: Wire, kept: Any) -> None:
    caller, callee = Peer(wire, seed=1), Peer(wire, seed=2)
    with bridged(audio_switch, line, caller, callee):
        caller.say(noise(8, 5))
        (sid,) = {form["CallSid"] for form in audio_switch.app.at("/voice")}
        recordings = audio_switch.client.calls(sid).recordings
        url = f"{audio_switch.app.url}/kept"
        made = {
            behaviour: recordings.create(recording_channels="dual", recording_status_callback=url).sid
            for behaviour in ("skip", "silence")
        }
        for status in ("paused", "in-progress", "stopped"):
            time.sleep(0.4)
            for behaviour, recording in made.items():
                pause = {"pause_behavior": behaviour} if status == "paused" else {}
                recordings(recording).update(status=status, **pause)
        urls = {form["RecordingSid"]: form["RecordingUrl"] for form in kept(2)}
    for behaviour, recording in made.items():
        channel = channels(audio_switch.fetch(f"{urls[recording]}.wav"))[0]
        check_pause(channel, callee.audio(), behaviour)


def check_pause(channel: Samples, heard: list[Got], behaviour: str) -> None:
    """All that the other side heard is there but for one stretch, which is left out or silent."""
    before, after = place(channel, heard, 0, RATE // 4), place(channel, heard, len(channel) - RATE // 4)
    strange = [at for at, audio in before.within(0, len(channel)) if not recorded(channel, at, audio)]
    paused = strange[0]
    left_out = before.frames[0][0] - after.frames[0][0]
    print(f"{behaviour}: {len(channel) / 8:.0f} ms kept, paused at {paused / 8:.0f}, {left_out / 8:.0f} ms left out")
    assert 0.2 * RATE < paused < 1.5 * RATE
    if behaviour == "silence":
        assert left_out == 0, "all that came after the pause is in its place"
        assert strange[-1] + FRAME - paused >= 0.3 * RATE
        assert not channel[paused : strange[-1] + FRAME].any()
    else:
        assert left_out >= 0.3 * RATE
        assert left_out % FRAME == 0
        assert all(recorded(channel, at, audio) for at, audio in after.within(paused, len(channel)))


def test_silence_is_trimmed(audio_switch: Switch, line: Line, wire: Wire) -> None:
    said = noise(0.8, 6)
    record = '<Record playBeep="false" trim="{}" finishOnKey="#" timeout="20" action="/done" {}/>'
    trims = "trim-silence", "do-not-trim"
    audio_switch.app.answers["/done"] = response("<Hangup/>")
    calls = talking(audio_switch, line, wire, *(record.format(trim, CALLBACK) for trim in trims))
    for one in calls:
        one.peer.say(quiet(500), said, quiet(600), Press("#"))
    for trim, one in zip(trims, calls, strict=True):
        audio = recording_of(audio_switch, one.sid, 2)
        at = find(audio, as_heard(said)[FRAME:-FRAME]) - FRAME
        after = len(audio) - at - len(said)
        print(f"{trim}: {at / 8:.0f} ms before, {after / 8:.0f} ms after")
        if trim == "trim-silence":
            assert 0 <= at <= TRIM_PAD + FRAME
            assert 0 <= after <= TRIM_PAD + FRAME
        else:
            assert at > 0.3 * RATE
            assert after > 0.4 * RATE
        assert one.call.ended.wait(10)
        one.call.hang_up()


# -- the writer stands still ---------------------------------------------------------------------------------------


def process(switch: Switch, kind: str) -> int:
    return next(pid for pid, name in switch.processes() if name == kind)


def late_share(packets: list[Got], begin_ns: int, end_ns: int) -> float:
    """Share of packets more than 15 ms off their ideal time, by the RTP timestamp from the median of all."""
    part = [got for got in packets if begin_ns <= got.at_ns < end_ns]
    ideal = np.array([(got.timestamp - part[0].timestamp) & 0xFFFFFFFF for got in part]) / RATE * 1e9
    off = np.array([got.at_ns - part[0].at_ns for got in part]) - ideal
    return float(np.mean(np.abs(off - np.median(off)) > 15e6))


def stand_still(
    switch: Switch, line: Line, wire: Wire, legs: int, stop_s: float
) -> list[tuple[Peer, dict[str, str], Samples]]:
    """So many calls are recorded while the recorder is stopped; what each callback said, and what the leg said."""
    peers, calls = [Peer(wire, seed=index, keep=False) for index in range(legs)], []
    switch.answers(f'<Record playBeep="false" trim="do-not-trim" timeout="0" {CALLBACK}/>')
    said = [noise(stop_s + 8 + legs / 20, 100 + index) for index in range(legs)]
    for index, peer in enumerate(peers):
        peer.say(quiet(100), said[index])
        calls.append(line.dials(switch.number, peer, f"+1555{index:07d}"))
        time.sleep(0.01)
    for call in calls:
        call.wait()
    time.sleep(0.5)
    pid = process(switch, "recorder")
    begin = time.time_ns()
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(stop_s)
    finally:
        os.kill(pid, signal.SIGCONT)
    end = time.time_ns()
    time.sleep(0.5)
    for call in calls:
        call.hang_up()
    told = {form["CallSid"]: form for form in switch.app.wait("/kept", legs, 30)}
    shares = [late_share(peer.audio(), begin, end) for peer in peers]
    skipped = max(check_order(peer.audio()) for peer in peers)
    print(
        f"{legs} legs: late {np.mean(shares):.3%}, at most {max(shares):.3%} of a leg; {skipped} ticks missed in all;"
    )
    print(f"the wire was {wire.behind_ms:.0f} ms late at most")
    assert np.mean(shares) < 0.01
    callers = {form["CallSid"]: form["From"] for form in switch.app.at("/voice")}
    by_caller = {callers[sid]: form for sid, form in told.items()}
    return [(peer, by_caller[f"+1555{index:07d}"], said[index]) for index, peer in enumerate(peers)]


def gaps(switch: Switch, form: dict[str, str]) -> int:
    """How many gaps the call's timeline tells of a recording."""
    path = f"2010-04-01/Accounts/{switch.account.sid}/Calls/{form['CallSid']}/Timeline.json"
    entries = json.loads(switch.fetch(f"{switch.url}/{path}"))["entries"]
    (told,) = [one for one in entries if one["what"] == f"completed {form['RecordingSid']}"]
    return int(told["details"]["gaps"])


def holes(audio: Samples, said: Samples) -> tuple[int, int]:
    """Of a recording of noise: frames that are not as they were said, and those of them that are silent."""
    heard, start = as_heard(said), int(np.flatnonzero(audio)[0])
    octets = heard.astype("<i2").tobytes()
    length = (len(audio) - start) // FRAME * FRAME
    frames = audio[start : start + length].reshape(-1, FRAME)
    strange = [frame for frame in frames if octets.find(frame.astype("<i2").tobytes()) < 0]
    return len(strange), sum(not frame.any() for frame in strange)


def check_whole(switch: Switch, legs: list[tuple[Peer, dict[str, str], Samples]]) -> None:
    """Nothing of the recordings is missing."""
    strange = silent = 0
    for _, form, said in legs:
        (audio,) = channels(switch.fetch(f"{form['RecordingUrl']}.wav"))
        found = holes(audio, said)
        strange, silent = strange + found[0], silent + found[1]
        assert gaps(switch, form) == 0
    print(f"{len(legs)} recordings: {strange} frames are not as they were said, {silent} of them are silent")
    assert silent == 0


def test_the_recorder_stands_still(audio_switch: Switch, line: Line, wire: Wire) -> None:
    check_whole(audio_switch, stand_still(audio_switch, line, wire, 10, 2))


@pytest.mark.slow
def test_the_recorder_stands_still_for_longer(audio_switch: Switch, line: Line, wire: Wire) -> None:
    check_whole(audio_switch, stand_still(audio_switch, line, wire, 100, 5))


@pytest.mark.slow
def test_what_the_recorder_cannot_keep_up_with_is_marked(audio_switch: Switch, line: Line, wire: Wire) -> None:
    """More legs, and for longer, than the memory between the two is sized for."""
    legs = stand_still(audio_switch, line, wire, 150, 8.5)
    marked = [gaps(audio_switch, form) for _, form, _ in legs]
    lengths = [len(channels(audio_switch.fetch(f"{form['RecordingUrl']}.wav"))[0]) / RATE for _, form, _ in legs]
    print(f"{sum(map(bool, marked))} of {len(legs)} have gaps; they last {min(lengths):.1f} to {max(lengths):.1f} s")
    assert any(marked)
    assert min(lengths) > 8, "what is missing is silence, and all else in its place"
