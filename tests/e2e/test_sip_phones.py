"""Phones that register with a SIP domain, through the whole server: made over REST with Twilio's SDK, played as phones,
answered by a web application, heard in both directions."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_calls import landed
from tests.e2e.voice_app import VoiceApp, response
from trunkline.testing.local import Local
from trunkline.testing.phones.client import RemoteSipPhone
from trunkline.testing.phones.things import Tone

LOW, HIGH = 620, 1400
PASSWORD = "Correct-Horse-7"
USERS = ("ada", "bob", "cy")
_numbers = itertools.count(1)


@pytest.fixture
def app() -> Iterator[VoiceApp]:
    app = VoiceApp()
    yield app
    app.close()


class Domain:
    """A domain with three users, whose application is `app`."""

    def __init__(self, trunkline: Local, app: VoiceApp) -> None:
        self.trunkline, self.app = trunkline, app
        self.name = f"office{next(_numbers)}-{os.getpid()}.sip.localhost"
        sip = trunkline.client.sip
        self.made = sip.domains.create(
            domain_name=self.name, sip_registration=True, voice_url=f"{app.url}/domain",
            voice_status_callback_url=f"{app.url}/status",
        )  # fmt: skip
        users = sip.credential_lists.create(friendly_name=self.name)
        self.users = {
            user: sip.credential_lists(users.sid).credentials.create(username=user, password=PASSWORD)
            for user in USERS
        }  # fmt: skip
        self.list_sid = users.sid
        self._domain: Any = sip.domains(self.made.sid)
        self._domain.auth.calls.credential_list_mappings.create(credential_list_sid=users.sid)
        self._domain.auth.registrations.credential_list_mappings.create(credential_list_sid=users.sid)

    def phone(self, user: str, transport: str = "UDP", *, registers: bool = True) -> RemoteSipPhone:
        phone = self.trunkline.sip_phone(user, PASSWORD, self.name, transport)
        if registers:
            assert phone.registers().status == 200
        return phone

    def answers(self, *verbs: str, **others: str) -> None:
        self.app.hooks.clear()
        self.app.answers["/domain"] = response(*verbs)
        for path, document in others.items():
            self.app.answers[f"/{path}"] = response(document)


@pytest.fixture
def domain(trunkline: Local, app: VoiceApp) -> Domain:
    return Domain(trunkline, app)


def talk(one: Any, two: Any) -> None:
    """Both hear each other."""
    two.becomes(lambda state: state.heard_ms > 200)
    one.says(Tone(frequencies=[LOW], ms=600), wait=False)
    two.hears_tone(LOW, ms=300)
    two.says(Tone(frequencies=[HIGH], ms=600), wait=False)
    one.hears_tone(HIGH, ms=300)


@pytest.mark.parametrize("transport", ["UDP", "TCP"])
def test_a_registered_phone_calls_another(domain: Domain, transport: str) -> None:
    ada, bob = domain.phone("ada", transport), domain.phone("bob", transport)
    domain.answers(
        f"<Dial action='/dialled' answerOnBridge='true'><Sip>{bob.uri}"
        "<Headers><Header name='X-Room' value='4'/></Headers></Sip></Dial>",
        dialled="<Hangup/>",
    )
    calling = ada.dials("200", headers={"X-Ticket": "7", "User-to-User": "abcd;encoding=hex"}, wait=False)
    called = bob.rings()
    assert called.state.remote == "ada"
    assert called.state.headers["X-Room"] == "4"
    called.answers(headers={"X-Desk": "2"})
    calling.reaches("up")
    talk(calling, called)
    called.hangs_up()
    calling.ended()
    (asked,) = domain.app.at("/domain")
    wanted = {
        "From": ada.uri, "To": f"sip:200@{domain.name}", "Direction": "inbound", "CallStatus": "ringing",
        "SipDomain": domain.name, "SipDomainSid": domain.made.sid, "SipUsername": "ada", "SipSourceIp": "127.0.0.1",
        "SipHeader_X-Ticket": "7", "SipHeader_User-to-User": "abcd;encoding=hex",
    }  # fmt: skip
    assert {name: asked.get(name) for name in wanted} == wanted
    (told,) = domain.app.wait("/dialled")
    assert (told["DialCallStatus"], told["DialSipResponseCode"]) == ("completed", "200")
    assert told["DialSipHeader_X-Desk"] == "2"
    (ended,) = domain.app.wait("/status")
    assert (ended["CallSid"], ended["CallStatus"]) == (asked["CallSid"], "completed")
    fetched = landed(domain.trunkline, asked["CallSid"])
    assert (fetched._from, fetched.to, fetched.direction) == (ada.uri, f"sip:200@{domain.name}", "inbound")


def test_all_phones_of_a_user_ring(domain: Domain) -> None:
    desk, mobile = domain.phone("bob", "UDP"), domain.phone("bob", "TCP")
    assert len(mobile.registers().contacts) == 2
    made = domain.trunkline.client.calls.create(
        to=f"{desk.uri}?X-Ticket=9", from_=domain.trunkline.number, twiml=response("<Say>Hello Bob</Say>")
    )
    one, two = desk.rings(), mobile.rings()
    assert one.state.headers["X-Ticket"] == two.state.headers["X-Ticket"] == "9"
    two.answers()
    two.hears("Hello Bob")
    assert one.ended().ended_by == "other"
    assert landed(domain.trunkline, made.sid).to == desk.uri


def test_the_best_of_all_refusals(domain: Domain) -> None:
    desk, mobile = domain.phone("bob", "UDP"), domain.phone("bob", "TCP")
    desk.off()
    mobile.is_busy()
    domain.answers(f"<Dial action='/dialled'><Sip>{desk.uri}</Sip></Dial>", dialled="<Hangup/>")
    domain.phone("ada").dials("200")
    (told,) = domain.app.wait("/dialled")
    assert (told["DialCallStatus"], told["DialSipResponseCode"]) == ("busy", "486")
    for phone in (desk, mobile):
        phone.on()


def test_who_is_not_registered_is_not_called(domain: Domain) -> None:
    bob = domain.phone("bob")
    assert bob.leaves().contacts == []
    domain.answers(f"<Dial action='/dialled'><Sip>{bob.uri}</Sip></Dial>", dialled="<Hangup/>")
    domain.phone("ada").dials("200")
    (told,) = domain.app.wait("/dialled")
    assert (told["DialCallStatus"], told["DialSipResponseCode"]) == ("no-answer", "480")
    alerts = domain.trunkline.client.monitor.v1.alerts.list(limit=20)
    assert "32009" in [alert.error_code for alert in alerts]


def test_a_stranger_neither_registers_nor_calls(domain: Domain) -> None:
    for user, password in (("ada", "wrong-Password-1"), ("nobody", PASSWORD)):
        phone = domain.trunkline.sip_phone(user, password, domain.name)
        assert phone.registers().status == 403
        assert phone.dials("200").rejected_with == 403
    assert domain.app.hooks == []


def test_a_password_that_is_changed_shuts_the_old_one_out(domain: Domain) -> None:
    phone = domain.phone("cy")
    lists = domain.trunkline.client.sip.credential_lists(domain.list_sid)
    lists.credentials(domain.users["cy"].sid).update(password="Another-Horse-8")
    assert phone.registers().status == 403
    phone.password = "Another-Horse-8"
    assert phone.registers().status == 200
    lists.credentials(domain.users["cy"].sid).delete()
    assert phone.registers().status == 403


def test_addresses_let_a_call_in_without_a_login(trunkline: Local, app: VoiceApp) -> None:
    name = f"office-pbx{next(_numbers)}-{os.getpid()}.sip.localhost"
    sip = trunkline.client.sip
    made = sip.domains.create(domain_name=name, voice_url=f"{app.url}/domain")
    allowed = sip.ip_access_control_lists.create(friendly_name=name)
    phone = trunkline.sip_phone("pbx", "", name)
    assert phone.dials(f"sip:200@{name}").rejected_with in (403, 407)
    sip.ip_access_control_lists(allowed.sid).ip_addresses.create(friendly_name="here", ip_address="127.0.0.1")
    sip.domains(made.sid).auth.calls.ip_access_control_list_mappings.create(ip_access_control_list_sid=allowed.sid)
    app.answers["/domain"] = response("<Say>Welcome</Say>")
    call = phone.dials(f"sip:200@{name}")
    call.hears("Welcome")
    assert "SipUsername" not in app.at("/domain")[0]


def test_a_registration_outlives_the_node(domain: Domain) -> None:
    """Over UDP it goes on; a phone on a connection sees it close, and would register again."""
    udp, tcp = domain.phone("ada", "UDP"), domain.phone("bob", "TCP")
    pid = node_of(domain.trunkline)
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 20
    while node_of(domain.trunkline) in (0, pid) or not domain.trunkline._ready():
        assert time.monotonic() < until, domain.trunkline.log_tail()
        time.sleep(0.05)
    domain.trunkline.client.calls.create(
        to=udp.uri, from_=domain.trunkline.number, twiml=response("<Say>Still there</Say>")
    )
    udp.answers().hears("Still there")
    gone = domain.trunkline.client.calls.create(
        to=tcp.uri, from_=domain.trunkline.number, twiml=response("<Say>No</Say>")
    )
    landed(domain.trunkline, gone.sid, "no-answer")
    assert tcp.registers().status == 200


def node_of(trunkline: Local) -> int:
    """The pid of the node below the supervisor; 0: there is none just now."""
    assert trunkline._process is not None
    top = trunkline._process.pid
    for child in Path(f"/proc/{top}/task/{top}/children").read_text().split():
        try:
            command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"trunkline" in command:
            return int(child)
    return 0
