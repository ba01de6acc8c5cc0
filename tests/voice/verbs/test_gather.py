"""<Gather>.

| attribute | values | default |
|---|---|---|
| input | dtmf, speech | dtmf |
| action | URL | the current document |
| method | GET, POST | POST |
| timeout | seconds | 5 |
| finishOnKey | one of 0-9 # *, or none | # |
| numDigits | at least 1 | no limit |
| actionOnEmptyResult | true, false | false |
| bargeIn | true, false | true |

Nested: <Say>, <Play>, <Pause>, in any order.
"""

import asyncio

import pytest

from tests.voice.verbs.parsing import one
from tests.voice.world import World, until
from trunkline.media.protocol import Play as PlayCommand
from trunkline.voice.checkpoints import DocumentCheckpoint, Position
from trunkline.voice.session import Session
from trunkline.voice.verbs.gather import Gather
from trunkline.voice.verbs.pause import Pause
from trunkline.voice.verbs.play import Play
from trunkline.voice.verbs.say import Say


@pytest.mark.parametrize(
    ("twiml", "expected", "codes"),
    [
        ("<Gather/>", Gather(), []),
        (
            "<Gather input='dtmf speech' action='/a' method='GET' timeout='3' finishOnKey='*' numDigits='4' "
            "actionOnEmptyResult='true' bargeIn='false' language='de-DE' hints='ja,nein' speechTimeout='auto'/>",
            Gather(
                input=("dtmf", "speech"), action="/a", method="GET", timeout=3, finish_on_key="*", num_digits=4,
                action_on_empty_result=True, barge_in=False, language="de-DE", hints="ja,nein", speech_timeout="auto",
            ),
            [],
        ),
        ("<Gather finishOnKey=''/>", Gather(finish_on_key=""), []),
        ("<Gather timeout='auto'/>", Gather(), []),
        ("<Gather finishOnKey='12'/>", Gather(), [13310]),
        ("<Gather method='PUT'/>", Gather(), [13312]),
        ("<Gather timeout='soon'/>", Gather(), [13313]),
        ("<Gather numDigits='0'/>", Gather(), [13314]),
        ("<Gather input='smell'/>", Gather(), [13326]),
        ("<Gather bargeIn='maybe'/>", Gather(), [13332]),
        ("<Gather actionOnEmptyResult='1'/>", Gather(), [13338]),
        ("<Gather colour='red'/>", Gather(), [12200]),
        (
            "<Gather><Pause length='2'/><Say loop='2'>x</Say><Play>/y.mp3</Play></Gather>",
            Gather(prompts=(Pause(length=2), Say(text="x", loop=2), Play(url="/y.mp3"))),
            [],
        ),
        ("<Gather><Dial>1</Dial>text<Play digits='1'/><Say/></Gather>", Gather(), [13320, 13320, 13520, 13320]),
    ],
)  # fmt: skip
def test_attributes(twiml: str, expected: Gather, codes: list[int]) -> None:
    verb, found = one(twiml)
    assert verb == expected
    assert sorted(found) == sorted(codes)


async def gathering(here: World, attributes: str = "", prompts: str = "", after: str = "<Say>after</Say>") -> tuple:
    """A call that is in its <Gather>."""
    here.app.answers("/done", "<Say>done</Say>")
    twiml = f"<Gather action='/done' {attributes}>{prompts}</Gather>{after}"
    caller, call = await here.up(twiml)
    await until(lambda: call.on_digit is not None, "the <Gather>")
    return caller, call


@pytest.mark.parametrize(
    ("attributes", "keys", "digits", "key"),
    [
        ("", "12#", "12", "#"),
        ("", "12#3", "12", "#"),
        ("numDigits='1'", "5", "5", ""),
        ("numDigits='4'", "12345", "1234", ""),
        ("numDigits='4'", "12#", "12", "#"),
        ("finishOnKey='*'", "1#2*", "1#2", "*"),
        ("finishOnKey='' numDigits='3'", "1#*", "1#*", ""),
        ("finishOnKey='5'", "125", "12", "5"),
        ("", "*1#", "*1", "#"),
        ("timeout='1'", "77", "77", ""),
        ("input='dtmf speech'", "12#", "12", "#"),
    ],
)
async def test_keys_go_to_the_action(here: World, attributes: str, keys: str, digits: str, key: str) -> None:
    caller, call = await gathering(here, attributes)
    here.media.press(call.sid, keys)
    await caller.ended()
    (params,) = here.app.asked("/done")
    assert (params["Digits"], params["FinishedOnKey"], params["msg"]) == (digits, key, "Gather End")
    assert params["CallStatus"] == "in-progress"
    assert here.media.plays()[-1] == ["done"]
    assert ["after"] not in here.media.plays()


@pytest.mark.parametrize("keys", ["", "#"])
async def test_without_keys_the_next_verb_follows(here: World, keys: str) -> None:
    caller, call = await gathering(here, "timeout='1'")
    here.media.press(call.sid, keys)
    await caller.ended()
    assert here.app.asked("/done") == []
    assert here.media.plays() == [["after"]]


@pytest.mark.parametrize("prompts", ["", "<Say>menu</Say><Say loop='0'>more</Say>"])
async def test_the_finishing_key_alone_ends_it_at_once(here: World, prompts: str) -> None:
    here.media.holds = bool(prompts)
    caller, call = await gathering(here, "timeout='3600'", prompts)
    if prompts:
        await until(here.media.plays, "the prompts")
    here.media.press(call.sid, "#1")
    here.media.holds = False
    await caller.ended()
    assert here.app.asked("/done") == []
    assert here.media.plays()[-1] == ["after"]


async def test_the_finishing_key_alone_is_told_with_an_empty_result(here: World) -> None:
    caller, call = await gathering(here, "timeout='3600' actionOnEmptyResult='true'")
    here.media.press(call.sid, "#")
    await caller.ended()
    (params,) = here.app.asked("/done")
    assert (params["Digits"], params["FinishedOnKey"]) == ("", "#")


async def test_action_on_empty_result(here: World) -> None:
    here.app.answers("/done", "<Hangup/>")
    await here.whole("<Gather action='/done' timeout='0' actionOnEmptyResult='true'/>")
    (params,) = here.app.asked("/done")
    assert (params["Digits"], params["FinishedOnKey"]) == ("", "")


async def test_without_action_the_document_itself_is_asked(here: World) -> None:
    here.app.answers("/voice", ["<Gather numDigits='1' timeout='60'/>", "<Say>again</Say>"])
    caller = here.phone.dials()
    await caller.answered()
    await until(lambda: here.call.on_digit is not None, "the <Gather>")
    here.media.press(here.call.sid, "9")
    await caller.ended()
    assert [params.get("Digits") for params in here.app.asked("/voice")] == [None, "9"]


async def test_prompts_are_one_play_where_they_can_be(here: World) -> None:
    prompts = "<Pause length='2'/><Say>a</Say><Play>/b.mp3</Play><Say loop='3'>c</Say><Say>d</Say>"
    await here.whole(f"<Gather timeout='0'>{prompts}</Gather>")
    assert here.media.plays()[:3] == [["~2000", "a", f"{here.app.url}/b.mp3"], ["c"], ["d"]]
    loops = [command.loop for command in here.media.commands if isinstance(command, PlayCommand)]
    assert loops[:3] == [1, 3, 1]


async def test_a_key_ends_the_prompt_and_those_after_it(here: World) -> None:
    here.media.holds = True
    caller, call = await gathering(here, "timeout='60'", "<Say loop='2'>a</Say><Say loop='2'>b</Say>")
    await until(lambda: here.media.playing, "the prompt")
    assert here.media.playing[call.sid].barge == "0123456789*#ABCD"
    here.media.press(call.sid, "1")
    await asyncio.sleep(0.01)
    assert not here.media.playing
    here.media.holds = False
    here.media.press(call.sid, "2#")
    await caller.ended()
    assert here.app.asked("/done")[0]["Digits"] == "12"
    assert here.media.plays() == [["a"], ["done"]]


async def test_without_barge_in_the_prompt_is_heard_to_its_end(here: World) -> None:
    here.media.holds = True
    caller, call = await gathering(here, "numDigits='2' bargeIn='false' timeout='60'", "<Say>a</Say>")
    await until(lambda: here.media.playing, "the prompt")
    here.media.press(call.sid, "12")
    await asyncio.sleep(0.01)
    assert here.media.playing
    assert here.app.asked("/done") == []
    here.media.holds = False
    here.media.end(call.sid)
    await caller.ended()
    assert here.app.asked("/done")[0]["Digits"] == "12"


async def test_the_time_begins_after_the_prompts(here: World) -> None:
    here.media.holds = True
    caller, call = await gathering(here, "timeout='1'", "<Say>a</Say>")
    await until(lambda: here.media.playing, "the prompt")
    await asyncio.sleep(1.2)
    assert call.on_digit is not None
    began = asyncio.get_running_loop().time()
    here.media.holds = False
    here.media.end(call.sid)
    await caller.ended()
    assert asyncio.get_running_loop().time() - began > 0.9
    assert here.media.plays()[-1] == ["after"]


async def test_every_key_gives_new_time(here: World) -> None:
    caller, call = await gathering(here, "timeout='1'")
    for digit in "123":
        await asyncio.sleep(0.6)
        here.media.press(call.sid, digit)
    await caller.ended()
    assert here.app.asked("/done")[0]["Digits"] == "123"


async def test_keys_pressed_before_do_not_count(here: World) -> None:
    here.media.holds = True
    here.app.answers("/done", "<Hangup/>")
    caller, call = await here.up("<Say>wait</Say><Gather action='/done' numDigits='1' timeout='60'/>")
    await until(lambda: here.media.playing, "the prompt")
    here.media.press(call.sid, "123")
    assert list(call.digits) == ["1", "2", "3"]
    here.media.end(call.sid)
    await until(lambda: call.on_digit is not None, "the <Gather>")
    here.media.press(call.sid, "9")
    await caller.ended()
    assert here.app.asked("/done")[0]["Digits"] == "9"


async def test_speech_alone_says_so_and_hears_no_keys(here: World) -> None:
    caller, call = await gathering(here, "input='speech' timeout='1'", "<Say>speak</Say>")
    here.media.press(call.sid, "1")
    await caller.ended()
    assert here.app.asked("/done") == []
    assert here.alerts.raised == [(13750, '<Gather input="speech"> is not supported yet: only keys are heard')]
    assert here.media.plays() == [["speak"], ["after"]]


async def test_keys_by_info(here: World) -> None:
    caller, _ = await gathering(here, "numDigits='2' timeout='60'", "<Say loop='0'>press</Say>")
    await until(lambda: here.media.playing, "the prompt")
    caller.dialog.info("application/dtmf-relay", b"Signal=4\r\nDuration=160\r\n")
    await until(lambda: not here.media.playing, "the end of the prompt")
    caller.dialog.info("application/dtmf", b"2")
    await caller.ended()
    assert here.app.asked("/done")[0]["Digits"] == "42"


async def test_a_prompt_that_fails_leaves_the_rest(here: World) -> None:
    await here.whole("<Gather timeout='0'><Play>/missing.mp3</Play><Say>b</Say></Gather><Say>after</Say>")
    assert here.alerts.codes == [11200]
    assert here.media.plays() == [["b"], ["after"]]


async def test_it_goes_on_with_the_keys_that_there_were(here: World) -> None:
    caller, call = await gathering(here, "timeout='60'", "<Say>press</Say>")
    await until(lambda: call.session.position.state.get("prompted"), "the wait")
    here.media.press(call.sid, "12")
    first, state = call.session, dict(call.session.position.state)
    assert state["digits"] == "12"
    first.cancel()
    await until(lambda: first.done, "the first session's end")
    document = DocumentCheckpoint(
        url=f"{here.app.url}/voice", content_type="text/xml",
        body=b"<Response><Gather action='/done' timeout='60'><Say>press</Say></Gather></Response>",
    )  # fmt: skip
    Session(call).resume(document, Position(verb=0, state=state))
    await until(lambda: call.on_digit is not None, "the <Gather> again")
    here.media.press(call.sid, "3#")
    await caller.ended()
    assert here.app.asked("/done")[0]["Digits"] == "123"
    assert here.media.plays() == [["press"], ["done"]]
