from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.media.engine.rig import PEER, Peer, Rig, exact, ramp
from trunkline.media import protocol
from trunkline.media.engine.player import MAX_ITEMS
from trunkline.media.protocol import Audio, Digits, Silence, Tone
from trunkline.rtp import telephone_event
from trunkline.rtp.dtmf import Detector


@pytest.fixture(params=["compiled", "fallback"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return Rig(request.param)


def prompt(folder: Path, name: str, samples: np.ndarray) -> Audio:
    path = folder / name
    path.write_bytes(samples.astype("<i2").tobytes())
    return Audio(path=str(path))


def play(rig: Rig, *items: protocol.Item, **fields: object) -> None:
    rig.do(protocol.Play(leg="a", play=str(fields.pop("play", "p")), items=list(items), **fields))  # type: ignore[arg-type]


def heard_until_end(rig: Rig, peer: Peer, most: int = 500) -> tuple[np.ndarray, protocol.Played]:
    pieces = []
    for _ in range(most):
        rig.tick()
        ended = rig.told(protocol.Played)
        pieces.append(peer.heard())
        if ended:
            return np.concatenate(pieces), ended[0]
    raise AssertionError("it does not end")


def test_items_follow_each_other_without_a_gap(rig: Rig, tmp_path: Path) -> None:
    peer = rig.open()
    first, second = ramp(0, 1003), ramp(5000, 250)
    play(rig, prompt(tmp_path, "1", first), Silence(ms=10), prompt(tmp_path, "2", second), loop=2)
    audio, played = heard_until_end(rig, peer)
    once = np.concatenate([first, np.zeros(80, np.int16), second])
    expected = exact(np.concatenate([once, once]))
    assert np.array_equal(audio[: len(expected)], expected)
    assert not audio[len(expected) :].any()
    assert (played.play, played.why, played.item) == ("p", "end", 2)


def test_playing_begins_and_is_told_where_asked(rig: Rig, tmp_path: Path) -> None:
    peer = rig.open()
    item = prompt(tmp_path, "1", ramp(0, 1600))
    play(rig, Silence(ms=100), item, start_item=1, start_ms=50)
    audio, _ = heard_until_end(rig, peer)
    assert np.array_equal(audio[:1200], ramp(400, 1200))
    item.start_ms = 100
    play(rig, item, play="q")
    rig.tick(2)
    assert np.array_equal(peer.heard()[-320:], ramp(800, 320))
    rig.do(protocol.Stop(leg="a"))
    (stopped,) = rig.told(protocol.Played)
    assert (stopped.play, stopped.why, stopped.item, stopped.offset_ms) == ("q", "stopped", 0, 140)


def test_a_new_play_takes_the_place_of_the_old_one_and_the_same_one_goes_on(rig: Rig) -> None:
    rig.open()
    play(rig, Silence(ms=1000), play="p")
    rig.tick(3)
    play(rig, Silence(ms=1000), play="p")
    assert rig.told(protocol.Played) == []
    assert rig.state.offset[rig.row()] == 480
    play(rig, Silence(ms=1000), play="q")
    assert [(e.play, e.why) for e in rig.told(protocol.Played)] == [("p", "stopped")]


def test_tones_keep_their_cadence_and_end_in_time(rig: Rig) -> None:
    peer = rig.open()
    play(rig, Tone(parts=[((440, 480), 100), ((), 60)], ms=480))
    audio, played = heard_until_end(rig, peer)
    loud = [np.abs(audio[i : i + 160]).max() > 1000 for i in range(0, 3840, 160)]
    assert loud == ([True] * 5 + [False] * 3) * 3
    assert played.why == "end"


def test_a_continuous_tone_has_no_clicks(rig: Rig) -> None:
    peer = rig.open()
    play(rig, Tone(parts=[((350, 440), 0)]))
    rig.tick(120)
    audio = peer.heard().astype(int)
    assert np.abs(np.diff(audio[160:])).max() < 3500
    assert not rig.told(protocol.Played)


def test_a_file_that_is_not_there_ends_the_play_as_failed(rig: Rig, tmp_path: Path) -> None:
    rig.open()
    play(rig, Audio(path=str(tmp_path / "none")))
    rig.tick()
    assert [e.why for e in rig.told(protocol.Played)] == ["failed"]


@pytest.mark.parametrize(
    "fields",
    [
        {"items": []},
        {"items": [Silence(ms=1)] * (MAX_ITEMS + 1)},
        {"items": [Silence(ms=-1)]},
        {"items": [Digits(digits="1x")]},
        {"items": [Digits(digits="1", on_ms=0)]},
        {"items": [Silence(ms=1)], "start_item": 1},
        {"items": [Audio(path="x" * 3000)] * 20},
    ],
    ids=["none", "many", "negative", "letters", "times", "place", "long"],
)
def test_what_cannot_be_played_is_refused_and_told_as_failed(rig: Rig, fields: dict[str, object]) -> None:
    rig.open()
    rig.do(protocol.Play(leg="a", play="p", **fields))  # type: ignore[arg-type]
    assert [e.what for e in rig.told(protocol.Refused)] == ["play"]
    assert [e.why for e in rig.told(protocol.Played)] == ["failed"]


def test_items_without_length_never_spin(rig: Rig) -> None:
    rig.open()
    play(rig, Silence(ms=0), loop=0)
    rig.tick()
    assert [e.why for e in rig.told(protocol.Played)] == ["failed"]


def test_digits_go_out_as_telephone_events(rig: Rig) -> None:
    peer = rig.open()
    play(rig, Digits(digits="1w#", on_ms=100, off_ms=100))
    rig.tick(70)
    packets = peer.packets()
    assert [(e.play, e.why) for e in rig.told(protocol.Played)] == [("p", "end")]
    events = [p for p in packets if p.payload_type == 101]
    payloads = [telephone_event.parse(p.payload) for p in events]
    assert [p.code for p in payloads if p] == [1] * 7 + [11] * 7
    assert [p.duration for p in payloads[:7] if p] == [160, 320, 480, 640, 800, 800, 800]
    assert [p.end for p in payloads[:7] if p] == [False] * 4 + [True] * 3
    assert [p.marker for p in events] == [i in (0, 7) for i in range(14)]
    one, two = {p.timestamp for p in events[:7]}, {p.timestamp for p in events[7:]}
    assert len(one) == len(two) == 1
    assert (two.pop() - one.pop()) & 0xFFFFFFFF == 8 * (200 + 500)
    assert [(b.sequence - a.sequence) & 0xFFFF for a, b in pairwise(packets)] == [1] * 69
    press = telephone_event.Press()
    told = [telephone_event.track(press, p.timestamp, q) for p, q in zip(events, payloads, strict=True) if q]
    assert "".join(told) == "1#"


def test_digits_go_in_band_where_no_events_were_negotiated(rig: Rig) -> None:
    peer = rig.open(dtmf_payload_type=-1)
    play(rig, Digits(digits="19D"))
    rig.tick(40)
    audio = peer.heard()
    detector, found = Detector(1), ""
    for at in range(0, len(audio) - 160, 160):
        _, codes, ended = detector.feed(np.array([0]), audio[at : at + 160][None, :])
        found += "".join("123A456B789C*0#D"[c] for c, e in zip(codes, ended, strict=True) if not e)
    assert found == "19D"


def test_a_key_ends_a_play_that_it_may_end(rig: Rig) -> None:
    peer = rig.open()
    play(rig, Silence(ms=5000), barge="12")
    for code in (3, 1):
        for duration in (320, 480):
            peer.send(telephone_event.Payload(code, False, duration).encode(), 101)
        peer.timestamp += 1600
    rig.tick(2)
    assert [e.digit for e in rig.told(protocol.Digit)] == ["3", "1"]
    assert [(e.play, e.why) for e in rig.told(protocol.Played)] == [("p", "digit")]


def test_missed_ticks_move_the_timestamp_and_not_the_prompt(rig: Rig, tmp_path: Path) -> None:
    peer = rig.open()
    play(rig, prompt(tmp_path, "1", ramp(0, 3200)))
    rig.tick(2)
    rig.tick(3, skip=4)
    packets = peer.packets()
    assert len(packets) == 5
    steps = [(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(packets)]
    assert steps == [160, 5 * 160, 160, 160]
    assert [p.marker for p in packets] == [True, False, True, False, False]
    assert [(b.sequence - a.sequence) & 0xFFFF for a, b in pairwise(packets)] == [1] * 4


def test_playing_goes_on_in_a_successor(rig: Rig, tmp_path: Path) -> None:
    peer = rig.open()
    play(rig, prompt(tmp_path, "1", ramp(0, 1600)), Digits(digits="1"), prompt(tmp_path, "2", ramp(160, 1600)))
    rig.tick(4)
    rig.replace_process()
    rig.tick(6)
    assert np.array_equal(peer.heard(), ramp(0, 1600))
    rig.tick(4)
    rig.replace_process()
    rig.tick(16)
    events = [p for p in peer.packets() if p.payload_type == 101]
    assert len(events) == 7
    assert len({p.timestamp for p in events}) == 1
    rig.tick(30)
    assert [(e.play, e.why) for e in rig.told(protocol.Played)] == [("p", "end")]
    assert peer.target() == PEER
