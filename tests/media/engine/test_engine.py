"""Legs as a whole: opening, sources of audio, bridges, keys, silence, recordings, RTCP, ends, takeover."""

import numpy as np
import pytest

from tests.media.engine.rig import LEGS, PEER, Peer, Rig, exact, level, sine
from trunkline.media import protocol
from trunkline.media.engine.legs import LEFT
from trunkline.media.engine.record_ring import PAUSE, RESUME, START, STOP
from trunkline.rtp import dtmf, rtcp, telephone_event


@pytest.fixture(params=["compiled", "fallback"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(request.param)


def talk(rig: Rig, *peers: Peer, ticks: int = 6, samples: np.ndarray | None = None) -> None:
    said = sine(440) if samples is None else samples
    for _ in range(ticks):
        for peer in peers:
            peer.speak(said)
        rig.tick()


# -- source and destination


def test_silence_flows_at_once_to_the_address_of_the_sdp(rig: Rig) -> None:
    peer = rig.open()
    rig.tick(3)
    assert len(peer.packets()) == 3
    assert peer.target() == PEER


def test_nothing_is_sent_before_there_is_an_address(rig: Rig) -> None:
    peer = rig.open(remote=None)
    rig.tick(3)
    assert peer.packets() == []
    talk(rig, peer, ticks=1)
    assert peer.target() == PEER


def test_the_first_source_is_latched_to_and_others_are_not_heard(rig: Rig) -> None:
    peer = rig.open(remote=("10.0.0.1", 9))
    talk(rig, peer, ticks=2)
    assert peer.target() == PEER
    stranger = Peer(rig, peer.slot, source=("198.51.100.1", 5), ssrc=99)
    before = rig.engine.receiver.foreign
    talk(rig, stranger, ticks=5)
    assert peer.target() == PEER
    assert rig.engine.receiver.foreign == before + 5
    assert rig.told(protocol.Flowing)[0].leg == "a"


def test_only_allowed_addresses_are_latched_to(rig: Rig) -> None:
    peer = rig.open(remote=("10.0.0.1", 9), latch_from=("192.0.2.1",))
    stranger = Peer(rig, peer.slot, source=("198.51.100.1", 5))
    talk(rig, stranger, ticks=3)
    assert peer.target() == ("10.0.0.1", 9)
    talk(rig, peer, ticks=1)
    assert peer.target() == PEER


def test_without_latching_the_address_of_the_sdp_stays(rig: Rig) -> None:
    peer = rig.open(remote=("192.0.2.1", 5555), latch=False)
    talk(rig, peer)
    assert rig.hears().any()
    assert peer.target() == ("192.0.2.1", 5555)
    stranger = Peer(rig, rig.open("b", latch=False).slot, source=("198.51.100.1", 5))
    talk(rig, stranger)
    assert not rig.hears("b").any()


def modify(**fields: object) -> protocol.Modify:
    given = {"payload_types": {0: "PCMU", 8: "PCMA", 101: "telephone-event"}, "remote": PEER, **fields}
    return protocol.Modify(leg="a", **given)  # type: ignore[arg-type]


def test_a_reinvite_moves_the_audio_and_keeps_the_stream(rig: Rig) -> None:
    peer = rig.open()
    talk(rig, peer)
    before = peer.packets()[-1]
    rig.do(modify(remote=("203.0.113.9", 7000)))
    rig.tick()
    after = peer.packets()[-1]
    assert peer.target() == ("203.0.113.9", 7000)
    assert (after.ssrc, after.sequence) == (before.ssrc, (before.sequence + 1) & 0xFFFF)
    moved = Peer(rig, peer.slot, source=("203.0.113.9", 7001), ssrc=5)
    talk(rig, moved)
    assert peer.target() == ("203.0.113.9", 7001)
    assert rig.hears().any()


@pytest.mark.parametrize("heard_ticks", [6, 0])
def test_who_has_moved_away_is_not_latched_to_though_it_talks_on(rig: Rig, heard_ticks: int) -> None:
    """As the phone whose place another one took, behind the same address, until its BYE reaches it."""
    peer = rig.open(latch_from=(PEER[0],))
    talk(rig, peer, ticks=heard_ticks)
    successor = Peer(rig, peer.slot, source=(PEER[0], PEER[1] + 20), ssrc=5)
    rig.do(modify(remote=successor.source, latch_from=(PEER[0],)))
    talk(rig, peer, ticks=3)
    assert peer.target() == successor.source
    talk(rig, successor, ticks=5)
    assert peer.target() == successor.source
    assert rig.hears().any()


@pytest.mark.parametrize("silent_ticks", [1, LEFT])
def test_who_moves_away_and_back_is_latched_to(rig: Rig, silent_ticks: int) -> None:
    """At once where its description says so, else (the port before its NAT is another one) soon."""
    peer = rig.open(remote=("10.0.0.1", 9))
    talk(rig, peer)
    rig.do(modify(remote=("10.0.0.2", 9)))
    rig.tick(silent_ticks)
    rig.do(modify(remote=("10.0.0.1", 9) if silent_ticks == 1 else ("10.0.0.3", 9)))
    talk(rig, peer, ticks=2)
    assert peer.target() == PEER


def test_a_reinvite_with_the_same_address_keeps_what_was_latched_to(rig: Rig) -> None:
    peer = rig.open(remote=("10.0.0.1", 9))
    talk(rig, peer)
    rig.do(modify(remote=("10.0.0.1", 9), codec="PCMA", send_payload_type=8))
    rig.tick()
    assert peer.target() == PEER
    assert peer.packets()[-1].payload_type == 8


def test_directions_stop_sending_and_hearing(rig: Rig) -> None:
    peer = rig.open()
    talk(rig, peer)
    peer.packets()
    rig.do(modify(direction="inactive"))
    talk(rig, peer, ticks=3)
    assert peer.packets() == []
    assert not rig.hears().any()
    rig.do(modify(direction="sendonly"))
    talk(rig, peer, ticks=3)
    assert len(peer.packets()) == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"codec": "GSM"},
        {"remote": ("host.example", 9)},
        {"remote": ("10.0.0.1", 0)},
        {"remote": ("2001:db8::1", 9)},
        {"send_payload_type": 128},
        {"payload_types": {200: "PCMU"}},
        {"leg": ""},
        {"leg": "x" * 65},
        {"cname": "x" * 3000},
        {"slot": 99},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_legs_that_cannot_be_are_refused_and_leave_nothing(rig: Rig, fields: dict[str, object]) -> None:
    slot = rig.engine.slots.leased()[0][0]
    rig.do(protocol.Open(**{"leg": "a", "slot": slot, "remote": PEER, **fields}))  # type: ignore[arg-type]
    assert [e.what for e in rig.told(protocol.Refused)] == ["open"]
    assert rig.engine.legs == {}
    assert not rig.state.active.any()
    rig.tick(2)


def test_garbage_on_the_wire_does_no_harm(rig: Rig) -> None:
    peer = rig.open()
    talk(rig, peer)
    generator = np.random.default_rng(5)
    for size in (0, 1, 11, 12, 13, 40, 172, 700):
        for first in (0x00, 0x80, 0x8F, 0x90, 0xA0, 0xBF):
            data = bytearray(generator.integers(0, 256, size, np.uint8).tobytes())
            if data:
                data[0] = first
            if size > 1:
                data[1] = 101 if size % 2 else 0
            rig.deliver(peer.slot, bytes(data))
            rig.deliver(peer.slot, bytes(data), rtcp=True)
        rig.tick()
    talk(rig, peer, ticks=30)
    assert rig.hears().any()


# -- bridges


def test_bridged_legs_hear_each_other_across_codecs(rig: Rig) -> None:
    a, b = rig.open("a"), rig.open("b", codec="PCMA", send_payload_type=8)
    rig.do(protocol.Bridge(a="a", b="b"))
    talk(rig, a, ticks=10)
    assert np.array_equal(b.heard(8)[-160:], exact(exact(sine(440)), 8))
    assert not a.heard().any()
    rig.do(protocol.Play(leg="b", play="p", items=[protocol.Silence(ms=1000)]))
    talk(rig, a, b, ticks=3)
    assert np.abs(b.heard(8)[-160:]).max() <= 8
    assert a.heard().any()
    rig.do(protocol.Stop(leg="b"))
    talk(rig, a, b, ticks=3)
    assert b.heard(8)[-160:].any()
    rig.do(protocol.Unbridge(leg="a"))
    talk(rig, a, b, ticks=2)
    assert np.abs(b.heard(8)[-160:]).max() <= 8
    assert not a.heard()[-160:].any()


def test_a_bridge_ends_with_a_leg(rig: Rig) -> None:
    a, b = rig.open("a"), rig.open("b")
    rig.do(protocol.Bridge(a="a", b="b"))
    talk(rig, a, b)
    rig.do(protocol.Close(leg="a"))
    talk(rig, b, ticks=2)
    assert not b.heard()[-160:].any()
    assert rig.engine.snapshot()[0].peer == ""


# -- keys


def test_keys_in_the_audio_are_heard_where_no_events_come(rig: Rig) -> None:
    peer = rig.open()
    audio = np.concatenate([level(0, 1600), dtmf.key("7", 100), level(0, 1600)])
    for at in range(0, len(audio), 160):
        talk(rig, peer, ticks=1, samples=audio[at : at + 160])
    assert [(e.digit, e.how) for e in rig.told(protocol.Digit)] == [("7", "in-band")]


@pytest.mark.parametrize("first", ["event", "tone"])
def test_a_key_in_both_forms_is_one_press(rig: Rig, first: str) -> None:
    peer = rig.open()
    talk(rig, peer, ticks=5, samples=level(0))
    tone = np.concatenate([dtmf.key("7", 100), level(0, 800)])
    events_at = 0 if first == "event" else 6
    start = peer.timestamp
    for i, at in enumerate(range(0, len(tone), 160)):
        if events_at <= i < events_at + 4:
            now = peer.timestamp
            peer.timestamp = start + events_at * 160
            peer.send(telephone_event.Payload(7, False, 160 * (i - events_at + 1)).encode(), 101)
            peer.timestamp = now
        talk(rig, peer, ticks=1, samples=tone[at : at + 160])
    assert [e.digit for e in rig.told(protocol.Digit)] == ["7"]


def test_in_band_keys_can_be_turned_off() -> None:
    rig = Rig(dtmf_in_band=False)
    peer = rig.open()
    audio = dtmf.key("7", 200)
    for at in range(0, len(audio), 160):
        talk(rig, peer, ticks=1, samples=audio[at : at + 160])
    assert rig.told(protocol.Digit) == []


def test_keys_of_a_new_stream_are_heard(rig: Rig) -> None:
    peer = rig.open()
    peer.timestamp = 4_000_000_000
    peer.send(telephone_event.Payload(1, True, 480).encode(), 101)
    rig.tick()
    peer.timestamp = 3_000_000_000
    peer.send(telephone_event.Payload(2, True, 480).encode(), 101)
    rig.tick()
    other = Peer(rig, peer.slot, ssrc=5)
    other.timestamp = 2_999_990_000
    for _ in range(2):
        other.send(telephone_event.Payload(3, True, 480).encode(), 101)
    rig.tick()
    assert [e.digit for e in rig.told(protocol.Digit)] == ["1", "2", "3"]


def test_a_flood_leaves_other_legs_their_turn() -> None:
    rig = Rig()
    peers = [rig.open(f"leg{i}") for i in range(LEGS)]
    rig.engine._batch.most = 20
    for _ in range(16):
        for peer in peers:
            peer.speak(sine(440))
    rig.tick(12)
    assert [int(rig.state.received[rig.row(f"leg{i}")]) for i in range(LEGS)] == [16] * LEGS
    assert not any(rig.wire.inbox.values())


# -- silence and time-outs


def test_silence_and_speech_are_told(rig: Rig) -> None:
    peer = rig.open()
    rig.do(protocol.Detect(leg="a", silence_ms=200))
    talk(rig, peer, ticks=20)
    talk(rig, peer, ticks=20, samples=level(0))
    talk(rig, peer, ticks=20)
    told = rig.told(protocol.Silent)
    assert [e.silent for e in told] == [False, True, False]
    assert told[1].ms == 200
    rig.do(protocol.Detect(leg="a"))
    talk(rig, peer, ticks=30, samples=level(0))
    assert rig.told(protocol.Silent) == []


def test_a_leg_that_falls_silent_times_out_once_and_not_on_hold(rig: Rig) -> None:
    peer = rig.open(rtp_timeout_ms=1000)
    talk(rig, peer)
    rig.tick(45)
    assert rig.told(protocol.TimedOut) == []
    rig.tick(40)
    assert len(rig.told(protocol.TimedOut)) == 1
    talk(rig, peer, ticks=20)
    rig.do(modify(direction="sendonly"))
    rig.tick(100)
    assert rig.told(protocol.TimedOut) == []
    rig.do(modify())
    for _ in range(8):
        rig.deliver(peer.slot, rtcp.compound(77, "x", sender=None), rtcp=True)
        rig.tick(20)
    assert rig.told(protocol.TimedOut) == []


# -- recordings


def record(rig: Rig, **fields: object) -> None:
    rig.do(protocol.Record(**{"recording": "RE1", "leg": "a", "folder": "f", **fields}))  # type: ignore[arg-type]


def controls(rig: Rig) -> list[tuple[int, int]]:
    return [(int(e["kind"]), int(e["sample"])) for e in rig.ring.take() if e["kind"]]


def test_both_tracks_are_recorded_by_sample(rig: Rig) -> None:
    a, b = rig.open("a"), rig.open("b")
    rig.do(protocol.Bridge(a="a", b="b"))
    talk(rig, a, ticks=6)
    record(rig)
    for _ in range(3):
        a.speak(sine(440))
        b.speak(sine(1000))
        rig.tick()
    rig.tick(1, skip=2)
    frames = rig.recorded()
    assert frames["sample"].tolist() == [0, 160, 320, 5 * 160]
    assert np.array_equal(frames[0]["inbound"], exact(sine(440)))
    assert np.array_equal(frames[2]["outbound"], exact(sine(1000)))
    rig.do(protocol.StopRecord(recording="RE1"))
    rig.tick(3)
    assert controls(rig) == [(START, 0), (STOP, 6 * 160)]


def test_a_beep_comes_first(rig: Rig) -> None:
    peer = rig.open()
    record(rig, beep=True)
    rig.tick(25)
    assert len(rig.recorded()) == 0
    assert np.abs(peer.heard()[:4000]).max() > 1000
    rig.tick(5)
    assert len(rig.recorded()) == 5
    assert not peer.heard()[160:].any()


def test_pauses_leave_out_or_fill_with_silence(rig: Rig) -> None:
    peer = rig.open()
    talk(rig, peer)
    record(rig)
    talk(rig, peer, ticks=2)
    rig.do(protocol.PauseRecord(recording="RE1"))
    talk(rig, peer, ticks=2)
    rig.do(protocol.ResumeRecord(recording="RE1"))
    talk(rig, peer, ticks=1)
    rig.do(protocol.PauseRecord(recording="RE1", mode="silence"))
    talk(rig, peer, ticks=2)
    frames = rig.recorded()
    assert frames["sample"].tolist() == [0, 160, 320, 480, 640]
    assert [bool(f["inbound"].any()) for f in frames] == [True, True, True, False, False]
    assert controls(rig) == [(START, 0), (PAUSE, 320), (RESUME, 320), (PAUSE, 480)]


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"max_ms": 100}, "max-length"), ({"silence_ms": 200}, "silence"), ({"finish_on": "#"}, "digit")],
)
def test_recordings_end_by_themselves(rig: Rig, fields: dict[str, object], why: str) -> None:
    peer = rig.open()
    record(rig, **fields)
    talk(rig, peer, ticks=4)
    if why == "digit":
        peer.send(telephone_event.Payload(11, False, 480).encode(), 101)
    rig.tick(20)
    (stop,) = [e for e in rig.ring.take() if e["kind"] == STOP]
    assert rig.ring.details(stop)["why"] == why
    assert rig.ring.details(stop)["digit"] == ("#" if why == "digit" else "")


def test_recorded_is_told_when_the_recorder_is_done(rig: Rig) -> None:
    rig.open()
    record(rig)
    rig.tick(3)
    rig.do(protocol.Close(leg="a"))
    assert [e.leg for e in rig.told(protocol.Closed)] == ["a"]
    rig.tick(20)
    assert rig.told(protocol.Recorded) == []
    (active,) = rig.ring.active()
    rig.ring.complete(
        active.slot, active.generation, {"duration_ms": 60, "file": "f.wav", "why": "closed", "gaps": [[0, 20]]}
    )
    rig.tick(10)
    (recorded,) = rig.told(protocol.Recorded)
    assert (recorded.recording, recorded.leg, recorded.why, recorded.duration_ms) == ("RE1", "a", "closed", 60)
    assert recorded.gaps == [(0, 20)]
    assert rig.ring.active() == []


def test_a_recording_of_no_leg_fails(rig: Rig) -> None:
    record(rig)
    assert [e.why for e in rig.told(protocol.Recorded)] == ["failed"]


# -- RTCP and quality


def test_reports_tell_loss_and_measure_the_round_trip(rig: Rig) -> None:
    peer = rig.open(cname="me@here")
    talk(rig, peer)
    peer.sequence += 2
    peer.timestamp += 320
    talk(rig, peer, ticks=300)
    out = rig.wire.outbox[2 * peer.slot + 1]
    data, target = out[-1]
    assert target == ("192.0.2.1", 4001)
    assert b"me@here" in data
    report = rtcp.parse(data)
    assert report.sender is not None
    assert report.sender.packets <= 306
    assert (report.blocks[0].ssrc, report.blocks[0].lost) == (77, 2)
    own = report.ssrc
    rig.deliver(peer.slot, rtcp.compound(77, "x", sender=None, blocks=(rtcp.Block(own, 0, 5),)), rtcp=True)
    rig.tick(30)
    assert rig.state.remote_lost[rig.row()] == 5
    quality = rig.told(protocol.Quality)
    assert quality
    assert quality[-1].numbers["lost"] == 2
    assert 3.5 < quality[-1].numbers["mos"] < 4.5
    rig.do(protocol.Close(leg="a"))
    assert rtcp.parse(rig.wire.outbox[2 * peer.slot + 1][-1][0]).bye
    assert rig.told(protocol.Closed)[0].numbers["remote_lost"] == 5


def test_rtcp_of_strangers_is_ignored(rig: Rig) -> None:
    peer = rig.open()
    talk(rig, peer)
    own = int(rig.state.own_ssrc[rig.row()])
    data = rtcp.compound(77, "x", sender=None, blocks=(rtcp.Block(own, 0, 5),))
    rig.deliver(peer.slot, data, ("198.51.100.7", 1), rtcp=True)
    rig.tick(30)
    assert rig.state.remote_lost[rig.row()] == 0


def test_jitter_is_measured_by_arrival_times(rig: Rig) -> None:
    peer = rig.open()
    for i in range(100):
        peer.speak(level(0))
        data, source, at = rig.wire.inbox[2 * peer.slot].pop()
        rig.wire.inbox[2 * peer.slot].append((data, source, at + (i % 2) * 10_000_000))
        rig.tick()
    numbers = rig.engine.reports.quality(rig.row())
    assert 9 < numbers["jitter_ms"] < 10.5


# -- ends and takeover


def test_a_slot_rests_after_its_leg(rig: Rig) -> None:
    peer = rig.open()
    rig.do(protocol.Close(leg="a"))
    assert rig.told(protocol.Closed)
    rig.tick(5 * 50)
    assert peer.slot not in [slot for slot, _ in rig.engine.slots.lease(LEGS)]
    rig.tick(20)
    for _ in range(LEGS + 4):
        rig.engine.slots.lease(LEGS)
    assert rig.state.slot_state[peer.slot] in (0, 1)


def test_no_more_legs_than_allowed(rig: Rig) -> None:
    for i in range(LEGS):
        rig.open(f"leg{i}")
    assert rig.engine.slots.leased() == []
    assert rig.engine.slots.lease(LEGS) == []


def test_what_waited_in_a_socket_before_the_leg_is_not_heard(rig: Rig) -> None:
    slot = rig.engine.slots.leased()[0][0]
    Peer(rig, slot).speak(sine(440))
    peer = rig.open()
    assert peer.slot == slot
    rig.tick()
    assert rig.told(protocol.Flowing) == []


def test_commands_that_come_twice_do_no_harm(rig: Rig) -> None:
    peer = rig.open()
    rig.do(protocol.Open(leg="a", slot=peer.slot, remote=PEER))
    record(rig)
    record(rig)
    assert rig.told(protocol.Refused) == []
    assert len(rig.ring.active()) == 1


def test_a_successor_goes_on_with_everything(rig: Rig) -> None:
    a, b = rig.open("a"), rig.open("b")
    rig.do(protocol.Bridge(a="a", b="b"))
    record(rig)
    talk(rig, a, b, ticks=6)
    before, done = a.packets()[-1], rig.state.done
    rig.replace_process()
    assert rig.state.done == done
    talk(rig, a, b, ticks=4)
    after = a.packets()
    assert (after[0].ssrc, after[0].sequence) == (before.ssrc, (before.sequence + 1) & 0xFFFF)
    assert (after[0].timestamp - before.timestamp) & 0xFFFFFFFF == 160
    assert np.array_equal(b.heard()[-160:], exact(sine(440)))
    assert np.diff(rig.recorded()["sample"].astype(int)).tolist() == [160] * 9
    states = {state.leg: state for state in rig.engine.snapshot()}
    assert states["a"].peer == "b"
    assert states["a"].recordings == ["RE1"]
    rig.do(protocol.StopRecord(recording="RE1"))
    assert rig.told(protocol.Refused) == []
