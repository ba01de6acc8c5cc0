"""Verbs that are not there yet: one clear alert, and the call goes on."""

import pytest

from tests.voice.verbs.parsing import one
from tests.voice.world import World
from trunkline.voice.verbs.later import NAMES, Later


@pytest.mark.parametrize("name", NAMES)
def test_they_are_known_and_their_content_is_left_alone(name: str) -> None:
    assert one(f"<{name} any='x'><Thing a='b'/>text</{name}>") == (Later(name=name), [])


async def test_the_alert_names_the_verb_once_a_call(here: World) -> None:
    await here.whole("<Pay/><Start/><Pay/><Say>on</Say>")
    assert here.alerts.raised == [
        (13750, "<Pay> is not supported yet; the call goes on without it"),
        (13750, "<Start> is not supported yet; the call goes on without it"),
    ]
    assert here.media.plays() == [["on"]]


async def test_a_call_is_answered_at_the_latest_at_the_end_of_its_document(here: World) -> None:
    here.app.answers("/voice", "<Connect><Room>r</Room></Connect>")
    caller = here.phone.dials()
    await caller.ended()
    assert caller.bye is not None
    assert here.alerts.codes == [13750]
    assert (await here.landed()).status == "completed"
