"""The media side of a leg: what goes down, and which event ends which play."""

import asyncio

import pytest

from tests.voice.world import FakeMedia
from trunkline.media import protocol
from trunkline.sip.offer_answer import Local, answer
from trunkline.voice.media_leg import MediaLeg


def leg(media: FakeMedia) -> MediaLeg:
    made = MediaLeg(media, "CA1")
    assert made.lease()
    made.open(None, "PCMU", source="192.0.2.1", rtp_timeout_ms=60_000)
    return made


async def test_a_port_that_is_never_used_goes_back() -> None:
    media = FakeMedia(slots=1)
    one, other = MediaLeg(media, "CA1"), MediaLeg(media, "CA2")
    closed: list[dict[str, object]] = []
    one.on_closed = closed.append
    assert one.lease()
    assert one.lease()
    assert not other.lease()
    one.close()
    assert closed == [{}]
    assert other.lease()
    assert media.commands == []


@pytest.mark.parametrize(("host", "known"), [
    ("192.0.2.9", True), ("2001:db8::9", True), ("phone.example", False), ("192.0.2.9\0", False), ("192.0.2.é", False),
])  # fmt: skip
async def test_only_addresses_go_to_the_media_process(host: str, known: bool) -> None:
    """A name is not looked up; the peer is found where its audio comes from."""
    offer = f"v=0\r\no=- 1 1 IN IP4 x\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 5000 RTP/AVP 0\r\n".encode()
    media = FakeMedia()
    made = MediaLeg(media, "CA1")
    assert made.lease()
    local = Local(address="192.0.2.1", port=4000, session_id=1, version=1)
    made.open(answer(offer, local), "PCMU", source="192.0.2.1", rtp_timeout_ms=60_000)
    (command,) = media.of(protocol.Open)
    assert command.remote == ((host, 5000) if known else None)
    assert command.remote_rtcp == ((host, 5001) if known else None)
    assert command.latch_from == ("192.0.2.1",)


async def test_a_new_play_ends_the_one_before() -> None:
    media = FakeMedia()
    media.holds = True
    made = leg(media)
    first = made.play([protocol.Silence(ms=1)])
    second = made.play([protocol.Silence(ms=2)])
    assert (await first).why == "stopped"
    assert not second.done()
    made.event(protocol.Played(leg="CA1", play="1", why="end"))  # late news of the first
    assert not second.done()
    made.event(protocol.Played(leg="CA1", play="2", why="end"))
    assert (await second).why == "end"
    assert made.plays == 2


async def test_the_play_of_a_lost_process_does_not_end_the_next_one() -> None:
    """The number of plays is stored before the first one: a name must not come twice."""
    media = FakeMedia()
    media.holds = True
    made = MediaLeg(media, "CA1")
    made.take_up(slot=0, port=4000, plays=0)
    made.adopted = "1"
    following = made.play([protocol.Silence(ms=1)])
    made.event(protocol.Played(leg="CA1", play="1", why="stopped"))
    assert not following.done()
    made.event(protocol.Played(leg="CA1", play=media.of(protocol.Play)[0].play, why="end"))
    assert (await following).why == "end"


async def test_stopping_nothing_says_nothing() -> None:
    media = FakeMedia()
    made = leg(media)
    made.stop()
    assert media.of(protocol.Stop) == []


async def test_the_end_of_the_leg_ends_its_play() -> None:
    media = FakeMedia()
    media.holds = True
    made = leg(media)
    numbers: list[dict[str, object]] = []
    made.on_closed = numbers.append
    played = made.play([protocol.Silence(ms=1)])
    made.close()
    assert (await played).why == "stopped"
    await asyncio.sleep(0)
    assert numbers == [media.numbers]


async def test_a_play_that_is_refused_has_failed() -> None:
    media = FakeMedia()
    media.holds = True
    made = leg(media)
    refused: list[tuple[str, str]] = []
    made.on_refused = lambda what, reason: refused.append((what, reason))
    played = made.play([protocol.Audio(path="/gone")])
    made.event(protocol.Refused(command=2, what="play", leg="CA1", reason="no such file"))
    assert (await played).why == "failed"
    assert refused == [("play", "no such file")]


async def test_a_play_of_a_lost_process_is_followed_once() -> None:
    media = FakeMedia()
    made = leg(media)
    made.plays, made.adopted = 7, "7"
    assert made.follow("6") is None
    future = made.follow("7", "123")
    assert future is not None
    assert made.barge == "123"
    assert made.follow("7") is None
    made.event(protocol.Played(leg="CA1", play="7", why="digit"))
    assert (await future).why == "digit"
    assert media.of(protocol.Play) == []


async def test_other_events_go_to_who_wants_them() -> None:
    made = leg(FakeMedia())
    heard: list[str] = []
    made.on_other = lambda event: heard.append(type(event).__name__)
    made.on_flowing = lambda: heard.append("flowing")
    made.event(protocol.Quality(leg="CA1"))
    made.event(protocol.Silent(leg="CA1"))
    made.event(protocol.Flowing(leg="CA1"))
    assert heard == ["Quality", "Silent", "flowing"]
