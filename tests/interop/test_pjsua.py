"""pjsua2 (PJSIP) and baresip as the phones of one SIP domain: they register over each transport and call each other
through `<Dial><Sip>`, with SRTP and without, and both hear each other."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.baresip import Baresip, sound, write_wav
from tests.interop.phone_calls import SAID, Start, says, starts  # noqa: F401  (fixtures)
from tests.interop.pjsua import Pjsua
from tests.interop.switch import Switch
from tests.interop.test_baresip_srtp import Ports, ports, secured, switch  # noqa: F401  (fixtures)
from tests.interop.test_sip_domain import PASSWORD, REGISTERED, Office

OURS = sound(20, 5)
"""What pjsua says; baresip says SAID."""
PART = slice(8000, 12_000)
StartPjsua = Callable[..., Pjsua]


@pytest.fixture(name="pjsua")
def pjsuas(switch: Switch, ports: Ports, tmp_path: Path) -> Iterator[StartPjsua]:  # noqa: F811
    """Start phones of a domain."""
    file = write_wav(tmp_path / "ours.wav", OURS)
    made: list[Pjsua] = []

    def start(office: Office, user: str, transport: str, **more: str) -> Pjsua:
        port = ports.server if transport == "TLS" else switch.sip_port
        proxy = f"sip:{switch.host}:{port};transport={transport.lower()}"
        made.append(Pjsua(
            tmp_path / f"pjsua{len(made)}", file, user=user, password=PASSWORD, domain=office.name, proxy=proxy,
            transport=transport, **more,
        ))  # fmt: skip
        return made[-1]

    yield start
    for one in made:
        one.close()


@pytest.mark.parametrize(
    ("transport", "srtp", "codec"),
    [("UDP", "srtp", "PCMU"), ("TCP", "", "PCMA"), ("TLS", "srtp", "PCMU")],
)
def test_they_call_each_other(
    switch: Switch, start: Start, pjsua: StartPjsua, ports: Ports, transport: str, srtp: str, codec: str  # noqa: F811
) -> None:  # fmt: skip
    secure = transport == "TLS"
    office = Office(switch, f"pjsua-{transport}".lower(), secure=secure)
    alice = pjsua(office, "alice", transport, srtp=srtp, codec=codec)
    bob = office.phone(
        start, "bob", transport, port=ports.server if secure else 0, srtp="srtp-mand" if secure else "",
        certificate=ports.certificate if secure else "", codecs=codec,
    )  # fmt: skip
    assert alice.sees("registered")["status"] == 200
    bob.prints(REGISTERED)
    switch.answers(dialled="<Hangup/>")
    for user in ("bob", "alice"):
        switch.app.answers[f"/{user}"] = ""
    switch.app.answers["/domain"] = lambda form: (
        f"<Response><Dial action='/dialled'><Sip>"
        f"sip:{'bob' if form['SipUsername'] == 'alice' else 'alice'}@{office.name}</Sip></Dial></Response>"
    )
    alice.does("dial", uri=f"sip:200@{office.name}")
    talk(alice, bob, 0, bool(srtp))
    alice.does("hangup")
    bob.sees("CALL_CLOSED")
    (told,) = switch.app.wait("/dialled")
    assert told["DialCallStatus"] == "completed"
    if srtp:
        assert secured(switch) is secure
    if srtp and not secure:
        return  # a phone is only offered SRTP if its domain is secure
    bob.forgets()
    bob.does("dial", f"sip:201@{office.name}")
    talk(alice, bob, 1, bool(srtp))
    bob.does("hangup")
    alice.sees("state", state="DISCONNECTED", call=1)
    assert switch.app.wait("/dialled", 2)[1]["DialCallStatus"] == "completed"
    assert switch.ends(2) == ["completed"] * 2


def talk(alice: Pjsua, bob: Baresip, call: int, srtp: bool) -> None:
    """Both hear each other."""
    assert alice.sees("media", call=call)["srtp"] is srtp
    bob.sees("CALL_ESTABLISHED")
    alice.hears(SAID[PART], call)
    bob.hears(OURS[PART])
