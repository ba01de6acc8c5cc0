"""Recordings hold what was said, sample by sample, and writing them never disturbs a call."""

import json
import os
import signal
import struct
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.e2e.audio_bridge import bridged, in_time, noise
from tests.e2e.audio_line import Call, Line
from tests.e2e.audio_peer import RATE, Got, Peer, Press, Samples, Wire, decoded, encoded, quiet
from tests.e2e.test_audio_prompts import check_order, ffmpeg
from tests.e2e.voice_app import response
from tests.interop.switch import Switch

FRAME = 160
TICK_NS = 20_000_000
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


def came(peer: Peer, mark: bytes) -> tuple[int, int]:
    """When the packet came in which a mark begins, and at which sample of it."""
    packets = peer.audio()
    octets = b"".join(got.payload for got in packets)
    at = octets.find(mark)
    assert at >= 0, "the mark was not heard"
    return packets[at // FRAME].at_ns, at % FRAME


@pytest.fixture
def kept(audio_switch: Switch) -> Any:
    """Waits for so many recordings: what their callbacks said, oldest first."""

    def wait(count: int = 1) -> list[dict[str, str]]:
        return audio_switch.app.wait("/kept", count)

    return wait


def test_both_channels_are_aligned(audio_switch: Switch, line: Line, wire: Wire, kept: Any, tmp_path: Path) -> None:
    caller, callee = Peer(wire, seed=1), Peer(wire, seed=2)
    marks = noise(0.5, 1), noise(0.5, 2)
    with bridged(audio_switch, line, caller, callee, f'record="record-from-answer-dual" {CALLBACK}'):
        (sid,) = {form["CallSid"] for form in audio_switch.app.at("/voice")}
        recordings = audio_switch.client.calls(sid).recordings
        recordings.create(recording_channels="mono", recording_status_callback=f"{audio_switch.app.url}/kept")
        for at, (peer, mark) in enumerate(zip((caller, callee), marks, strict=True)):
            peer.say(quiet(130 * at + 7), mark, quiet(150))  # they overlap, and begin within a packet
        both = noise(0.3, 3)
        caller.said(5)
        callee.said(5)
        caller.say(both, quiet(100))
        caller.said(5)
        time.sleep(0.2)
    told = kept(2)
    files = {form["RecordingChannels"]: form["RecordingUrl"] for form in told}
    dual = channels(audio_switch.fetch(f"{files['2']}.wav"))
    with in_time(wire, caller, callee):
        check_alignment(caller, callee, dual, marks)
    assert not np.array_equal(dual[0], dual[1])
    mono = channels(audio_switch.fetch(f"{files['1']}.wav"))
    with in_time(wire, caller, callee):
        check_mix(mono, dual, as_heard(both))
    check_mp3(audio_switch.fetch(f"{files['2']}.mp3"), dual, tmp_path)


def check_alignment(caller: Peer, callee: Peer, dual: Samples, marks: tuple[Samples, Samples]) -> None:
    """The distance of the marks in the file is that of the ticks in which they were heard by the other side."""
    first, second = (find(dual[side], as_heard(marks[side])) for side in (0, 1))
    at_callee, at_caller = came(callee, encoded(marks[0])), came(caller, encoded(marks[1]))
    ticks = (at_caller[0] - at_callee[0]) / TICK_NS
    assert abs(ticks - round(ticks)) < 0.3, "the machine is too busy to tell"
    assert second - first == round(ticks) * FRAME + at_caller[1] - at_callee[1]
    said = [next(one.at_ns for one in peer.sent if encoded(mark)[200:250] in one.payload)
            for peer, mark in zip((caller, callee), marks, strict=True)]  # fmt: skip
    between_ms = (said[1] - said[0]) / 1e6
    print(f"said {between_ms:.1f} ms apart, {(second - first) / 8:.1f} ms in the file")
    assert abs((second - first) / 8 - between_ms) <= 45, "a tick and a packet for each side"


def check_mix(mono: Samples, dual: Samples, mark: Samples) -> None:
    """One channel is the sum of the two, without overflow."""
    mixed = np.clip(dual[0].astype(int) + dual[1], -32768, 32767)
    shift = find(mixed.astype(np.int16), mark) - find(mono[0], mark)
    length = min(len(mono[0]), len(mixed) - shift)
    assert length > RATE
    assert np.array_equal(mono[0][:length], mixed[shift : shift + length])


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


def test_pauses(audio_switch: Switch, line: Line, wire: Wire) -> None:
    said = noise(8, 5)
    behaviours = "skip", "silence"
    calls = talking(audio_switch, line, wire, *["<Gather timeout='30'/>"] * 2)
    for one in calls:
        one.peer.say(said)
    time.sleep(0.3)
    recordings = [audio_switch.client.calls(one.sid).recordings for one in calls]
    for of_call in recordings:
        of_call.create(recording_status_callback=f"{audio_switch.app.url}/kept")
    for status in ("paused", "in-progress", "stopped"):
        time.sleep(0.4)
        for behaviour, of_call in zip(behaviours, recordings, strict=True):
            pause = {"pause_behavior": behaviour} if status == "paused" else {}
            of_call("Twilio.CURRENT").update(status=status, **pause)
    for behaviour, one in zip(behaviours, calls, strict=True):
        with in_time(wire, one.peer):
            check_pause(recording_of(audio_switch, one.sid, 2), as_heard(said), behaviour)
        one.call.hang_up()


def check_pause(audio: Samples, heard: Samples, behaviour: str) -> None:
    """All is there but for one stretch, which is left out or silent."""
    begin = find(heard, audio[FRAME * 5 : FRAME * 10]) - FRAME * 5
    same = audio == heard[begin : begin + len(audio)]
    paused = int(np.flatnonzero(~same)[0])
    resumed = find(heard, audio[-FRAME * 10 :]) + FRAME * 10
    print(f"{behaviour}: {len(audio) / 8:.0f} ms kept of {(resumed - begin) / 8:.0f}, paused at {paused / 8:.0f}")
    assert 0.2 * RATE < paused < 1.5 * RATE
    if behaviour == "silence":
        assert resumed - begin == len(audio), "all that came after the pause is in its place"
        still = np.flatnonzero(~same)
        assert not audio[still[0] : still[-1] + 1].any()
    else:
        left_out = resumed - begin - len(audio)
        assert left_out >= 0.3 * RATE
        assert left_out % FRAME == 0
        assert np.array_equal(audio[paused:], heard[begin + paused + left_out :][: len(audio) - paused])


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
