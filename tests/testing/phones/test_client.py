"""Phones as a test plays them: blocking, over the control surface."""

import asyncio
import threading
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import msgspec
import pytest

from tests.testing.phones.studio import TuneStudio
from trunkline.testing.phones.client import CallFailed, NotHeard, RemotePhone
from trunkline.testing.phones.control import Control
from trunkline.testing.phones.exchange import PhoneExchange
from trunkline.testing.phones.things import Tone


class Server:
    """An exchange in a thread of its own, asked as `testing.local.Local` asks."""

    number = "+15555550100"

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.exchange = PhoneExchange()
        self.control = Control(self.exchange, TuneStudio())
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.run(self.exchange.start())

    def run(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def simulator(self, method, path, document=None):
        path, _, query = path.removeprefix("/_simulator/").partition("?")
        body = b"" if document is None else msgspec.json.encode(document)
        answer = self.run(self.control.handle(method, unquote(path), dict(parse_qsl(query)), body))
        assert answer.status < 300, answer.body
        return msgspec.json.decode(answer.body) if answer.content_type == "application/json" else answer.body

    def close(self) -> None:
        self.run(self.exchange.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def ada(server):
    return RemotePhone(server, "+15555550101")


@pytest.fixture
def bob(server):
    return RemotePhone(server, "+15555550102")


def test_a_whole_call(ada, bob):
    calling = ada.dials(bob.number, wait=False, headers={"X-Room": "9"})
    answered = bob.answers()
    assert calling.reaches("up").state == "up"
    assert answered.state.headers["X-Room"] == "9"
    calling.says("Hello Bob")
    answered.hears("Hello Bob")
    answered.says(Tone(frequencies=[440], ms=400), wait=False)
    calling.hears_tone(440, ms=300)
    calling.hears_silence(0.3)
    calling.press("12#")
    answered.hears_keys("12#")
    assert answered.keys == "12#"
    calling.holds()
    assert answered.state.held
    calling.resumes()
    assert answered.heard_wav().startswith(b"RIFF")
    answered.hangs_up()
    assert calling.ended().ended_by == "other"
    assert calling.rejected_with == 0


def test_a_failure_says_what_was_heard_instead(ada, bob):
    bob.picks_up()
    calling = ada.dials(bob.number)
    answered = bob.rings()
    calling.says("One")
    with pytest.raises(
        NotHeard, match=r"not heard within 0.5 s: the text 'Two'\n.*the call is up; heard since 0.0 s: "
    ):
        answered.hears("Two", timeout_s=0.5)
    calling.hangs_up()
    with pytest.raises(NotHeard, match=r"1 s of silence\n.*ended by the other"):
        answered.hears_silence(1)
    with pytest.raises(NotHeard, match="ended"):
        answered.hears_keys("5", timeout_s=5)


@pytest.mark.parametrize(
    ("behave", "status"),
    [
        (RemotePhone.declines, 603),
        (RemotePhone.is_busy, 486),
        (RemotePhone.off, 480),
        (lambda phone: phone.rejects(503), 503),
    ],
)
def test_refusals(ada, bob, behave, status):
    behave(bob)
    assert ada.dials(bob.number).rejected_with == status
    bob.on()
    call = ada.dials(bob.number, wait=False)
    bob.rings().declines(404)
    call.ended()
    assert call.rejected_with == 404


def test_a_phone_that_never_answers(ada, bob):
    bob.never_answers()
    with pytest.raises(CallFailed, match=r"not up after 0.2 s"):
        ada.dials(bob.number, timeout_s=0.2)
    ringing = bob.rings()
    assert ringing.state.state == "ringing"
    with pytest.raises(CallFailed, match="did not ring"):
        bob.rings(timeout_s=0.1)


def test_the_next_call_is_the_next_one(ada, bob):
    for _ in range(2):
        calling = ada.dials(bob.number, wait=False)
        answered = bob.answers()
        assert calling.reaches("up").state == "up"
        calling.hangs_up()
        answered.ended()
    assert answered.id == 2


def test_files_are_named_in_full(ada, bob, monkeypatch):
    asked = []
    bob.picks_up()
    calling = ada.dials(bob.number)
    monkeypatch.setattr(calling, "_do", lambda deed, **more: asked.append(more) or {"heard": True})
    calling.says(Path("a.wav"))
    assert asked[0]["what"] == {"kind": "file", "path": str(Path("a.wav").absolute())}
