"""G.722 and Opus: the compiled coders and the plain ones, each other and FFmpeg's."""

from array import array

import numpy as np
import pytest

from tests.media.sounds import at_16k, ffmpeg_decoded, ffmpeg_encoded, likeness, voice
from trunkline.media import native
from trunkline.media.native import libopus
from trunkline.media.native.coding import CONCEAL_MOST, G722, OPUS, PACKETS, Coders, NoCodec, OpusSettings
from trunkline.media.native.interface import HEADER, MISSING, SEND_BYTES
from trunkline.rtp import g722, opus

FRAME = 160
RING = 4096


class Legs:
    """Coders with their arrays for two legs, frame by frame."""

    def __init__(self, choice: str, **settings: int) -> None:
        self.coders: Coders = native.load(choice).coders(2, OpusSettings(**settings))
        self.ring = np.full((2, RING), MISSING, np.int16)
        self.concealed = np.zeros(2, np.int32)
        for row in range(2):
            self.coders.open(row)

    def code(self, kind: int, pcm: np.ndarray, *, row: int = 1) -> list[bytes]:
        """The payloads of audio."""
        data, length = np.zeros((2, SEND_BYTES), np.uint8), np.zeros(2, np.int32)
        kinds, types, marker = np.full(2, kind, np.uint8), np.full(2, 9, np.uint8), np.zeros(2, np.uint8)
        zeros, found = np.zeros(2, np.int64), []
        for at in range(0, len(pcm) - FRAME + 1, FRAME):
            frames = np.stack([pcm[at : at + FRAME]] * 2)
            times = np.full(2, at, np.int64)
            self.coders.code(
                np.array([row]), frames, kinds, types, marker, zeros + at // FRAME, times, zeros + 7, data, length
            )
            found.append(data[row, HEADER : length[row]].tobytes())
        return found

    def keep(self, kind: int, payload: bytes, at: int, samples: int = FRAME, *, row: int = 1) -> None:
        data = np.frombuffer(b"head" + payload, np.uint8)[None, :].copy()
        one = np.array([1])
        self.coders.keep(
            one * row, one * 0, one * 4, one * len(payload), one * samples, np.array([kind], np.uint8), one * at, data
        )

    def play(self, at: int, *, row: int = 1) -> np.ndarray:
        """The frame at a timestamp, taken out of the ring."""
        self.coders.play(np.array([row]), np.array([at]), self.ring, self.concealed)
        places = (at + np.arange(FRAME)) % RING
        frame = self.ring[row, places].copy()
        self.ring[row, places] = MISSING
        return frame


@pytest.fixture(params=["compiled", "fallback"])
def legs(request: pytest.FixtureRequest) -> Legs:
    return Legs(request.param)


def through(legs: Legs, kind: int, payloads: list[bytes], lost: set[int] = frozenset(), ahead: int = 2) -> np.ndarray:  # type: ignore[assignment]
    """Play payloads of 20 ms, `ahead` of which are there before the first is due."""
    start, heard = 2**32 - 10 * FRAME, []
    for n in range(len(payloads) + ahead):
        if n < len(payloads) and n not in lost:
            legs.keep(kind, payloads[n], (start + n * FRAME) % 2**32)
        if n >= ahead:
            heard.append(legs.play((start + (n - ahead) * FRAME) % 2**32))
    return np.concatenate(heard)


def test_the_compiled_g722_is_the_plain_one_bit_by_bit() -> None:
    loud = np.random.default_rng(3).integers(-32768, 32767, 1600).astype(np.int16)
    pcm = np.concatenate([voice(0.6), loud, np.zeros(160, np.int16)])
    payloads = Legs("compiled").code(G722, pcm)
    plain = g722.Encoder()
    assert payloads == [plain.encode(array("h", pcm[i : i + FRAME].tobytes())) for i in range(0, len(pcm), FRAME)]
    strange = [np.random.default_rng(4).integers(0, 256, FRAME).astype(np.uint8).tobytes() for _ in range(6)]
    decoder = g722.Decoder()
    expected = np.concatenate([np.array(decoder.decode(p), np.int16) for p in payloads + strange])
    heard = through(Legs("compiled"), G722, payloads + strange)
    assert np.array_equal(heard, np.maximum(expected, MISSING + 1))


def test_g722_is_understood_by_ffmpeg_and_the_other_way(legs: Legs) -> None:
    pcm = voice(1.0)
    heard = ffmpeg_decoded(legs.code(G722, pcm), "g722", rate=16_000)
    assert likeness(heard, pcm)[0] > 0.97
    assert 0.9 < np.abs(heard.astype(float)).mean() / np.abs(pcm.astype(float)).mean() < 1.1
    theirs = through(legs, G722, ffmpeg_encoded(at_16k(pcm), "g722", rate=16_000, frame=320))
    assert likeness(theirs, pcm)[0] > 0.97
    assert not legs.concealed.any()


def test_the_upper_band_of_g722_that_we_send_is_silent(legs: Legs) -> None:
    tone = (8000 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)).astype(np.int16)
    payload = b"".join(legs.code(G722, tone))
    assert {octet >> 6 for octet in payload} == {3}


def test_opus_is_understood_by_ffmpeg_and_the_other_way(legs: Legs) -> None:
    pcm = voice(2.0)
    payloads = legs.code(OPUS, pcm)
    assert all(0 < len(p) <= FRAME and opus.samples(p[0], p[1]) == FRAME for p in payloads)
    assert sum(map(len, payloads)) * 8 / 2 < 30_000
    assert likeness(ffmpeg_decoded(payloads, "opus", rate=48_000), pcm)[0] > 0.93
    theirs = ffmpeg_encoded(pcm, "libopus", rate=8000, frame=160, application="voip", b="24000")
    assert likeness(through(legs, OPUS, theirs), pcm)[0] > 0.93


@pytest.mark.parametrize("duration", ["2.5", "5", "10", "20", "40", "60"])
def test_opus_packets_of_every_length(legs: Legs, duration: str) -> None:
    pcm, size = voice(1.2), int(float(duration) * 8)
    theirs = ffmpeg_encoded(pcm, "libopus", rate=8000, frame=size, frame_duration=duration, b="32000")
    assert [opus.samples(p[0], p[1]) for p in theirs] == [size] * len(theirs)
    start, heard, given = 5000, [], 0
    for n in range(len(pcm) // FRAME):
        while given < len(theirs) and given * size < (n + 4) * FRAME:
            legs.keep(OPUS, theirs[given], start + given * size, size)
            given += 1
        heard.append(legs.play(start + n * FRAME))
    assert not legs.concealed.any()
    assert likeness(np.concatenate(heard), pcm)[0] > 0.93


def test_stereo_opus_is_heard(legs: Legs) -> None:
    pcm = voice(1.0)
    import av

    context = av.CodecContext.create("libopus", "w")
    context.sample_rate, context.layout, context.format, context.options = 8000, "stereo", "s16", {"b": "48000"}
    payloads = []
    for at in range(0, len(pcm), FRAME):
        both = np.repeat(pcm[at : at + FRAME], 2)[None, :]
        frame = av.AudioFrame.from_ndarray(both, format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 8000, at
        payloads += [bytes(packet) for packet in context.encode(frame)]
    assert likeness(through(legs, OPUS, payloads), pcm)[0] > 0.93


def test_a_lost_packet_is_taken_from_the_one_after_it(legs: Legs) -> None:
    """In-band FEC: what was lost is nearer to what was said than what can be made up."""
    pcm = voice(3.0)
    for row in range(2):
        legs.coders.loss(row, 15)
    payloads = legs.code(OPUS, pcm)
    lost = set(range(9, len(payloads) - 2, 7))
    whole = through(Legs("compiled"), OPUS, payloads)
    repaired = through(legs, OPUS, payloads, lost)
    assert not legs.concealed.any()
    made_up = through(Legs("compiled"), OPUS, payloads, lost, ahead=0)

    def off(heard: np.ndarray) -> float:
        frames = [slice(n * FRAME, (n + 1) * FRAME) for n in lost]
        return float(np.mean([np.abs(heard[f].astype(float) - whole[f]).mean() for f in frames]))

    assert off(repaired) < 0.6 * off(made_up)


def test_a_gap_is_concealed_for_a_while_and_then_left(legs: Legs) -> None:
    pcm = voice(1.0)
    payloads = legs.code(OPUS, pcm)
    start, heard = 0, []
    for n in range(40):
        if n < 20:
            legs.keep(OPUS, payloads[n], start + n * FRAME)
        heard.append(legs.play(start + n * FRAME))
        assert bool(legs.concealed[1]) is (20 <= n < 20 + CONCEAL_MOST // FRAME)
    assert not (heard[20] == MISSING).any()
    assert (heard[20 + CONCEAL_MOST // FRAME] == MISSING).all()
    legs.keep(OPUS, payloads[40], 40 * FRAME)
    assert not (legs.play(40 * FRAME) == MISSING).any()


def test_silence_that_the_sender_tells_is_comfort_noise(legs: Legs) -> None:
    """DTX: packets of at most two octets, then none for up to 400 ms."""
    noise = np.random.default_rng(1).normal(0, 60, 8000).astype(np.int16)
    theirs = ffmpeg_encoded(noise, "libopus", rate=8000, frame=160, application="voip", b="16000")
    for n in range(10):
        legs.keep(OPUS, theirs[n], n * FRAME)
        legs.play(n * FRAME)
    legs.keep(OPUS, theirs[10][:1], 10 * FRAME)
    frames = [legs.play(n * FRAME) for n in range(10, 30)]
    assert not any((frame == MISSING).any() for frame in frames)
    assert legs.concealed[1] == FRAME


def test_what_is_no_packet_is_a_lost_one(legs: Legs) -> None:
    payloads = legs.code(OPUS, voice(0.5))
    payloads[10] = b"\xff\xff\xff\x00"
    heard = through(legs, OPUS, payloads)
    assert not (heard == MISSING).any()


def test_any_octets_do_no_harm(legs: Legs) -> None:
    dice = np.random.default_rng(7)
    at = 0
    for n in range(300):
        payload = dice.integers(0, 256, int(dice.integers(1, 400))).astype(np.uint8).tobytes()
        legs.keep(int(dice.choice([G722, OPUS])), payload, int(dice.integers(0, 2**32)) if n % 9 == 0 else at, 160)
        frame = legs.play(at)
        assert len(frame) == FRAME
        at += FRAME


def test_packets_kept_are_bounded_and_the_oldest_go(legs: Legs) -> None:
    payloads = legs.code(G722, voice(2.0))
    for n in range(PACKETS + 10):
        legs.keep(G722, payloads[n], n * FRAME)
    assert (legs.play(5 * FRAME) == MISSING).all()
    assert not (legs.play(10 * FRAME) == MISSING).any()


def test_a_reset_forgets_what_came(legs: Legs) -> None:
    payloads = legs.code(OPUS, voice(0.5))
    legs.keep(OPUS, payloads[0], 0)
    legs.coders.reset(1)
    assert (legs.play(0) == MISSING).all()
    legs.keep(OPUS, payloads[1], 99_000)
    assert not (legs.play(99_000) == MISSING).any()
    for row in (0, 1, 1):
        legs.coders.close(row)
    legs.coders.play(np.array([1]), np.array([0]), legs.ring, legs.concealed)


def test_without_libopus_there_is_g722_still(legs: Legs, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise NoCodec("Opus: libopus is not installed")

    monkeypatch.setattr(libopus, "library", missing)
    coders = native.load("compiled").coders(2, OpusSettings())
    coders.require(G722)
    with pytest.raises(NoCodec):
        coders.require(OPUS)


def test_what_an_opus_packet_holds() -> None:
    assert opus.samples(0x08, 0) == 160  # SILK, 20 ms
    assert opus.samples(0x18, 0) == 480  # SILK, 60 ms
    assert opus.samples(0xE0, 0) == 20  # CELT, 2.5 ms
    assert opus.samples(0x09, 0) == opus.samples(0x0A, 0) == 320
    assert opus.samples(0x0B, 3) == 480
    assert opus.samples(0x1B, 3) == 0  # 180 ms
    assert opus.samples(0x0B, 0) == 0
