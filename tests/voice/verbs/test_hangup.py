"""<Hangup>: no attributes, nothing nested but <Parameter>."""

import pytest

from tests.voice.verbs.parsing import one
from tests.voice.world import World
from trunkline.voice.verbs.hangup import Hangup


@pytest.mark.parametrize(
    ("twiml", "codes"),
    [
        ("<Hangup/>", []),
        ("<Hangup><Parameter name='a' value='b'/></Hangup>", []),
        ("<Hangup reason='x'>y</Hangup>", [12200, 12200]),
    ],
)
def test_attributes(twiml: str, codes: list[int]) -> None:
    assert one(twiml) == (Hangup(), codes)


async def test_what_follows_is_never_reached(here: World) -> None:
    stored = await here.whole("<Say>x</Say><Hangup/><Say>never</Say>")
    assert here.media.plays() == [["x"]]
    assert (stored.status, stored.hangup_cause) == ("completed", "hangup")


async def test_as_the_first_verb_it_answers_all_the_same(here: World) -> None:
    here.app.answers("/voice", "<Hangup/>")
    caller = here.phone.dials()
    await caller.ended()
    assert caller.dialog is not None
    assert (await here.landed()).status == "completed"
