"""Phones call each other over real SIP and RTP, played as from outside."""

import asyncio
import wave
from io import BytesIO

import msgspec
import pytest

from tests.testing.phones.studio import TuneStudio
from trunkline.testing.phones.control import MAX_WAIT_S, Control
from trunkline.testing.phones.exchange import MAX_PHONES, PhoneExchange

ADA, BOB = "+15555550101", "+15555550102"


class Phones:
    """What a client over HTTP sees."""

    def __init__(self, exchange: PhoneExchange) -> None:
        self.exchange = exchange
        self.control = Control(exchange, TuneStudio())

    async def ask(self, method, path, body=None, status=200, **query):
        content = msgspec.json.encode(body) if body is not None else b""
        answer = await self.control.handle(method, path, {k: str(v) for k, v in query.items()}, content)
        assert answer.status == status, answer.body
        return msgspec.json.decode(answer.body) if answer.content_type == "application/json" else answer.body

    async def behave(self, number, **behaviour):
        await self.ask("POST", f"phones/{number}", behaviour)

    async def dial(self, number=ADA, to=BOB, **more):
        state = await self.ask("POST", f"phones/{number}/calls", {"to": to, **more}, status=201)
        return Call(self, number, state["id"])

    async def incoming(self, number=BOB, after=0):
        calls = (await self.ask("GET", f"phones/{number}/calls", after=after, wait_s=2))["calls"]
        assert calls, "no call came in"
        return Call(self, number, calls[0]["id"])


class Call:
    def __init__(self, phones, number, ident):
        self.phones, self.path = phones, f"phones/{number}/calls/{ident}"

    async def state(self):
        return await self.phones.ask("GET", self.path)

    async def do(self, deed, /, status=200, **more):
        return await self.phones.ask("POST", self.path, {"do": deed, **more}, status=status)

    async def until(self, good):
        state = await self.state()
        async with asyncio.timeout(60):
            while not good(state):
                state = await self.phones.ask("GET", self.path, after=state["changes"], wait_s=1)
        return state

    async def reaches(self, wanted):
        return await self.until(lambda state: state["state"] in (wanted, "ended"))

    async def hears(self, **what):
        outcome = await self.do("hear", what=what, wait_s=MAX_WAIT_S, explain=True)
        assert outcome["heard"], outcome["explanation"]
        return outcome

    async def hears_text(self, text):
        return await self.hears(kind="text", text=text)


@pytest.fixture
async def phones():
    exchange = PhoneExchange()
    await exchange.start()
    phones = Phones(exchange)
    await phones.behave(ADA)
    await phones.behave(BOB)
    yield phones
    await exchange.stop()


async def up(phones, **more):
    """A call from Ada that Bob has answered."""
    ada = await phones.dial(**more)
    bob = await phones.incoming()
    await bob.do("answer")
    assert (await ada.reaches("up"))["state"] == "up"
    return ada, bob


@pytest.mark.parametrize("more", [
        {}, {"transport": "TCP"}, {"late_offer": True}, {"codecs": ["PCMA"]}, {"codecs": ["G722", "PCMU"]},
        {"codecs": ["opus", "PCMU"]},
    ],
    ids=str,
)  # fmt: skip
async def test_a_call_with_speech_both_ways_and_keys(phones, more):
    ada, bob = await up(phones, headers={"X-Order": "7"}, **more)
    state = await bob.state()
    assert (state["direction"], state["remote"], state["headers"]["X-Order"]) == ("in", ADA, "7")
    await ada.do("say", what={"kind": "text", "text": "Hello Bob"})
    await bob.do("say", what={"kind": "text", "text": "Hello Ada"})
    await bob.hears_text("Hello Bob")
    await ada.hears_text("Hello Ada")
    await ada.do("press", digits="42#")
    await bob.hears(kind="keys", keys="42")
    await bob.hears(kind="keys", keys="#")
    await ada.do("hang-up", headers={"Reason": "Q.850;cause=16"})
    state = await bob.reaches("ended")
    assert (state["ended_by"], state["hangup_reason"], state["keys"]) == ("other", "Q.850;cause=16", "42#")
    state = await ada.state()
    assert (state["state"], state["ended_by"], state["status"]) == ("ended", "phone", 200)
    assert state["media"]["codec"] == more.get("codecs", ["PCMU"])[0]
    assert state["media"]["lost"] == 0


async def test_a_phone_takes_only_the_codecs_that_it_speaks(phones):
    await phones.behave(BOB, codecs=["opus", "PCMA"])
    ada = await phones.dial(codecs=["G722", "PCMU", "PCMA"])
    bob = await phones.incoming()
    await bob.do("answer")
    assert (await ada.reaches("up"))["media"]["codec"] == "PCMA"
    await phones.behave(BOB, codecs=["opus"])
    ada = await phones.dial(codecs=["G722"])
    await (await phones.incoming(after=1)).do("answer")
    assert (await ada.reaches("ended"))["status"] == 488


async def test_what_is_heard_once_is_not_heard_again(phones):
    ada, bob = await up(phones)
    await ada.do("say", what={"kind": "text", "text": "One"})
    await bob.hears_text("One")
    outcome = await bob.do("hear", what={"kind": "text", "text": "One"}, wait_s=0.2, explain=True)
    assert not outcome["heard"]
    assert "the call is up; heard since" in outcome["explanation"]
    assert "best match" in outcome["explanation"]


async def test_another_text_is_not_heard(phones):
    ada, bob = await up(phones)
    await ada.do("say", what={"kind": "text", "text": "One"})
    await ada.do("finish", wait_s=2)
    outcome = await bob.do("hear", what={"kind": "text", "text": "Two"}, wait_s=0.3, explain=True)
    assert not outcome["heard"]
    assert "s sound at -16 dBm0" in outcome["explanation"]


async def test_tones_and_silence(phones):
    ada, bob = await up(phones)
    await ada.do("say", what={"kind": "tone", "frequencies": [440], "ms": 400})
    tone = await bob.hears(kind="tone", frequencies=[440], ms=350)
    silence = await bob.hears(kind="silence", ms=300)
    assert silence["at_ms"] >= tone["end_ms"] - 30
    sound = BytesIO(await phones.ask("GET", f"{bob.path}/heard.wav"))
    with wave.open(sound) as file:
        assert (file.getframerate(), file.getnchannels()) == (8000, 1)
        assert file.getnframes() >= silence["end_ms"] * 8


@pytest.mark.parametrize("how", ["in-band", "info"])
async def test_keys_by_other_ways(phones, how):
    ada, bob = await up(phones)
    await ada.do("press", digits="5", how=how)
    if how == "info":
        state = await bob.until(lambda state: state["info"])
        assert state["info"] == ["Signal=5\r\nDuration=100\r\n"]
    else:
        await bob.hears(kind="keys", keys="5")
        assert (await bob.state())["keys"] == ""


async def test_without_telephone_events_keys_go_into_the_audio(phones):
    ada, bob = await up(phones, dtmf=False)
    await bob.do("press", digits="9")
    await ada.hears(kind="keys", keys="9")


@pytest.mark.parametrize(
    ("behaviour", "status"),
    [
        ({"does": "declines"}, 603),
        ({"does": "busy"}, 486),
        ({"does": "off"}, 480),
        ({"does": "rejects", "status": 503, "headers": {"Reason": "Q.850;cause=41"}}, 503),
        ({"does": "busy", "after_s": 0.1}, 486),
    ],
)
async def test_a_phone_that_refuses(phones, behaviour, status):
    await phones.behave(BOB, **behaviour)
    ada = await phones.dial()
    state = await ada.reaches("ended")
    assert (state["status"], state["ended_by"]) == (status, "other")
    assert state["hangup_reason"] == behaviour.get("headers", {}).get("Reason", "")
    assert state["provisional"] == ([] if behaviour["does"] == "off" else [180])


async def test_a_phone_answers_by_itself_after_a_while(phones):
    await phones.behave(BOB, does="answers", after_s=0.1)
    ada = await phones.dial()
    state = await ada.reaches("up")
    assert state["state"] == "up"
    assert state["provisional"] == [180]
    assert state["answered_s"] - state["started_s"] >= 0.1


async def test_behaviour_applies_to_a_call_that_rings(phones):
    ada = await phones.dial()
    await phones.incoming()
    await phones.behave(BOB, does="declines")
    assert (await ada.reaches("ended"))["status"] == 603


async def test_the_caller_gives_up(phones):
    ada = await phones.dial()
    bob = await phones.incoming()
    await ada.reaches("ringing")
    await ada.do("hang-up", headers={"Reason": "SIP;cause=200"})
    state = await bob.reaches("ended")
    assert (state["status"], state["ended_by"], state["hangup_reason"]) == (487, "other", "SIP;cause=200")
    state = await ada.reaches("ended")
    assert (state["status"], state["ended_by"]) == (487, "phone")
    await bob.do("answer", status=409)


async def test_hold_and_resume(phones):
    ada, bob = await up(phones)
    await ada.do("hold")
    assert (await bob.until(lambda state: state["held"]))["reinvites"] == 1
    await ada.until(lambda state: state["on_hold"])
    received = (await ada.state())["media"]["received"]
    await bob.do("say", what={"kind": "text", "text": "Are you there?"})
    await bob.do("finish", wait_s=2)
    assert (await ada.state())["media"]["received"] - received <= 2
    await ada.do("hold", on=False)
    await ada.until(lambda state: not state["on_hold"])
    await bob.do("say", what={"kind": "text", "text": "There you are"})
    await ada.hears_text("There you are")


async def test_numbers_that_nobody_plays(phones):
    assert (await (await phones.dial(to="+15550000001")).reaches("ended"))["status"] == 404
    assert (await (await phones.dial(to="+15559900486")).reaches("ended"))["status"] == 486
    await phones.ask("POST", "phones", {"does": "answers"})
    assert (await (await phones.dial(to="+15550000001")).reaches("up"))["state"] == "up"
    assert (await phones.ask("GET", "phones"))["phones"] == ["+15550000001", ADA, BOB]


async def test_lost_packets_are_known(phones):
    ada, bob = await up(phones)
    await bob.do("impair", loss=0.2, direction="in")
    await ada.do("say", what={"kind": "tone", "frequencies": [440], "ms": 1000})
    await ada.do("finish", wait_s=2)
    assert (await bob.state())["media"]["lost"] > 3


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "other", None, 404),
        ("GET", "phones/+1/other", None, 404),
        ("GET", "phones/a b", None, 404),
        ("GET", f"phones/{ADA}/calls/7", None, 404),
        ("GET", f"phones/{ADA}/calls/x", None, 404),
        ("DELETE", "phones", None, 405),
        ("POST", f"phones/{ADA}", {"does": "dances"}, 400),
        ("POST", f"phones/{ADA}", {"more": 1}, 400),
        ("POST", f"phones/{ADA}/calls", {"to": ""}, 400),
        ("POST", f"phones/{ADA}/calls", {"to": "sip:", "headers": {}}, 409),
    ],
)
async def test_bad_requests(phones, method, path, body, status):
    await phones.ask(method, path, body, status=status)


async def test_what_a_call_cannot_do(phones):
    ada = await phones.dial()
    await ada.do("hold", status=409)
    await ada.do("press", digits="1", how="info", status=409)
    await ada.do("press", 400, digits="x")
    await phones.ask("POST", ada.path, {"do": "reject"}, status=409)
    for number in range(MAX_PHONES - 2):
        await phones.ask("GET", f"phones/+1555{number:07}")
    await phones.ask("GET", "phones/+19999999999", status=507)
