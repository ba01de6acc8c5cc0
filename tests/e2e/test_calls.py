"""Calls through the whole server: simulated phones on one side, a web application on the other."""

import io
import time
import wave
from collections.abc import Iterator

import numpy as np
import pytest

from tests.e2e.voice_app import VoiceApp, response
from trunkline.rtp import g711
from trunkline.testing.local import Local
from trunkline.testing.phones import hearing
from trunkline.testing.phones.client import RemotePhone
from trunkline.testing.phones.rtp_peer import decoded, encoded

SETTLE_S = 60.0


@pytest.fixture
def app() -> Iterator[VoiceApp]:
    app = VoiceApp()
    yield app
    app.close()


def voice(trunkline: Local, app: VoiceApp, *verbs: str) -> None:
    """Let the number be answered with these verbs, and its calls' end be told at /status."""
    app.answers["/voice"] = response(*verbs)
    trunkline.answer_at(f"{app.url}/voice")
    (number,) = trunkline.client.incoming_phone_numbers.list(phone_number=trunkline.number)
    number.update(status_callback=f"{app.url}/status")


def landed(trunkline: Local, sid: str, status: str = "completed"):
    """The call once it has this status."""
    until = time.monotonic() + SETTLE_S
    while (call := trunkline.client.calls(sid).fetch()).status != status:
        assert time.monotonic() < until, f"{sid} is {call.status}"
        time.sleep(0.05)
    return call


def wav(samples: np.ndarray) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


def samples_of(octets: bytes) -> np.ndarray:
    with wave.open(io.BytesIO(octets)) as file:
        assert file.getframerate() == 8000
        audio = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        return audio.reshape(-1, file.getnchannels())


def speechlike(seconds: float, seed: int) -> np.ndarray:
    """Noise in syllables: nothing that repeats."""
    rng = np.random.default_rng(seed)
    n = int(seconds * 8000)
    envelope = 0.6 + 0.4 * np.sin(2 * np.pi * 3 * np.arange(n) / 8000)
    return (rng.normal(size=n) * 3000 * envelope).astype(np.int16)


# -- a phone calls ---------------------------------------------------------------------------------------------


def test_an_ivr(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    menu = '<Gather numDigits="1" action="/chosen"><Say>Press one for sales.</Say></Gather><Say>Too late.</Say>'
    voice(trunkline, app, menu)
    app.answers["/chosen"] = lambda form: response(f"<Say>You pressed {form['Digits']}.</Say><Hangup/>")
    call = phone.dials(headers={"X-Order": "7"})
    assert call.rejected_with == 0
    call.hears("Press one for sales.")
    call.press("3")
    call.hears("You pressed 3.")
    assert call.ended().ended_by == "other"
    (first,) = app.at("/voice")
    assert (first["From"], first["To"], first["Direction"]) == (phone.number, trunkline.number, "inbound")
    assert first["CallStatus"] == "ringing"
    assert first["SipHeader_X-Order"] == "7"
    (chosen,) = app.at("/chosen")
    assert (chosen["Digits"], chosen["msg"], chosen["CallStatus"]) == ("3", "Gather End", "in-progress")
    (status,) = app.wait("/status")
    assert (status["CallSid"], status["CallStatus"]) == (first["CallSid"], "completed")
    fetched = landed(trunkline, first["CallSid"])
    assert (fetched.direction, fetched._from, fetched.to) == ("inbound", phone.number, trunkline.number)


@pytest.mark.parametrize("how", [{"transport": "TCP"}, {"late_offer": True}, {"dtmf": False}], ids=str)
def test_other_ways_of_calling(trunkline: Local, phone: RemotePhone, app: VoiceApp, how: dict) -> None:
    voice(trunkline, app, '<Gather numDigits="2" action="/chosen"><Say>Go on.</Say></Gather>')
    app.answers["/chosen"] = lambda form: response(f"<Say>You pressed {form['Digits']}.</Say><Pause length='30'/>")
    call = phone.dials(**how)
    call.hears("Go on.")
    call.press("19")
    call.hears("You pressed 19.")
    call.hangs_up()
    assert app.wait("/status")[0]["CallStatus"] == "completed"


def test_keys_by_info(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    voice(trunkline, app, '<Gather numDigits="2" action="/chosen"><Say>Go on.</Say></Gather>')
    app.answers["/chosen"] = response("<Say>Done.</Say>")
    call = phone.dials(dtmf=False)
    call.hears("Go on.")
    call.press("42", how="info")
    call.hears("Done.")
    assert app.at("/chosen")[0]["Digits"] == "42"
    call.ended()


def test_a_caller_who_hides(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    voice(trunkline, app, "<Say>Hello.</Say>")
    call = phone.dials(caller="anonymous")
    call.hears("Hello.")
    call.ended()
    assert phone.number not in app.at("/voice")[0].values()


def test_digits_cut_the_prompt_short(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    app.files["/long.wav"] = ("audio/wav", wav(speechlike(20, 3)))
    voice(trunkline, app, f'<Gather numDigits="2" action="/chosen"><Play>{app.url}/long.wav</Play></Gather>')
    app.answers["/chosen"] = response("<Say>Thank you.</Say>")
    call = phone.dials()
    call.becomes(lambda state: state.heard_ms > 300)
    call.press("42")
    heard = call.hears("Thank you.")
    assert heard.at_ms < 5000
    assert app.at("/chosen")[0]["Digits"] == "42"
    call.ended()


def test_nobody_presses_anything(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    voice(trunkline, app, '<Gather timeout="1" action="/chosen"><Say>Well?</Say></Gather><Say>Goodbye.</Say>')
    call = phone.dials()
    call.hears("Well?")
    call.hears_silence(0.8)
    call.hears("Goodbye.")
    call.ended()
    assert not app.at("/chosen")


def without_gaps(samples: np.ndarray) -> np.ndarray:
    """Without the frames in which nothing came: a media process on a busy machine leaves a tick out, never audio."""
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    return frames[frames.any(axis=1)].ravel()


@pytest.mark.parametrize("codec", ["PCMU", "PCMA"])
def test_a_wav_file_arrives_bit_exact(trunkline: Local, phone: RemotePhone, app: VoiceApp, codec: str) -> None:
    played = speechlike(3, 1)
    app.files["/music.wav"] = ("audio/wav", wav(played))
    voice(trunkline, app, f"<Play>{app.url}/music.wav</Play><Pause length='1'/>")
    call = phone.dials(codecs=[codec])
    call.ended()
    heard = samples_of(call.heard_wav())[:, 0]
    law = {"PCMU": g711.PCMU, "PCMA": g711.PCMA}[codec]
    expected = decoded(encoded(played, law), law)
    scores = hearing.correlation(heard.astype(float), expected[:4000].astype(float))
    start = int(scores.argmax())
    assert (without_gaps(heard[start:])[: len(expected)] == expected).all()
    media = call.state.media
    assert media.lost <= media.sent / 10, "of packets around ticks that a busy machine left out"


def test_a_recording_is_what_the_phone_said(trunkline: Local, phone: RemotePhone, app: VoiceApp, tmp_path) -> None:
    """As a whole: a phone that the machine keeps waiting sends a packet late, and what is concealed for it is recorded.
    That not a frame is recorded other than it came is shown by tests/e2e/test_audio_recordings.py."""
    said = speechlike(3, 2)
    file = tmp_path / "said.wav"
    file.write_bytes(wav(said))
    record = '<Record maxLength="20" finishOnKey="#" timeout="10" action="/recorded" recordingStatusCallback="/kept"/>'
    voice(trunkline, app, "<Say>Leave a message.</Say>", record)
    app.answers["/recorded"] = response("<Say>Thank you.</Say>")
    call = phone.dials()
    call.hears("Leave a message.")
    call.hears_tone(1000, ms=200)
    call.hears_silence(0.1)
    call.says(file)
    call.press("w#")
    call.hears("Thank you.")
    call.ended()
    (recorded,) = app.at("/recorded")
    assert recorded["Digits"] == "#"
    (kept,) = app.wait("/kept")
    assert kept["RecordingStatus"] == "completed"
    assert kept["RecordingSid"] == recorded["RecordingUrl"].rsplit("/", 1)[1]
    assert 2 <= int(kept["RecordingDuration"]) <= 6
    audio = samples_of(trunkline.fetch(f"{recorded['RecordingUrl']}.wav"))[:, 0]
    expected = decoded(encoded(said, g711.PCMU), g711.PCMU)
    start = int(hearing.correlation(audio.astype(float), expected.astype(float)).argmax())
    # A phone on a busy machine is late with a packet now and then; the rest stands where it belongs, bit for bit.
    same = (audio[start : start + len(expected)] == expected).reshape(-1, 160).all(axis=1)
    assert same.mean() > 0.95
    (listed,) = trunkline.client.recordings.list(call_sid=recorded["CallSid"])
    assert listed.sid == kept["RecordingSid"]


@pytest.mark.parametrize(("reason", "status"), [("busy", 486), ("rejected", 603)])
def test_a_call_is_rejected(trunkline: Local, phone: RemotePhone, app: VoiceApp, reason: str, status: int) -> None:
    voice(trunkline, app, f'<Reject reason="{reason}"/>')
    call = phone.dials()
    assert call.rejected_with == status
    (ended,) = app.wait("/status")
    assert ended["CallStatus"] == ("busy" if reason == "busy" else "no-answer")


def test_a_number_that_is_not_ours_is_not_answered(trunkline: Local, phone: RemotePhone) -> None:
    assert phone.dials("+12025550199").rejected_with in (403, 404)


def test_the_caller_hangs_up(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    voice(trunkline, app, "<Say>Hello.</Say><Pause length='60'/>")
    call = phone.dials()
    call.hears("Hello.")
    call.hangs_up()
    (status,) = app.wait("/status")
    assert (status["CallStatus"], int(status["CallDuration"])) == ("completed", 1)
    time.sleep(0.2)
    assert len(app.at("/status")) == 1


def test_the_caller_gives_up_before_the_answer(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    voice(trunkline, app, "<Pause length='30'/><Say>Hello.</Say>")
    call = phone.dials(wait=False)
    app.wait("/voice")
    call.hangs_up()
    assert call.ended().status == 487
    (status,) = app.wait("/status")
    assert status["CallStatus"] in ("no-answer", "canceled")


def test_loss_and_jitter_do_not_hurt_keys(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    voice(trunkline, app, '<Gather numDigits="10" finishOnKey="" action="/chosen" timeout="20"><Say>Go.</Say></Gather>')
    app.answers["/chosen"] = response("<Say>Thank you very much.</Say>")
    call = phone.dials()
    call.hears("Go.")
    call.loses(0.02, jitter_ms=40, direction="both")
    call.press("1223334440")
    call.hears("Thank you very much.")
    assert app.at("/chosen")[0]["Digits"] == "1223334440"
    call.ended()


# -- the API calls -----------------------------------------------------------------------------------------------


def test_a_call_from_the_api(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    app.answers["/voice"] = response("<Say>Hello, this is your bank.</Say>")
    made = trunkline.client.calls.create(
        to=phone.number, from_=trunkline.number, url=f"{app.url}/voice", status_callback=f"{app.url}/status",
        status_callback_event=["initiated", "ringing", "answered", "completed"],
    )  # fmt: skip
    assert made.status == "queued"
    call = phone.rings()
    app.wait("/status", 2)
    call.answers()
    call.hears("Hello, this is your bank.")
    call.ended()
    statuses = app.wait("/status", 4)
    assert sorted((one["SequenceNumber"], one["CallStatus"]) for one in statuses) == [
        ("0", "initiated"), ("1", "ringing"), ("2", "in-progress"), ("3", "completed"),
    ]  # fmt: skip
    (asked,) = app.at("/voice")
    assert (asked["CallSid"], asked["CallStatus"], asked["Direction"]) == (made.sid, "in-progress", "outbound-api")
    fetched = landed(trunkline, made.sid)
    assert int(fetched.duration) in (1, 2)
    assert call.state.remote == trunkline.number


@pytest.mark.parametrize(
    ("behave", "status", "code"),
    [
        (RemotePhone.declines, "busy", "603"),
        (RemotePhone.is_busy, "busy", "486"),
        (RemotePhone.off, "no-answer", "480"),
        (lambda phone: phone.rejects(503), "failed", "503"),
        (lambda phone: phone.rejects(404), "failed", "404"),
    ],
)
def test_a_call_that_does_not_come_about(
    trunkline: Local, phone: RemotePhone, app: VoiceApp, behave, status, code
) -> None:
    behave(phone)
    made = trunkline.client.calls.create(
        to=phone.number, from_=trunkline.number, twiml=response("<Say>Hi</Say>"), status_callback=f"{app.url}/status"
    )
    (ended,) = app.wait("/status")
    assert (ended["CallSid"], ended["CallStatus"], ended.get("SipResponseCode")) == (made.sid, status, code)
    assert landed(trunkline, made.sid, status).duration == "0"


def test_nobody_answers(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    phone.never_answers()
    made = trunkline.client.calls.create(
        to=phone.number, from_=trunkline.number, twiml=response("<Say>Hi</Say>"), timeout=1,
        status_callback=f"{app.url}/status",
    )  # fmt: skip
    call = phone.rings()
    assert call.ended().status == 487
    (ended,) = app.wait("/status")
    assert ended["CallStatus"] == "no-answer"
    landed(trunkline, made.sid, "no-answer")


def test_a_ringing_call_is_canceled(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    made = trunkline.client.calls.create(
        to=phone.number, from_=trunkline.number, twiml=response("<Say>Hi</Say>"), status_callback=f"{app.url}/status"
    )
    call = phone.rings()
    trunkline.client.calls(made.sid).update(status="canceled")
    assert call.ended().status == 487
    (ended,) = app.wait("/status")
    assert ended["CallStatus"] == "canceled"


def test_the_phone_hangs_up_first(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    made = trunkline.client.calls.create(
        to=phone.number, from_=trunkline.number, twiml=response("<Pause length='60'/>"),
        status_callback=f"{app.url}/status",
    )  # fmt: skip
    phone.answers().hangs_up()
    (ended,) = app.wait("/status")
    assert (ended["CallSid"], ended["CallStatus"]) == (made.sid, "completed")


def test_a_call_is_redirected_and_ended_from_outside(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    made = trunkline.client.calls.create(
        to=phone.number, from_=trunkline.number, twiml=response("<Say loop='0'>Please wait.</Say>")
    )
    call = phone.answers()
    call.hears("Please wait.")
    trunkline.client.calls(made.sid).update(twiml=response("<Say>Now it goes on.</Say><Pause length='60'/>"))
    call.hears("Now it goes on.")
    app.answers["/next"] = response("<Say>And on.</Say><Pause length='60'/>")
    trunkline.client.calls(made.sid).update(url=f"{app.url}/next")
    call.hears("And on.")
    trunkline.client.calls(made.sid).update(status="completed")
    assert call.ended().ended_by == "other"
    landed(trunkline, made.sid)


def test_digits_are_sent(trunkline: Local, phone: RemotePhone) -> None:
    trunkline.client.calls.create(
        to=phone.number, from_=trunkline.number, send_digits="1w2",
        twiml=response('<Play digits="34#"/><Say>Done.</Say>'),
    )  # fmt: skip
    call = phone.answers()
    call.hears_keys("12")
    call.hears_keys("34#")
    call.hears("Done.")
    call.ended()


# -- two phones --------------------------------------------------------------------------------------------------


def connected(trunkline: Local, app: VoiceApp, caller: RemotePhone, callee: RemotePhone, attributes: str = ""):
    voice(trunkline, app, f'<Dial action="/dialed" {attributes}>{callee.number}</Dial>')
    app.answers["/dialed"] = response("<Say>It is over.</Say>")
    calling = caller.dials(wait=False)
    called = callee.answers()
    calling.reaches("up")
    return calling, called


def test_two_phones_hear_each_other(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    calling, called = connected(trunkline, app, phone, trunkline.phone())
    calling.says("Hello, is that Bob?", wait=False)
    called.says("Hello, this is Bob.", wait=False)
    called.hears("Hello, is that Bob?")
    calling.hears("Hello, this is Bob.")
    assert called.state.remote == phone.number
    called.hangs_up()
    calling.hears("It is over.")
    calling.ended()
    (dialed,) = app.at("/dialed")
    assert dialed["DialCallStatus"] == "completed"
    assert int(dialed["DialCallDuration"]) >= 1
    (first,) = app.at("/voice")
    (child,) = trunkline.client.calls.list(parent_call_sid=first["CallSid"])
    assert (child.sid, child.direction) == (dialed["DialCallSid"], "outbound-dial")
    assert len(app.wait("/status")) == 1


def test_audio_between_two_phones_is_bit_exact(trunkline: Local, phone: RemotePhone, app: VoiceApp, tmp_path) -> None:
    said = speechlike(2, 5)
    (tmp_path / "said.wav").write_bytes(wav(said))
    calling, called = connected(trunkline, app, phone, trunkline.phone())
    called.becomes(lambda state: state.heard_ms > 200)
    calling.says(tmp_path / "said.wav")
    called.hears(tmp_path / "said.wav")
    heard = samples_of(called.heard_wav())[:, 0]
    expected = decoded(encoded(said, g711.PCMU), g711.PCMU)
    start = int(hearing.correlation(heard.astype(float), expected[:4000].astype(float)).argmax())
    assert (heard[start : start + len(expected)] == expected).all()
    calling.hangs_up()
    assert called.ended().ended_by == "other"


def test_hold_and_resume(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    calling, called = connected(trunkline, app, phone, trunkline.phone())
    calling.says("One.", wait=False)
    called.hears("One.")
    calling.holds()
    called.says("Are you there?")
    calling.resumes()
    called.says("There you are.", wait=False)
    calling.hears("There you are.")
    calling.says("Here I am.", wait=False)
    called.hears("Here I am.")
    calling.hangs_up()
    called.ended()


@pytest.mark.parametrize(
    ("behave", "status"),
    [(RemotePhone.declines, "busy"), (RemotePhone.is_busy, "busy"), (lambda phone: phone.rejects(404), "failed")],
)
def test_a_dialed_phone_that_refuses(trunkline: Local, phone: RemotePhone, app: VoiceApp, behave, status) -> None:
    other = trunkline.phone()
    behave(other)
    voice(trunkline, app, f'<Dial action="/dialed">{other.number}</Dial>')
    app.answers["/dialed"] = response("<Say>Sorry.</Say>")
    call = phone.dials()
    call.hears("Sorry.")
    call.ended()
    assert app.at("/dialed")[0]["DialCallStatus"] == status


def test_a_dialed_phone_that_nobody_answers(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    other = trunkline.phone()
    voice(trunkline, app, f'<Dial timeout="1" action="/dialed">{other.number}</Dial>')
    app.answers["/dialed"] = response("<Say>Sorry.</Say>")
    call = phone.dials()
    call.hears("Sorry.")
    assert app.at("/dialed")[0]["DialCallStatus"] == "no-answer"
    assert other.rings().ended().status == 487
    call.ended()


def test_the_caller_hears_it_ring(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    other = trunkline.phone()
    voice(trunkline, app, f'<Dial action="/dialed">{other.number}</Dial>')
    call = phone.dials()
    call.hears_tone(440, 480, ms=500)
    call.hangs_up()
    assert other.rings().ended().status == 487


def test_answer_on_bridge(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    other = trunkline.phone()
    voice(trunkline, app, f'<Dial answerOnBridge="true" action="/dialed">{other.number}</Dial>')
    calling = phone.dials(wait=False)
    called = other.rings()
    assert calling.state.state == "ringing"
    called.answers()
    assert calling.reaches("up").state == "up"
    called.says("At last.", wait=False)
    calling.hears("At last.")
    calling.hangs_up()
    called.ended()
    (dialed,) = app.wait("/dialed")
    assert (dialed["DialCallStatus"], dialed["DialBridged"], dialed["CallStatus"]) == ("completed", "true", "completed")


def test_answer_on_bridge_when_nobody_picks_up(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    """The caller is never answered, whatever becomes of the callee: what comes next may still refuse him."""
    other = trunkline.phone()
    other.is_busy()
    voice(trunkline, app, f'<Dial answerOnBridge="true" action="/dialed">{other.number}</Dial>')
    app.answers["/dialed"] = response('<Reject reason="busy"/>')
    assert phone.dials().rejected_with == 486
    (dialed,) = app.at("/dialed")
    assert (dialed["DialCallStatus"], dialed["DialBridged"], dialed["CallStatus"]) == ("busy", "false", "ringing")
    (status,) = app.wait("/status")
    assert (status["CallStatus"], status["CallDuration"]) == ("busy", "0")


def test_keys_reach_the_other_phone(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    calling, called = connected(trunkline, app, phone, trunkline.phone())
    called.becomes(lambda state: state.heard_ms > 200)
    calling.press("159#")
    called.hears_keys("159#")
    calling.hangs_up()
    called.ended()
