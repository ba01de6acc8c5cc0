"""Transfers through the whole server: <Refer>, and REFERs of phones that are connected by a <Dial>."""

from collections.abc import Iterator

import pytest

from tests.e2e.test_calls import landed, voice
from tests.e2e.voice_app import VoiceApp, response
from trunkline.testing.local import Local
from trunkline.testing.phones.client import RemotePhone
from trunkline.testing.phones.things import Tone

TONE = 620


@pytest.fixture
def app() -> Iterator[VoiceApp]:
    app = VoiceApp()
    yield app
    app.close()


def test_a_phone_is_sent_elsewhere(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    """It calls our number again, and the first call is told how that went."""
    target = f"sip:{trunkline.number}@pbx.example?X-Case=7"
    first = response(f"<Refer action='/referred'><Sip>{target}</Sip></Refer>")
    second = response("<Say>You are somewhere else</Say><Pause length='20'/>")
    voice(trunkline, app, "")
    app.answers["/voice"] = lambda form: second if "SipHeader_x-case" in form else first
    app.answers["/referred"] = response("<Hangup/>")
    calling = phone.dials()
    (referred,) = app.wait("/referred")
    assert referred["ReferCallStatus"] == "in-progress"
    assert (referred["ReferSipResponseCode"], referred["NotifySipResponseCode"]) == ("202", "200")
    assert calling.ended().referred_to == f"<{target}>"
    one, another = app.wait("/voice", 2)
    assert another["CallSid"] != one["CallSid"]
    assert another["SipHeader_x-case"] == "7"


@pytest.mark.parametrize(("status", "told"), [(405, "405"), (603, "603")])
def test_a_phone_that_stays(trunkline: Local, phone: RemotePhone, app: VoiceApp, status: int, told: str) -> None:
    voice(trunkline, app, "<Refer action='/referred'><Sip>sip:agent@pbx.example</Sip></Refer>")
    app.answers["/referred"] = response("<Say>Stay with us</Say>")
    phone.stays(status)
    calling = phone.dials()
    (referred,) = app.wait("/referred")
    assert (referred["ReferCallStatus"], referred["ReferSipResponseCode"]) == ("failed", told)
    assert "NotifySipResponseCode" not in referred
    calling.hears("Stay with us")


def test_a_callee_transfers_the_caller(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    """By referUrl's document to a third phone, whom the caller hears."""
    other, third = trunkline.phone(), trunkline.phone()
    voice(trunkline, app, f"<Dial referUrl='/refer'>{other.number}</Dial>")
    app.answers["/refer"] = response(f"<Dial>{third.number}</Dial>")
    calling = phone.dials(wait=False)
    called = other.answers()
    calling.reaches("up")
    called.refers(third.number)
    taken = third.answers()
    (asked,) = app.wait("/refer")
    assert third.number in asked["ReferTransferTarget"]
    state = called.ended()
    assert (state.refer_response, state.refer_status, state.refer_over) == (202, 200, True)
    taken.says(Tone(frequencies=[TONE], ms=600), wait=False)
    calling.hears_tone(TONE, ms=300)
    calling.hangs_up()
    taken.ended()
    assert landed(trunkline, asked["CallSid"]).status == "completed"


def test_early_media_reaches_a_caller_that_is_not_answered(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    """The tone of our own while it rings (`ringTone`), as early media."""
    other = trunkline.phone()
    voice(trunkline, app, f"<Dial answerOnBridge='true' ringTone='us'>{other.number}</Dial>")
    calling = phone.dials(wait=False)
    ringing = other.rings()
    calling.hears_tone(440, 480, ms=200)
    assert calling.state.state == "ringing"
    assert 183 in calling.state.provisional
    ringing.answers()
    calling.reaches("up")
    calling.hangs_up()
    ringing.ended()
