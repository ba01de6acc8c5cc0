"""<Play>.

| attribute | values | default |
|---|---|---|
| loop | 0 (until the call ends) to 1000 | 1 |
| digits | 0-9 A-D * # w (0.5 s) W (1 s) | none |
"""

import pytest

from tests.voice.verbs.parsing import one
from tests.voice.world import World
from trunkline.media.protocol import Digits
from trunkline.voice.verbs.play import Play


@pytest.mark.parametrize(
    ("twiml", "expected", "codes"),
    [
        ("<Play>https://x.test/a.mp3</Play>", Play(url="https://x.test/a.mp3"), []),
        ("<Play> a.mp3\n</Play>", Play(url="a.mp3"), []),
        ("<Play loop='0'>a</Play>", Play(url="a", loop=0), []),
        ("<Play loop='-1'>a</Play>", Play(url="a"), [13410]),
        ("<Play digits='1w2W#'/>", Play(digits="1w2W#"), []),
        ("<Play digits='x'/>", None, [13430, 12200]),
        ("<Play/>", None, [12200]),
        ("<Play>ftp://x/a.mp3</Play>", None, [12200]),
        ("<Play>a b</Play>", None, [12200]),
    ],
)
def test_attributes(twiml: str, expected: Play | None, codes: list[int]) -> None:
    assert one(twiml) == (expected, codes)


async def test_files_are_played_one_after_the_other(here: World) -> None:
    await here.whole("<Play>/a.mp3</Play><Play loop='2'>https://cdn.test/b.wav</Play>")
    assert here.media.plays() == [[f"{here.app.url}/a.mp3"], ["https://cdn.test/b.wav"]]


async def test_keys_are_pressed(here: World) -> None:
    await here.whole("<Play digits='ww12#'/>")
    (play,) = [command for command in here.media.commands if hasattr(command, "items")]
    assert play.items == [Digits(digits="ww12#")]


async def test_a_file_that_cannot_be_had_is_told_and_the_call_goes_on(here: World) -> None:
    await here.whole("<Play>/missing.mp3</Play><Play>/text.mp3</Play><Say>on</Say>")
    assert here.alerts.codes == [11200, 13420]
    assert here.media.plays() == [["on"]]


async def test_a_relative_url_needs_a_document_with_one(here: World) -> None:
    caller, call = await here.up("<Say>x</Say><Pause length='60'/>")
    call.redirect(twiml="<Response><Play>a.mp3</Play><Say>on</Say></Response>")
    await caller.ended()
    assert here.alerts.codes == [11100]
    assert here.media.plays()[1:] == [["on"]]
