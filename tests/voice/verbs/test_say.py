"""<Say>.

| attribute | values | default |
|---|---|---|
| voice | man, woman, alice, Polly.*, ... | the account's |
| language | as the voice has it | en-US |
| loop | 0 (until the call ends) to 1000 | 1 |

Nested: SSML (`break emphasis lang p phoneme prosody s say-as sub w`).
"""

import pytest

from tests.voice.verbs.parsing import one
from tests.voice.world import World, until, world
from trunkline.settings import Speech
from trunkline.voice.verbs.say import Say


@pytest.mark.parametrize(
    ("twiml", "expected", "codes"),
    [
        ("<Say>hi</Say>", Say(text="hi"), []),
        ("<Say>  two\n  lines </Say>", Say(text="two lines"), []),
        (
            "<Say voice='alice' language='de-DE' loop='3'>x</Say>",
            Say(text="x", voice="alice", language="de-DE", loop=3), [],
        ),
        ("<Say loop='0'>x</Say>", Say(text="x", loop=0), []),
        ("<Say loop='1001'>x</Say>", Say(text="x"), [13510]),
        ("<Say loop='often'>x</Say>", Say(text="x"), [13510]),
        ("<Say voice=''>x</Say>", Say(text="x"), [13511]),
        ("<Say language=''>x</Say>", Say(text="x"), [13512]),
        ("<Say rate='9'>x</Say>", Say(text="x"), [12200]),
        ("<Say></Say>", None, [13520]),
        (
            "<Say>a <break time='1s'/>b &amp; <emphasis level='strong'>c</emphasis></Say>",
            Say(
                text="a b & c",
                ssml='<speak>a <break time="1s"></break>b &amp; <emphasis level="strong">c</emphasis></speak>',
            ),
            [],
        ),
        ("<Say>a <b>bold</b> c</Say>", Say(text="a c", ssml="<speak>a  c</speak>"), [12200]),
        ("<Say><break strength='weak'/></Say>", Say(ssml='<speak><break strength="weak"></break></speak>'), []),
    ],
)  # fmt: skip
def test_attributes(twiml: str, expected: Say | None, codes: list[int]) -> None:
    assert one(twiml) == (expected, codes)


async def test_it_speaks_with_voice_and_language(here: World) -> None:
    await here.whole("<Say voice='Polly.Hans' language='de-DE'>Guten Tag</Say>")
    assert here.prompts.asked == [("Guten Tag", "Polly.Hans", "de-DE")]
    assert here.media.plays() == [["Guten Tag"]]


async def test_loops_are_played_by_the_media_process(here: World) -> None:
    await here.whole("<Say loop='3'>x</Say>")
    assert [command.loop for command in here.media.commands if hasattr(command, "loop")] == [3]


async def test_for_ever_ends_with_the_call(here: World) -> None:
    caller, _ = await here.up("<Say loop='0'>x</Say><Say>never</Say>")
    await until(lambda: here.media.playing, "the prompt")
    caller.hangs_up()
    stored = await here.landed()
    assert stored.hangup_cause == "caller"
    assert here.media.plays() == [["x"]]


async def test_what_cannot_be_spoken_is_told_and_the_call_goes_on(here: World) -> None:
    await here.whole("<Say>slow unspeakable</Say><Say voice='ghost'>b</Say><Say voice='ghost'>c</Say>")
    assert here.alerts.raised == [(13520, "<Say> cannot be spoken"), (13511, "no such voice: ghost")]
    assert here.media.plays() == [["b"], ["c"]]


async def test_a_text_that_is_new_is_made_first(here: World) -> None:
    await here.whole("<Say>slow start</Say>")
    assert here.media.plays() == [["slow start"]]


async def test_long_texts_are_cut(tmp_path) -> None:
    async with world(tmp_path, speech=Speech(max_characters=10)) as here:
        await here.whole("<Say>0123456789abc</Say>")
        assert here.media.plays() == [["0123456789"]]
        assert here.alerts.codes == [13521]
