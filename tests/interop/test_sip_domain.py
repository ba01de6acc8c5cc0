"""baresip as the phone of a SIP domain: it registers, calls another registered phone through `<Dial><Sip>`, and both
hear each other, over UDP and TCP."""

import secrets
from collections.abc import Sequence

import pytest

from tests.interop.baresip import Baresip
from tests.interop.phone_calls import SAID, Start, says, starts  # noqa: F401  (fixtures)
from tests.interop.switch import Switch

PASSWORD = "Correct-Horse-7"
REGISTERED = "200 OK (Trunkline) [1 binding]"
"""What baresip prints."""


class Office:
    """A domain on the switch, made over REST."""

    def __init__(
        self, switch: Switch, name: str, *, secure: bool = False, staff: Sequence[str] = ("alice", "bob", "carol")
    ) -> None:
        self.name = f"{name}-{secrets.token_hex(4)}.sip.localhost"
        sip = switch.client.sip
        made = sip.domains.create(
            domain_name=self.name, sip_registration=True, secure=secure, voice_url=f"{switch.app.url}/domain",
            voice_status_callback_url=f"{switch.app.url}/status",
        )  # fmt: skip
        users = sip.credential_lists.create(friendly_name=self.name)
        for user in staff:
            sip.credential_lists(users.sid).credentials.create(username=user, password=PASSWORD)
        for kind in (sip.domains(made.sid).auth.calls, sip.domains(made.sid).auth.registrations):
            kind.credential_list_mappings.create(credential_list_sid=users.sid)
        self.switch = switch

    def phone(
        self, start: Start, user: str, transport: str, password: str = PASSWORD, port: int = 0, **more: str
    ) -> Baresip:
        switch = self.switch
        proxy = f"sip:{switch.host}:{port or switch.sip_port};transport={transport.lower()}"
        return start(user=user, transport=transport, domain=self.name, password=password, proxy=proxy, **more)


@pytest.mark.parametrize(("ours", "theirs"), [("UDP", "UDP"), ("TCP", "TCP"), ("UDP", "TCP")])
def test_one_registered_phone_calls_another(switch: Switch, start: Start, ours: str, theirs: str) -> None:
    office = Office(switch, f"office-{ours}-{theirs}".lower())
    port = 0 if theirs == "UDP" else switch.sip_port  # of several nodes the one that has a connection calls by it
    alice, bob = office.phone(start, "alice", ours, port=port), office.phone(start, "bob", theirs, port=port)
    for phone in (alice, bob):
        phone.prints(REGISTERED)
    switch.app.hooks.clear()
    switch.app.answers["/domain"] = (
        f"<Response><Dial action='/dialled'><Sip>sip:bob@{office.name}</Sip></Dial></Response>"
    )
    switch.app.answers["/dialled"] = "<Response><Hangup/></Response>"
    alice.does("dial", f"sip:200@{office.name}")
    for phone in (alice, bob):
        phone.sees("CALL_ESTABLISHED")
    for phone in (alice, bob):
        phone.receives(60)
    for phone in (alice, bob):
        phone.hears(SAID[8000:12_000])
    bob.does("hangup")
    alice.sees("CALL_CLOSED")
    (asked,) = switch.app.at("/domain")
    assert (asked["From"], asked["To"]) == (f"sip:alice@{office.name}", f"sip:200@{office.name}")
    assert asked["SipUsername"] == "alice"
    (told,) = switch.app.wait("/dialled")
    assert told["DialCallStatus"] == "completed"
    assert switch.ends() == ["completed"]


def test_a_wrong_password_does_not_register(switch: Switch, start: Start) -> None:
    office = Office(switch, "wrong")
    office.phone(start, "alice", "UDP", "Wrong-Horse-1").prints("403 Forbidden")


def test_it_leaves_when_it_ends(switch: Switch, start: Start) -> None:
    office = Office(switch, "leaves")
    bob = office.phone(start, "bob", "UDP")
    bob.prints(REGISTERED)
    bob.does("uadel", f"sip:bob@{office.name}")
    switch.app.hooks.clear()
    made = switch.calls(f"sip:bob@{office.name}", "<Say>Nobody</Say>")
    assert switch.landed(made.sid).status == "no-answer"
