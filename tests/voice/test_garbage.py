"""A call that has ended goes at once: thousands of them waiting for the garbage collector would stop the loop."""

import asyncio
import gc
import weakref
from collections.abc import Iterator

import pytest

from tests.voice.lines import APP, OTHER, OURS, Lines
from tests.voice.world import World, until
from trunkline.media import protocol
from trunkline.sip.dialog import Dialog
from trunkline.sip.server_invite import ServerInvite
from trunkline.voice.live import LiveCall
from trunkline.voice.media_leg import MediaLeg
from trunkline.voice.outgoing import Outgoing
from trunkline.voice.session import Session

NOTHING_IN_COMMON = b"v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\ns=-\r\nc=IN IP4 1.2.3.4\r\nt=0 0\r\nm=audio 4000 RTP/AVP 18\r\n"
LOOKS = 50


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """Nothing that is part of a cycle goes."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def _watched(here: World) -> list["weakref.ref[object]"]:
    """What must go with the call that is live now."""
    call = here.call
    await until(lambda: here.media.playing or call.session is not None)
    return [weakref.ref(call), weakref.ref(call.session)]


async def _gone(here: World, watched: list["weakref.ref[object]"]) -> None:
    flight = here.accepted[0]
    await until(lambda: flight.ended and not flight.pending)
    await until(lambda: not any(one() for one in watched), f"the end of {[one() for one in watched]}")


@pytest.mark.parametrize(
    "document",
    [
        "<Play>http://x.example/a.wav</Play>",
        "<Say>wait</Say><Pause length='60'/>",
        "<Gather><Say>key</Say></Gather>",
    ],
)
async def test_the_caller_hangs_up(here: World, document: str) -> None:
    here.media.holds = True
    caller = (await here.up(document))[0]
    watched = await _watched(here)
    caller.hangs_up()
    await _gone(here, watched)


async def test_we_hang_up(here: World) -> None:
    here.media.holds = True
    await here.up("<Say>hello</Say><Hangup/>")
    watched = await _watched(here)
    await until(lambda: here.media.playing)
    here.media.end(here.call.sid)
    await _gone(here, watched)


async def test_a_live_update_ends_it(here: World) -> None:
    here.media.holds = True
    await here.up("<Say>hello</Say>")
    watched = await _watched(here)
    here.call.redirect(twiml="<Response><Hangup/></Response>")
    await _gone(here, watched)


async def test_the_caller_gives_up_before_the_answer(here: World) -> None:
    here.app.hold.clear()
    here.number.voice_url = here.number.voice_url.replace("/voice", "/slow")
    caller = here.phone.dials()
    await until(lambda: here.services.live)
    watched = await _watched(here)
    await until(lambda: caller.progress)
    caller.invite.cancel()
    await _gone(here, watched)
    here.app.hold.set()


async def test_a_document_that_cannot_be_had(here: World) -> None:
    here.app.hold.clear()
    here.number.voice_url = here.number.voice_url.replace("/voice", "/slow")
    here.phone.dials()
    await until(lambda: here.services.live)
    watched = await _watched(here)
    here.app.hold.set()
    await _gone(here, watched)


def _alive(*kinds: type) -> int:
    return sum(isinstance(one, kinds) for one in gc.get_objects())


@pytest.mark.parametrize(("sdp", "ports", "status"), [(NOTHING_IN_COMMON, True, 488), (b"", False, 503)])
async def test_calls_that_are_refused(here: World, sdp: bytes, ports: bool, status: int) -> None:
    """Neither for want of a codec nor for want of a port: whoever calls may repeat that for ever."""
    if not ports:
        here.media.free.clear()
    for _ in range(20):
        caller = here.phone.dials(sdp=sdp) if sdp else here.phone.dials()
        await caller.ended()
        assert caller.failed == status
    assert _alive(LiveCall) == 0
    assert _alive(ServerInvite) == 0


async def _none_alive(*kinds: type) -> None:
    """Soon: what ends takes a few turns of the loop. To look costs tens of milliseconds."""
    for _ in range(LOOKS):
        if not _alive(*kinds):
            return
        await asyncio.sleep(0.02)
    left = [one for one in gc.get_objects() if isinstance(one, kinds)]
    raise AssertionError(f"{len(left)} are left: {left[:10]}")


def _dialogs(here: World) -> int:
    """Those of the node."""
    return sum(isinstance(one, Dialog) and one.stack is here.stack for one in gc.get_objects())


async def _ended(here: World, document: str, count: int, *, hangs_up: bool = False, sdp: bytes | None = None) -> None:
    here.app.answers("/voice", document)
    callers = [here.phone.dials(sdp=sdp) for _ in range(count)]
    for caller in callers:
        if hangs_up:
            await caller.answered()
            caller.hangs_up()
        else:
            await caller.ended()
    await until(lambda: not here.services.live, "the ends of the calls")


async def test_nothing_is_left_of_two_hundred_calls(here: World) -> None:
    await _ended(here, "<Say>hello</Say><Hangup/>", 80)
    await _ended(here, "<Say>hello</Say><Pause length='60'/>", 80, hangs_up=True)
    await _ended(here, "<Hangup/>", 40, sdp=NOTHING_IN_COMMON)
    await until(lambda: not any(flight.pending for flight in here.accepted), "the writes")
    await _none_alive(LiveCall, Session, MediaLeg, ServerInvite)
    assert len(here.accepted) == 160
    assert (here.services.traced, here.services.counts.account, len(here.flights)) == ({}, {}, 0)
    assert here.stack.dialogs == 0
    assert _dialogs(here) <= 80  # of a BYE of ours, whose transaction waits for its answer to come again
    later = asyncio.get_running_loop().time() + here.stack.timing.give_up + 1
    here.stack.now = lambda: later
    here.stack.tick()
    assert here.stack.transactions == 0
    assert _dialogs(here) == 0


@pytest.mark.parametrize("ends", ["caller", "callee", "nobody"])
async def test_both_legs_of_a_dial(lines: Lines, ends: str) -> None:
    """A connection that the caller ends, or the callee; and a callee who cannot be called."""
    sip = f"sip:alice@{ends}.example" if ends == "nobody" else OTHER
    lines.web.pages[APP + "in"] = f"<Dial>{f'<Sip>{sip}</Sip>' if ends == 'nobody' else sip}</Dial><Hangup/>"
    lines.phone.dials(OURS)
    call = await lines.the_call()
    if ends != "nobody":
        await until(lambda: lines.media.of(protocol.Bridge), "the connection")
        assert _alive(LiveCall) == 2
        {"caller": lines.phone.hangs_up, "callee": lines.phone.dialogs[-1].bye}[ends]()
    await lines.until(call.sid, "completed")
    await _none_alive(LiveCall, Session, MediaLeg, Outgoing)
