"""Legs with G.722 and Opus in the engine: audio both ways, loss, clocks, keys, take-over."""

from itertools import pairwise

import numpy as np
import pytest

from tests.media.engine.rig import PEER, Peer, Rig, exact
from tests.media.sounds import at_16k, ffmpeg_decoded, ffmpeg_encoded, likeness, voice
from trunkline.media import protocol
from trunkline.media.engine import receive
from trunkline.media.native import libopus
from trunkline.media.native.coding import NoCodec
from trunkline.rtp import g711, rtcp
from trunkline.rtp.telephone_event import Payload, parse

EVENTS = {101: "telephone-event", 102: "telephone-event/48000"}
G722 = {"codec": "G722", "send_payload_type": 9, "payload_types": {9: "G722", 0: "PCMU", **EVENTS}}
OPUS = {
    "codec": "opus", "send_payload_type": 111, "dtmf_payload_type": 102,
    "payload_types": {111: "opus", 0: "PCMU", **EVENTS},
}  # fmt: skip
STEP = {9: 160, 111: 960}
RATES = {9: ("g722", 16_000), 111: ("opus", 48_000)}


@pytest.fixture(params=["compiled", "fallback"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(request.param)


def payloads(pcm: np.ndarray, number: int) -> list[bytes]:
    """Audio in packets of 20 ms, by FFmpeg."""
    if number == 9:
        return ffmpeg_encoded(at_16k(pcm), "g722", rate=16_000, frame=320)
    options = {"application": "voip", "b": "24000", "fec": "1", "packet_loss": "10"}
    return ffmpeg_encoded(pcm, "libopus", rate=8000, frame=160, **options)


def say(peer: Peer, payload: bytes, number: int, *, lost: bool = False) -> None:
    if lost:
        peer.sequence += 1
    else:
        peer.send(payload, number)
    peer.timestamp += STEP[number]


def hear(rig: Rig, peer: Peer, packets: list[bytes], number: int, lost: set[int] = frozenset()) -> np.ndarray:  # type: ignore[assignment]
    heard = []
    for n, payload in enumerate(packets):
        say(peer, payload, number, lost=n in lost)
        rig.tick()
        heard.append(rig.hears())
    return np.concatenate(heard)


@pytest.mark.parametrize(("number", "fields"), [(9, G722), (111, OPUS)])
def test_what_ffmpeg_says_is_heard_across_the_wrap_without_loss_or_delay(
    rig: Rig, number: int, fields: dict[str, object]
) -> None:
    pcm = voice(2.0)
    peer = rig.open(**fields)
    heard = hear(rig, peer, payloads(pcm, number), number)
    like, lag = likeness(heard, pcm)
    assert like > 0.93
    assert lag <= 3 * 160 + 60
    assert receive.lost(rig.state, rig.row()) == 0
    assert rig.state.late[rig.row()] == 0
    assert rig.state.max_jitter[rig.row()] < 2


@pytest.mark.parametrize(("number", "fields"), [(9, G722), (111, OPUS)])
def test_what_is_bridged_to_it_is_understood_by_ffmpeg(rig: Rig, number: int, fields: dict[str, object]) -> None:
    pcm = exact(voice(2.0))
    near, far = rig.open("a"), rig.open("b", **fields)
    rig.do(protocol.Bridge(a="a", b="b"))
    for at in range(0, len(pcm), 160):
        near.speak(pcm[at : at + 160])
        rig.tick()
    sent = far.packets()
    assert {p.payload_type for p in sent} == {number}
    steps = {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(sent)}
    assert steps == {STEP[number]}
    assert [p.marker for p in sent[:2]] == [True, False]
    codec, rate = RATES[number]
    like, lag = likeness(ffmpeg_decoded([p.payload for p in sent], codec, rate=rate), pcm)
    assert like > 0.93
    assert lag <= 3 * 160 + 60


def test_long_packets_of_a_peer_that_does_not_care_for_ours_are_heard(rig: Rig) -> None:
    """Fullband, 60 ms, more than 128 kbit/s."""
    pcm = voice(1.8)
    options = {"frame_duration": "60", "b": "160000", "vbr": "off"}
    packets = ffmpeg_encoded(np.repeat(pcm, 6), "libopus", rate=48_000, frame=2880, **options)
    assert min(map(len, packets)) > 1000
    peer, heard = rig.open(**OPUS), []
    for payload in packets:
        peer.send(payload, 111)
        peer.timestamp += 2880
        for _ in range(3):
            rig.tick()
            heard.append(rig.hears())
    assert likeness(np.concatenate(heard), pcm)[0] > 0.9


def test_opus_and_g722_hear_each_other(rig: Rig) -> None:
    pcm = voice(2.0)
    near, far = rig.open("a", **OPUS), rig.open("b", **G722)
    rig.do(protocol.Bridge(a="a", b="b"))
    for payload in payloads(pcm, 111):
        say(near, payload, 111)
        rig.tick()
    said = [p.payload for p in far.packets()]
    assert likeness(ffmpeg_decoded(said, "g722", rate=16_000), pcm)[0] > 0.9


def test_a_skipped_tick_moves_the_timestamp_by_its_samples(rig: Rig) -> None:
    peer = rig.open(**OPUS)
    rig.tick(2)
    rig.tick(1, skip=3)
    sent = peer.packets()
    assert (sent[2].timestamp - sent[1].timestamp) & 0xFFFFFFFF == 4 * 960
    assert sent[2].marker


def test_single_losses_of_opus_are_not_heard(rig: Rig) -> None:
    """The next packet brings them: nothing is concealed, and the audio is near to that without loss."""
    pcm = voice(3.0)
    packets = payloads(pcm, 111)
    lost = set(range(10, len(packets) - 5, 9))
    heard = hear(rig, rig.open(**OPUS), packets, 111, lost)
    assert likeness(heard, pcm)[0] > 0.9
    assert receive.lost(rig.state, rig.row()) == len(lost)
    silent = [n for n in range(5, len(packets)) if not heard[n * 160 : (n + 1) * 160].any()]
    assert not silent


def test_losses_of_g722_are_concealed_and_the_decoder_recovers(rig: Rig) -> None:
    pcm = voice(3.0)
    packets = payloads(pcm, 9)
    heard = hear(rig, rig.open(**G722), packets, 9, set(range(10, 100, 9)))
    assert likeness(heard, pcm)[0] > 0.75
    after = slice(110 * 160, 140 * 160)
    assert likeness(heard[after.start : after.stop], pcm[109 * 160 : 136 * 160])[0] > 0.9


def test_a_pause_of_dtx_neither_deepens_the_buffer_nor_is_lost(rig: Rig) -> None:
    pcm = voice(1.0)
    packets = payloads(pcm, 111)
    peer = rig.open(**OPUS)
    hear(rig, peer, packets[:20], 111)
    depth = int(rig.state.depth[rig.row()])
    for _ in range(3):
        say(peer, packets[20][:1], 111)
        peer.timestamp += 19 * 960
        rig.tick(20)
    hear(rig, peer, packets[20:], 111)
    assert int(rig.state.depth[rig.row()]) == depth
    assert receive.lost(rig.state, rig.row()) == 0
    assert rig.state.late[rig.row()] == 0


def test_a_peer_may_change_between_codecs_of_both_clocks(rig: Rig) -> None:
    """Opus, then G.711 on the same stream with the timestamps of its own clock, and back."""
    pcm = voice(3.0)
    peer = rig.open(**OPUS)
    packets = payloads(pcm, 111)
    heard = [hear(rig, peer, packets[:50], 111)]
    for n in range(50, 100):
        peer.speak(pcm[n * 160 : (n + 1) * 160])
        rig.tick()
        heard.append(rig.hears())
    heard.append(hear(rig, peer, packets[100:], 111))
    audio = np.concatenate(heard)
    assert receive.lost(rig.state, rig.row()) == 0
    middle = audio[55 * 160 : 98 * 160]
    assert likeness(middle, pcm[54 * 160 : 94 * 160])[0] > 0.9
    assert likeness(audio[105 * 160 :], pcm[104 * 160 : 146 * 160])[0] > 0.9


def test_keys_of_both_clocks_are_heard(rig: Rig) -> None:
    peer = rig.open(**OPUS)
    say(peer, payloads(voice(0.2), 111)[0], 111)
    rig.tick()
    for number, scale in ((102, 6), (101, 1)):
        for n in range(1, 6):
            peer.send(Payload(5, n == 5, n * 160 * scale).encode(), number)
            rig.tick()
        peer.timestamp += 10_000
    # Of the clock of Opus, 20 ms are 960 units: too short for a key.
    peer.send(Payload(7, True, 960).encode(), 102)
    rig.tick()
    assert [event.digit for event in rig.told(protocol.Digit)] == ["5", "5"]


@pytest.mark.parametrize("on_ms", [100, 3000])
def test_our_keys_last_as_long_as_they_should_in_the_clock_of_opus(rig: Rig, on_ms: int) -> None:
    peer = rig.open(**OPUS)
    rig.tick()
    rig.do(protocol.Play(leg="a", play="k", items=[protocol.Digits(digits="4", on_ms=on_ms, off_ms=100)]))
    rig.tick(on_ms // 20 + 12)
    events = [(p, parse(p.payload)) for p in peer.packets() if p.payload_type == 102]
    assert events[0][0].marker
    assert not any(p.marker for p, _ in events[1:])
    segments = dict.fromkeys(p.timestamp for p, _ in events)
    longest = {at: max(e.duration for p, e in events if p.timestamp == at and e) for at in segments}
    assert sum(longest.values()) == on_ms * 48
    starts = list(segments)
    for before, after in pairwise(starts):
        assert (after - before) & 0xFFFFFFFF == longest[before]
    assert [e.end for _, e in events if e][-3:] == [True] * 3
    assert sum(e.end for _, e in events if e) == 3


def test_reports_are_in_the_clock_of_the_codec(rig: Rig) -> None:
    peer = rig.open(**OPUS)
    packets = payloads(voice(1.0), 111)
    for n, payload in enumerate(packets[:40]):
        say(peer, payload, 111)
        rig.tick(1 + n % 2 * 2 if n < 20 else 1)
    row = rig.row()
    report = rtcp.parse(rig.engine.reports.make(row, "x"))
    assert report.sender is not None
    assert report.sender.timestamp == int(rig.state.timestamp[row])
    jitter = float(rig.state.jitter[row])
    assert jitter > 10
    assert report.blocks[0].jitter == int(jitter * 6)
    assert rig.engine.reports.quality(row)["codec"] == "opus"


def test_what_the_peer_loses_is_a_hint_to_opus(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = rig.open(**OPUS)
    say(peer, payloads(voice(0.2), 111)[0], 111)
    rig.tick()
    row, hints = rig.row(), []
    monkeypatch.setattr(rig.engine.codecs.coders, "loss", lambda row, percent: hints.append((row, percent)))
    for fraction in (51, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0):
        block = rtcp.Block(int(rig.state.own_ssrc[row]), fraction_lost=fraction)
        rig.deliver(peer.slot, rtcp.compound(77, "p", sender=None, blocks=(block,)), (PEER[0], PEER[1] + 1), rtcp=True)
        rig.tick(30)
    assert hints[0] == (row, 20)
    assert hints[1][1] == 15
    assert hints[-1] == (row, 1)


@pytest.mark.parametrize(("number", "fields"), [(9, G722), (111, OPUS)])
def test_a_successor_goes_on_with_fresh_codecs_and_a_marker(rig: Rig, number: int, fields: dict[str, object]) -> None:
    pcm = voice(3.0)
    packets = payloads(pcm, number)
    peer = rig.open(**fields)
    hear(rig, peer, packets[:50], number)
    before = peer.packets()[-1]
    rig.replace_process()
    heard = hear(rig, peer, packets[50:], number)
    assert likeness(heard[10 * 160 :], pcm[58 * 160 : 147 * 160])[0] > 0.85
    first, second = peer.packets()[:2]
    assert (first.marker, second.marker) == (True, False)
    assert (first.sequence - before.sequence) & 0xFFFF == 1
    assert (first.ssrc, first.timestamp) == (before.ssrc, (before.timestamp + STEP[number]) & 0xFFFFFFFF)


def test_a_reinvite_changes_the_codec(rig: Rig) -> None:
    peer = rig.open()
    rig.tick(3)
    before = peer.packets()[-1]
    rig.do(protocol.Modify(leg="a", remote=PEER, relatch=False, **OPUS))
    rig.tick(3)
    sent = peer.packets()
    assert {p.payload_type for p in sent} == {111}
    assert (sent[0].sequence - before.sequence) & 0xFFFF == 1
    rig.do(protocol.Modify(leg="a", remote=PEER, relatch=False, payload_types={0: "PCMU"}))
    rig.tick(3)
    assert [len(p.payload) for p in peer.packets()] == [160] * 3


def test_a_row_that_is_used_again_begins_with_nothing(rig: Rig) -> None:
    packets = payloads(voice(1.0), 111)
    hear(rig, rig.open(**OPUS), packets[:20], 111)
    rig.do(protocol.Close(leg="a"))
    peer = rig.open("b", **OPUS)
    rig.tick(3)
    assert not rig.hears("b").any()
    say(peer, packets[0], 111)
    rig.tick(5)
    assert rig.state.started[rig.row("b")]


def test_without_libopus_such_a_leg_is_refused(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise NoCodec("Opus: libopus is not installed")

    monkeypatch.setattr(libopus, "library", missing)
    slot = rig.engine.slots.leased()[0][0]
    rig.do(protocol.Open(leg="a", slot=slot, remote=PEER, **OPUS))
    assert [event.reason for event in rig.told(protocol.Refused)] == ["Opus: libopus is not installed"]
    assert "a" not in rig.engine.legs
    rig.open("b", **G722)
    assert not rig.told(protocol.Refused)


def test_legs_of_g711_pass_by(rig: Rig) -> None:
    """While there are only such, nothing of this is touched."""
    peer = rig.open()
    peer.send(bytes([g711.SILENCE[0]]) * 160, 0)
    rig.tick(3)
    assert rig.engine.codecs.used is False
    assert rig.engine.codecs._coders is None
