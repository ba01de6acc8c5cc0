"""Two endpoints hear each other over UDP."""

import asyncio

import numpy as np
import pytest

from tests.media.sounds import likeness, voice
from trunkline.rtp import g711
from trunkline.testing.phones.heard import FRAME, RATE
from trunkline.testing.phones.rtp_peer import DTMF, MAX_QUEUED, Impairment, Pacer, Route, RtpPeer, decoded, encoded
from trunkline.testing.phones.tones import find_tone, keys_in, sine

HOST = "127.0.0.1"


def route(to, codec="PCMU", *, dtmf=101, sends=True):
    number = {"PCMU": 0, "PCMA": 8, "G722": 9, "opus": 111}[codec]
    types = {0: "PCMU", 8: "PCMA", 9: "G722", 111: "opus", 101: DTMF, 102: f"{DTMF}/48000"}
    return Route(
        codec=codec, send_payload_type=number, payload_types=types, dtmf_payload_type=dtmf,
        remote=(HOST, to.port), remote_rtcp=(HOST, to.port + 1), sends=sends,
    )  # fmt: skip


@pytest.fixture
async def pair():
    pacer = Pacer()
    a, b = await RtpPeer.open(HOST, pacer), await RtpPeer.open(HOST, pacer)
    yield a, b
    a.close()
    b.close()
    assert not pacer.peers


async def until(good, timeout_s=5):
    async with asyncio.timeout(timeout_s):
        while not good():
            await asyncio.sleep(0.01)


def test_g711_is_that_of_the_tables():
    every = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)
    for law in (g711.PCMU, g711.PCMA):
        assert encoded(every, law) == g711.encode(every.tobytes(), law)
        assert decoded(bytes(range(256)), law).tobytes() == g711.decode(bytes(range(256)), law)


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
async def test_what_one_says_the_other_hears_sample_by_sample(pair, codec):
    a, b = pair
    assert a.port % 2 == b.port % 2 == 0
    noise = (np.random.default_rng(5).normal(size=RATE // 2) * 4000).astype(np.int16)
    a.play(noise)
    a.route, b.route = route(b, codec), route(a, codec)
    await asyncio.wait_for(a.idle(), 60)
    await until(lambda: b.heard.end >= len(noise) + FRAME)
    law = {"PCMU": 0, "PCMA": 8}[codec]
    assert (b.heard.samples(0, len(noise)) == decoded(encoded(noise, law), law)).all()
    assert b.heard.missing == b.heard.repeated == 0
    assert a.heard.packets > 10  # silence goes the other way
    assert int(np.abs(a.heard.samples()).max()) <= 8


@pytest.mark.parametrize("codec", ["G722", "opus"])
async def test_what_one_says_the_other_hears_by_its_sound(pair, codec):
    a, b = pair
    said = voice(1.0)
    a.play(said)
    a.route, b.route = route(b, codec), route(a, codec)
    await asyncio.wait_for(a.idle(), 60)
    await until(lambda: b.heard.end >= len(said) + FRAME)
    assert likeness(b.heard.samples(), said)[0] > 0.93
    assert b.heard.missing == b.heard.repeated == b.strange == 0


async def test_opus_has_single_losses_from_the_next_packet(pair):
    a, b = pair
    said = voice(2.0)
    a.play(said)
    b.impair(incoming=Impairment(loss=0.05, seed=3))
    a.route, b.route = route(b, "opus"), route(a, "opus")
    await asyncio.wait_for(a.idle(), 60)
    await until(lambda: b.heard.end >= len(said) + FRAME)
    assert b.received < a.sent - 2
    assert b.heard.missing <= 2 * FRAME
    assert likeness(b.heard.samples(), said)[0] > 0.9


@pytest.mark.parametrize(("codec", "events"), [("PCMU", 101), ("G722", 101), ("opus", 102)])
async def test_keys_are_told_once_each(pair, codec, events):
    a, b = pair
    a.route, b.route = route(b, codec, dtmf=events), route(a, codec, dtmf=events)
    a.press("1w1#", on_ms=60, off_ms=40)
    await asyncio.wait_for(a.idle(), 60)
    await until(lambda: len(b.keys) == 3)
    assert "".join(key.key for key in b.keys) == "11#"
    assert keys_in(b.heard.samples()) == ""  # never also in the audio (RFC 4733)
    with pytest.raises(ValueError, match="no key"):
        a.press("1x")


async def test_keys_go_into_the_audio_where_there_are_no_events(pair):
    a, b = pair
    a.route, b.route = route(b, dtmf=-1), route(a)
    a.press("42")
    await asyncio.wait_for(a.idle(), 60)
    await until(lambda: keys_in(b.heard.samples()) == "42")
    assert not b.keys


async def test_who_is_on_hold_sends_nothing(pair):
    a, b = pair
    a.route, b.route = route(b, sends=False), route(a)
    await until(lambda: a.heard.packets > 5)
    assert b.received == 0
    a.route = route(b)
    await until(lambda: b.received > 0)


async def test_loss_and_jitter_by_a_seed(pair):
    a, b = pair
    b.impair(incoming=Impairment(loss=0.3, jitter_ms=15, seed=3))
    a.play(sine((440,), 1000))
    a.route, b.route = route(b), route(a)
    await until(lambda: b.heard.end > RATE)
    assert 0.1 < b.heard.missing / b.heard.end < 0.5
    b.impair()
    a.play(sine((600,), 300))
    await until(lambda: find_tone(b.heard.samples(), (600,), 200) is not None)


async def test_rubbish_is_counted_and_dropped(pair):
    a, b = pair
    b.route = route(a)
    for data in (b"", b"x", bytes(12), b"\x80\x7f" + bytes(20), b"\x8f\x00" + bytes(10), b"\xa0\x00" + bytes(11)):
        b._take_packet(data)
    assert b.strange >= 4
    assert b.heard.end == 0
    for _ in range(MAX_QUEUED):
        a.play(sine((440,), 20))
    with pytest.raises(OverflowError):
        a.play(sine((440,), 20))


async def test_reports_are_sent_and_read(pair, monkeypatch):
    monkeypatch.setattr("trunkline.testing.phones.rtp_peer.REPORT_TICKS", 5)
    a, b = pair
    a.route, b.route = route(b), route(a)
    await until(lambda: a.reports > 1 and b.reports > 1)
    assert a.remote_lost == 0
