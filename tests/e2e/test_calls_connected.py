"""Connections and recordings through the whole server, heard by the phones and read from the files."""

import io
import time
import wave
from collections.abc import Iterator

import numpy as np
import pytest

from tests.e2e.test_calls import landed, samples_of, voice
from tests.e2e.voice_app import VoiceApp, response
from trunkline.testing.local import Local
from trunkline.testing.phones.client import RemotePhone
from trunkline.testing.phones.things import Silence, Tone

LOW, HIGH = 620, 1400


@pytest.fixture
def app() -> Iterator[VoiceApp]:
    app = VoiceApp()
    yield app
    app.close()


def share(samples: np.ndarray, frequency: float) -> float:
    """How much of the energy of the samples lies at a frequency, 0 to 1."""
    spectrum = np.abs(np.fft.rfft(samples.astype(float) * np.hanning(len(samples)))) ** 2
    at = round(frequency * len(samples) / 8000)
    return float(spectrum[max(0, at - 3) : at + 4].sum() / max(spectrum.sum(), 1.0))


def has(samples: np.ndarray, frequency: float) -> bool:
    """Whether a tone is in some tenth of a second of the samples, loud and nearly alone."""
    return any(
        np.abs(part).mean() > 300 and share(part, frequency) > 0.8
        for part in (samples[at : at + 800] for at in range(0, len(samples) - 800, 400))
    )


def test_a_connection_is_recorded_with_a_channel_for_each_side(
    trunkline: Local, phone: RemotePhone, app: VoiceApp
) -> None:
    other = trunkline.phone()
    voice(
        trunkline, app,
        '<Dial record="record-from-answer-dual" action="/dialed" recordingStatusCallback="/kept">'
        f"{other.number}</Dial>",
    )  # fmt: skip
    app.answers["/dialed"] = response("<Hangup/>")
    calling = phone.dials(wait=False)
    called = other.answers()
    calling.reaches("up")
    called.becomes(lambda state: state.heard_ms > 200)
    calling.says(Tone(frequencies=[LOW], ms=600), wait=False)
    called.hears_tone(LOW, ms=300)
    called.says(Tone(frequencies=[HIGH], ms=600), wait=False)
    calling.hears_tone(HIGH, ms=300)
    called.hangs_up()
    calling.ended()
    (kept,) = app.wait("/kept")
    assert (kept["RecordingStatus"], kept["RecordingChannels"], kept["RecordingSource"]) == (
        "completed",
        "2",
        "DialVerb",
    )
    (dialed,) = app.at("/dialed")
    assert dialed["RecordingUrl"] == kept["RecordingUrl"]
    both = samples_of(trunkline.fetch(f"{kept['RecordingUrl']}.wav"))
    caller, callee = both[:, 0], both[:, 1]
    assert (has(caller, LOW), has(caller, HIGH), has(callee, LOW), has(callee, HIGH)) == (True, False, False, True)
    assert abs(len(both) / 8000 - int(kept["RecordingDuration"])) <= 1


def test_the_callee_is_asked_first(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    other = trunkline.phone()
    voice(trunkline, app, f'<Dial action="/dialed"><Number url="/ask">{other.number}</Number></Dial>')
    app.answers["/ask"] = response('<Gather numDigits="1" action="/asked"><Say>Press one to accept.</Say></Gather>')
    app.answers["/asked"] = lambda form: response("" if form["Digits"] == "1" else "<Hangup/>")
    app.answers["/dialed"] = response("<Say>Nobody wants you.</Say>")
    calling = phone.dials(wait=False)
    called = other.answers()
    called.hears("Press one to accept.")
    called.press("1")
    calling.reaches("up")
    called.says("I am here.", wait=False)
    calling.hears("I am here.")
    calling.hangs_up()
    called.ended()
    again = phone.dials(wait=False)
    called = other.answers()
    called.hears("Press one to accept.")
    called.press("2")
    called.ended()
    again.hears("Nobody wants you.")
    again.ended()
    assert [one["DialBridged"] for one in app.at("/dialed")] == ["true", "false"]


def test_two_phones_ring_and_one_wins(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    first, second = trunkline.phone(), trunkline.phone()
    voice(
        trunkline, app, f"<Dial><Number>{first.number}</Number><Number>{second.number}</Number></Dial>"
    )  # fmt: skip
    calling = phone.dials(wait=False)
    lost, won = first.rings(), second.rings()
    won.answers()
    assert lost.ended().status == 487
    won.says("Me.", wait=False)
    calling.hears("Me.")
    calling.hangs_up()
    won.ended()


def test_one_phone_after_the_other(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    first, second = trunkline.phone(), trunkline.phone()
    first.is_busy()
    voice(
        trunkline, app,
        f'<Dial sequential="true"><Number>{first.number}</Number><Number>{second.number}</Number></Dial>',
    )  # fmt: skip
    calling = phone.dials(wait=False)
    called = second.answers()
    called.says("Second.", wait=False)
    calling.hears("Second.")
    calling.press("5")
    calling.hangs_up()
    called.ended()


def test_star_ends_the_connection(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    other = trunkline.phone()
    voice(trunkline, app, f'<Dial hangupOnStar="true">{other.number}</Dial><Say>You pressed star.</Say>')
    calling = phone.dials(wait=False)
    called = other.answers()
    called.says("Hello.", wait=False)
    calling.hears("Hello.")
    calling.press("*")
    called.ended()
    calling.hears("You pressed star.")
    calling.ended()


def test_the_callees_leg_gets_a_document_of_its_own(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    other = trunkline.phone()
    voice(trunkline, app, f'<Dial action="/dialed">{other.number}</Dial>')
    app.answers["/dialed"] = response("<Say>The other one was taken away.</Say>")
    calling = phone.dials(wait=False)
    called = other.answers()
    called.says("Hello.", wait=False)
    calling.hears("Hello.")
    (parent,) = app.at("/voice")
    (child,) = trunkline.client.calls.list(parent_call_sid=parent["CallSid"])
    trunkline.client.calls(child.sid).update(twiml=response("<Say>Come with me.</Say>"))
    calling.hears("The other one was taken away.")
    called.hears("Come with me.")
    called.ended()
    calling.ended()
    landed(trunkline, child.sid)


def test_a_live_call_is_recorded_by_the_api(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    made = trunkline.client.calls.create(
        to=phone.number, from_=trunkline.number, twiml=response("<Pause length='60'/>")
    )
    call = phone.answers()
    call.becomes(lambda state: state.heard_ms > 100)
    recordings = trunkline.client.calls(made.sid).recordings
    started = recordings.create(
        recording_status_callback=f"{app.url}/kept", recording_status_callback_event=["in-progress", "completed"]
    )
    assert started.status == "in-progress"
    call.says(Tone(frequencies=[LOW], ms=600))
    assert recordings("Twilio.CURRENT").update(status="paused", pause_behavior="skip").status == "paused"
    call.says(Tone(frequencies=[HIGH], ms=600))
    call.says(Silence(ms=400))  # what is held back against jitter has come through
    assert recordings(started.sid).update(status="in-progress").status == "in-progress"
    call.says(Tone(frequencies=[LOW], ms=300))
    recordings(started.sid).update(status="stopped")
    kept = app.wait("/kept", 2)[-1]
    assert (kept["RecordingStatus"], kept["RecordingSource"]) == ("completed", "StartCallRecordingAPI")
    audio = samples_of(trunkline.fetch(f"{kept['RecordingUrl']}.wav"))[:, 0]
    assert (has(audio, LOW), has(audio, HIGH)) == (True, False)
    call.hangs_up()
    landed(trunkline, made.sid)
    (listed,) = recordings.list()
    assert (listed.sid, listed.status) == (started.sid, "completed")


def test_a_call_of_the_api_is_recorded_from_its_answer(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    made = trunkline.client.calls.create(
        to=phone.number, from_=trunkline.number,
        twiml=response("<Say>This call is recorded.</Say><Pause length='60'/>"), record=True,
        recording_channels="dual", status_callback=f"{app.url}/status",
        recording_status_callback=f"{app.url}/kept",
    )  # fmt: skip
    call = phone.answers()
    call.hears("This call is recorded.")
    call.says(Tone(frequencies=[LOW], ms=500))
    call.hangs_up()
    (status,) = app.wait("/status")
    (kept,) = app.wait("/kept")
    assert status["RecordingSid"] == kept["RecordingSid"]
    both = samples_of(trunkline.fetch(f"{kept['RecordingUrl']}.wav"))
    assert has(both[:, 0], LOW)
    assert np.abs(both[:, 1]).max() > 1000, "what was said to the phone is the other channel"
    assert not has(both[:, 1], LOW)
    with wave.open(io.BytesIO(trunkline.fetch(f"{kept['RecordingUrl']}.wav"))) as file:
        assert file.getnchannels() == 2
    landed(trunkline, made.sid)


def test_a_message_is_sent_from_a_call(trunkline: Local, phone: RemotePhone, app: VoiceApp) -> None:
    voice(trunkline, app, '<Sms action="/sent">Thank you for calling</Sms>')
    app.answers["/sent"] = response("<Hangup/>")
    phone.dials().ended()
    (sent,) = app.at("/sent")
    assert sent["SmsStatus"] in ("queued", "accepted", "sending")
    until = time.monotonic() + 10
    while (message := trunkline.client.messages(sent["MessageSid"]).fetch()).status != "delivered":
        assert time.monotonic() < until, message.status
        time.sleep(0.05)
    assert (message.to, message.from_, message.body) == (phone.number, trunkline.number, "Thank you for calling")
