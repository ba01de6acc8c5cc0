"""<Pause>.

| attribute | values | default |
|---|---|---|
| length | whole seconds | 1 |

As the first verb it delays the answer.
"""

import asyncio

import pytest

from tests.voice.verbs.parsing import one
from tests.voice.world import World, until
from trunkline.voice.verbs.pause import Pause


@pytest.mark.parametrize(
    ("twiml", "expected", "codes"),
    [
        ("<Pause/>", Pause(), []),
        ("<Pause length='10'/>", Pause(length=10), []),
        ("<Pause length='0'/>", Pause(length=0), []),
        ("<Pause length='-1'/>", Pause(), [13910]),
        ("<Pause length='1.5'/>", Pause(), [13910]),
        ("<Pause>3</Pause>", Pause(), [12200]),
    ],
)
def test_attributes(twiml: str, expected: Pause, codes: list[int]) -> None:
    assert one(twiml) == (expected, codes)


async def test_it_waits(here: World) -> None:
    began = asyncio.get_running_loop().time()
    await here.whole("<Say>a</Say><Pause/><Say>b</Say>")
    assert 0.95 < asyncio.get_running_loop().time() - began < 2
    assert here.media.plays() == [["a"], ["b"]]


async def test_as_the_first_verb_it_delays_the_answer(here: World) -> None:
    here.app.answers("/voice", "<Pause length='1'/><Say>b</Say>")
    caller = here.phone.dials()
    await until(lambda: caller.progress, "ringing")
    await asyncio.sleep(0.1)
    assert caller.dialog is None
    assert here.call.status == "ringing"
    await caller.ended()
    assert caller.dialog is not None
    assert (await here.landed()).duration_s <= 1


async def test_a_caller_who_gives_up_meanwhile(here: World) -> None:
    here.app.answers("/voice", "<Pause length='60'/>")
    caller = here.phone.dials()
    await until(lambda: here.services.live and here.call.session.position.state, "the pause")
    caller.invite.cancel(headers=[("Reason", "SIP;cause=487")])
    await caller.ended()
    assert caller.failed == 487
    stored = await here.landed()
    assert (stored.status, stored.hangup_cause, stored.sip_response_code, stored.duration_s) == (
        "no-answer",
        "caller",
        487,
        0,
    )


async def test_nothing_but_a_pause_is_answered_at_its_end(here: World) -> None:
    here.app.answers("/voice", "<Pause length='0'/>")
    caller = here.phone.dials()
    await caller.ended()
    assert caller.bye is not None
    assert (await here.landed()).status == "completed"


async def test_it_goes_on_for_the_rest_of_its_time(here: World) -> None:
    _, call = await here.up("<Say>a</Say><Pause length='60'/>")
    await until(lambda: "until_ms" in call.session.position.state, "the pause")
    state = dict(call.session.position.state)
    now = here.services.clock.now_ms()
    assert 59_000 < state["until_ms"] - now <= 60_000
