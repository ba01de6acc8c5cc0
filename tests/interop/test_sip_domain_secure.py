"""baresip as the phone of a secure SIP domain: it registers over TLS and calls another one; both have SRTP."""

import pytest

from tests.interop.phone_calls import SAID, Start, says, starts  # noqa: F401  (fixtures)
from tests.interop.switch import Switch
from tests.interop.test_baresip_srtp import Ports, ports, secured, switch  # noqa: F401  (fixtures)
from tests.interop.test_sip_domain import REGISTERED, Office


@pytest.fixture(scope="module")
def office(switch: Switch) -> Office:  # noqa: F811
    return Office(switch, "secure", secure=True)


def test_one_registered_phone_calls_another_with_tls_and_srtp(
    switch: Switch, start: Start, ports: Ports, office: Office  # noqa: F811
) -> None:  # fmt: skip
    alice, bob = [
        office.phone(start, user, "TLS", port=ports.server, srtp="srtp-mand", certificate=ports.certificate)
        for user in ("alice", "bob")
    ]
    for phone in (alice, bob):
        phone.prints(REGISTERED)
    switch.answers()
    switch.app.answers["/domain"] = (
        f"<Response><Dial action='/dialled'><Sip>sip:bob@{office.name}</Sip></Dial></Response>"
    )
    switch.app.answers["/dialled"] = "<Response><Hangup/></Response>"
    alice.does("dial", f"sip:200@{office.name}")
    for phone in (alice, bob):
        phone.sees("CALL_ESTABLISHED")
    for phone in (alice, bob):
        phone.receives(60)
        phone.hears(SAID[8000:12_000])
    bob.does("hangup")
    alice.sees("CALL_CLOSED")
    (told,) = switch.app.wait("/dialled")
    assert told["DialCallStatus"] == "completed"
    assert secured(switch)


def test_a_secure_domain_refuses_udp(switch: Switch, start: Start, office: Office) -> None:  # noqa: F811
    office.phone(start, "alice", "UDP").prints("403 Forbidden")
