"""Calls of pjsua2 (PJSIP) and baresip that change: held and resumed, refreshed, transferred blindly and attended."""

import pytest

from tests.interop.phone_calls import GREETING, SAID, Start, says, starts  # noqa: F401  (fixtures)
from tests.interop.pjsua import Pjsua
from tests.interop.switch import HOST, Switch
from tests.interop.test_baresip_srtp import Ports, ports, switch  # noqa: F401  (fixtures)
from tests.interop.test_pjsua import OURS, PART, StartPjsua, pjsuas  # noqa: F401  (fixtures)
from tests.interop.test_sip_domain import REGISTERED, Office

LATER = slice(32_000, 36_000)
"""Said 4 s after the call began."""


def registered(phone: Pjsua) -> Pjsua:
    assert phone.sees("registered")["status"] == 200
    return phone


@pytest.mark.parametrize("srtp", ["", "srtp"])
def test_it_holds_and_resumes(switch: Switch, start: Start, pjsua: StartPjsua, srtp: str) -> None:  # noqa: F811
    """With SRTP it has called, for it is offered none by UDP."""
    office = Office(switch, f"holds{srtp}")
    alice = registered(pjsua(office, "alice", "UDP", srtp=srtp))
    greeting = f"<Play loop='0'>{switch.app.url}/greeting.wav</Play>"
    switch.answers()
    switch.app.answers["/domain"] = f"<Response>{greeting}</Response>"
    if srtp:
        alice.does("dial", uri=f"sip:200@{office.name}")
    else:
        switch.calls(f"sip:alice@{office.name}", greeting)
    assert alice.sees("media", call=0)["srtp"] is bool(srtp)
    alice.hears(GREETING)
    alice.does("hold")
    alice.sees("held")
    alice.does("resume")
    alice.sees("media")
    before = len(alice.heard(0))
    alice.hears(GREETING, after=before)
    alice.does("update")
    alice.hears(GREETING, after=len(alice.heard(0)))
    assert "UPDATE sip:" in alice.log()
    alice.does("hangup")
    assert switch.ends() == ["completed"]


@pytest.mark.parametrize("who", ["pjsua calls", "baresip is called"])
def test_one_is_transferred(switch: Switch, start: Start, pjsua: StartPjsua, who: str) -> None:  # noqa: F811
    """Blindly: whom the phone talked with is connected with a third one, as `referUrl` says."""
    office = Office(switch, who.replace(" ", "-"))
    alice = registered(pjsua(office, "alice", "TCP"))
    bob, carol = office.phone(start, "bob", "UDP"), office.phone(start, "carol", "UDP")
    for phone in (bob, carol):
        phone.prints(REGISTERED)
    switch.answers(refer=f"<Dial><Sip>sip:carol@{office.name}</Sip></Dial>")
    switch.app.answers["/domain"] = (
        f"<Response><Dial referUrl='/refer'><Sip>sip:bob@{office.name}</Sip></Dial></Response>"
    )
    alice.does("dial", uri=f"sip:200@{office.name}")
    bob.sees("CALL_ESTABLISHED")
    bob.hears(OURS[PART])
    before = len(alice.heard(0))
    target = f"sip:carol@{office.name}"
    if who == "pjsua calls":
        alice.does("transfer", uri=target)
        alice.sees("transfer", status=200)
        alice.sees("state", state="DISCONNECTED")
    else:
        bob.does("transfer", target)
        bob.sees("CALL_CLOSED")
    (asked,) = switch.app.wait("/refer")
    assert target in asked["ReferTransferTarget"]
    carol.sees("CALL_ESTABLISHED")
    if who == "pjsua calls":
        bob.hears(SAID[PART])
        carol.hears(SAID[LATER])
    else:
        alice.hears(SAID[PART], after=before)
        carol.hears(OURS[LATER])
    carol.does("hangup")


def test_one_takes_over(switch: Switch, start: Start, pjsua: StartPjsua) -> None:  # noqa: F811
    """An attended transfer: alice talks with bob through us and calls carol directly, who takes her place (Replaces);
    at once, while alice's audio is still under way."""
    office = Office(switch, "attended")
    alice, carol = registered(pjsua(office, "alice", "UDP")), registered(pjsua(office, "carol", "UDP"))
    bob = office.phone(start, "bob", "UDP")
    bob.prints(REGISTERED)
    switch.answers()
    switch.app.answers["/domain"] = f"<Response><Dial><Sip>sip:bob@{office.name}</Sip></Dial></Response>"
    alice.does("dial", uri=f"sip:200@{office.name}")
    bob.sees("CALL_ESTABLISHED")
    alice.does("dial", uri=f"sip:carol@{HOST}:{carol.port}", direct=True)
    carol.sees("state", call=0, state="CONFIRMED")
    alice.does("attend", first=1, second=0)
    carol.sees("referred")
    alice.sees("transfer", status=200)
    alice.sees("state", call=0, state="DISCONNECTED")
    carol.sees("state", call=1, state="CONFIRMED")
    carol.hears(SAID[LATER], 1)
    carol.does("hangup", call=1)
    bob.sees("CALL_CLOSED")
    assert switch.ends() == ["completed"]
