"""A call that has ended goes at once: thousands of them waiting for the garbage collector would stop the loop."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from tests.voice.world import World, until


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
