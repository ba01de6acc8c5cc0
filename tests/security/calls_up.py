"""Calls that are up while something hostile goes on: each hears one long prompt and is recorded while it talks, and in
the end every sample of both has to be right."""

import io
import itertools
import threading
import time
import wave
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.interop.raw_sip import RawCaller
from tests.interop.switch import NUMBER, Switch
from trunkline.rtp import g711
from trunkline.testing.phones.rtp_peer import decoded, encoded

RATE = 8000
FRAME = 160
TICK_S = 0.02
HEADER = 12
MAX_DATAGRAM = 2048
LEAST_S = 0.5
"""Of the prompt, which is fetched and decoded first."""
RECORDED_WRONG = 0.02
"""Largest share of a recording's frames that are none of those that were sent..."""
SILENCE = 8
"""Largest sample of silence in G.711."""
RECORDED_START = 3
"""... beside the first few, for which the jitter buffer finds its depth..."""
LATE_COST = 3
"""... and how many more may be for each that our own thread sent too late."""

Samples = npt.NDArray[np.int16]


def noise(seconds: float, seed: int) -> Samples:
    """Nothing that repeats."""
    return (np.random.default_rng(seed).normal(size=int(seconds * RATE)) * 3000).astype(np.int16)


def wav(samples: Samples) -> bytes:
    """A file of 16 bit, 8 kHz, mono."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


class Talker:
    """One call: what it says and what it heard."""

    def __init__(self, switch: Switch, index: int, says: bytes) -> None:
        self.sender = f"+1202555{4000 + index}"
        self.phone = RawCaller(switch.host, switch.sip_port, NUMBER, sender=self.sender)
        self.phone.rtp.setblocking(False)
        self.says = says
        self.heard: list[bytes] = []
        self.sources: set[tuple[str, int]] = set()
        self._sequence = itertools.count(index)
        self._position = 0
        self._ssrc = 1000 + index

    def tick(self) -> None:
        """Say 20 ms, and take what has come."""
        at = self._position % (len(self.says) - FRAME)
        head = b"\x80\x00" + (next(self._sequence) & 0xFFFF).to_bytes(2, "big")
        head += (self._position & 0xFFFFFFFF).to_bytes(4, "big") + self._ssrc.to_bytes(4, "big")
        self.phone.rtp.sendto(head + self.says[at : at + FRAME], self.phone.remote_rtp)
        self._position += FRAME
        self.listen()

    def listen(self) -> None:
        """Take what has come."""
        while True:
            try:
                packet, source = self.phone.rtp.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return
            self.sources.add(source)
            if source == self.phone.remote_rtp:
                self.heard.append(packet)

    def heard_right(self, prompt: bytes) -> int:
        """How many frames of the prompt came; none is missing, repeated, late in the row or wrong. Another call of the
        server, with a fuzzed port in its SDP, may have been sent to ours."""
        assert self.phone.remote_rtp in self.sources
        assert {host for host, _ in self.sources} == {self.phone.remote_rtp[0]}, self.sources
        numbers = [int.from_bytes(packet[2:4], "big") for packet in self.heard]
        steps = {(after - before) & 0xFFFF for before, after in itertools.pairwise(numbers)}
        assert steps <= {1}, f"packets lost or out of order: {steps}"
        heard = b"".join(packet[HEADER:] for packet in self.heard)
        start = heard.find(prompt[:FRAME])
        assert start >= 0, "the prompt never began"
        assert set(heard[:start]) <= {0xFF}, "there was no silence before it"
        audible = min(len(heard) - start, len(prompt))
        assert heard[start : start + audible] == prompt[:audible]
        return audible // FRAME


class CallsUp:
    """Use with `with`: inside, the calls are up and talking, in a thread."""

    def __init__(self, switch: Switch, count: int, seconds: float, *, speaking: bool = True) -> None:
        """`seconds`: longer than it all takes. Not `speaking`: they only listen until `speaking` is set."""
        self._switch = switch
        sound = noise(seconds, 1)
        self.prompt = encoded(sound, g711.PCMU)
        switch.app.files["/prompt.wav"] = ("audio/wav", wav(sound))
        switch.answers("<Play>/prompt.wav</Play><Pause length='60'/>")
        said = encoded(noise(20, 2), g711.PCMU)
        self.talkers = [Talker(switch, index, said[index * FRAME :]) for index in range(count)]
        self._stop = threading.Event()
        self.speaking = threading.Event()
        if speaking:
            self.speaking.set()
        self._thread = threading.Thread(target=self._run)
        self.sids: dict[str, str] = {}
        self.late = 0
        """Frames that the thread itself sent too late, because the machine was busy."""

    def __enter__(self) -> "CallsUp":
        for talker in self.talkers:
            talker.phone.calls()
        self.sids = {form["From"]: form["CallSid"] for form in self._switch.app.at("/voice")}
        self._thread.start()
        for talker in self.talkers:
            self._switch.client.calls(self.sids[talker.sender]).recordings.create(recording_channels="dual")
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        for talker in self.talkers:
            talker.phone.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            speaking = self.speaking.is_set()
            for talker in self.talkers:
                talker.tick() if speaking else talker.listen()
            due += TICK_S
            late = time.monotonic() - due
            self.late += max(0, int(late / TICK_S))
            time.sleep(max(-late, 0))

    def end(self) -> None:
        """Hang all up; all say that they were, and are told to the application as completed, once."""
        self._stop.set()
        self._thread.join()
        for talker in self.talkers:
            assert talker.phone.hang_up() == 200
            talker.listen()
        told = {}
        until = time.monotonic() + 15
        while not set(self.sids.values()) <= told.keys():
            assert time.monotonic() < until, f"{len(told)} calls of {len(self.sids)} have ended"
            told = {form["CallSid"]: form["CallStatus"] for form in self._switch.app.at("/status")}
            time.sleep(0.02)
        assert {told[sid] for sid in self.sids.values()} == {"completed"}

    def check(self, seconds: float, recordings: int) -> None:
        """What was heard, of all; what was recorded, of some, for at least so long."""
        for talker in self.talkers:
            assert talker.heard_right(self.prompt) * TICK_S >= LEAST_S
        for talker in self.talkers[:recordings]:
            recorded = self._recorded(self.sids[talker.sender])
            assert len(recorded) >= seconds * RATE * 0.9
            self._check_recorded(recorded, decoded(talker.says, g711.PCMU), self.late)

    def _recorded(self, sid: str) -> Samples:
        """The caller's channel of a call's recording."""
        until = time.monotonic() + 10
        while True:
            found = self._switch.client.recordings.list(call_sid=sid)
            if found and found[0].status == "completed":
                break
            assert time.monotonic() < until, found
            time.sleep(0.05)
        url = f"{self._switch.url}/2010-04-01/Accounts/{self._switch.account.sid}/Recordings/{found[0].sid}.wav"
        with wave.open(io.BytesIO(self._switch.fetch(f"{url}?RequestedChannels=2"))) as file:
            assert file.getnchannels() == 2
            return np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)[:, 0]

    @staticmethod
    def _check_recorded(recorded: Samples, said: Samples, late: int) -> None:
        """Nearly each frame of the recording is one that was said, in the order of saying."""
        frames = said[: len(said) // FRAME * FRAME].reshape(-1, FRAME)
        places = {frame.tobytes(): index for index, frame in enumerate(frames)}
        middle = range(len(recorded) // 2, len(recorded))
        start = next(at for at in middle if recorded[at : at + FRAME].tobytes() in places) % FRAME
        heard = recorded[start : start + (len(recorded) - start) // FRAME * FRAME].reshape(-1, FRAME)
        found = [places.get(frame.tobytes(), -1) for frame in heard]
        began = next(index for index, place in enumerate(found) if place >= 0)
        assert np.abs(heard[: max(began - 1, 0)]).max(initial=0) <= SILENCE, "something was heard before it spoke"
        found = found[began:]
        wrong = sum(index < 0 for index in found)
        most = RECORDED_WRONG * len(found) + RECORDED_START + LATE_COST * late
        assert wrong <= most, f"{wrong} of {len(found)} frames, {late} late"
        known = [index for index in found if index >= 0]
        loop = len(frames) - 1
        steps = [(after - before) % loop for before, after in itertools.pairwise(known)]
        skipped = sum(steps) - len(found)
        assert skipped <= most, f"{skipped} frames are missing, {late} late"
