"""A trunk of an account through the whole server: made over REST with Twilio's SDK, its PBX played by simulated phones,
heard in both directions."""

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.test_calls import landed
from tests.e2e.test_sip_phones import PASSWORD, talk
from tests.e2e.voice_app import VoiceApp, response
from trunkline.sip.uri import Uri
from trunkline.testing.local import Local

_numbers = itertools.count(1)


class Trunk:
    """A trunk with a login, and the account's number."""

    def __init__(self, trunkline: Local) -> None:
        self.trunkline = trunkline
        name = f"pbx{next(_numbers)}-{os.getpid()}"
        self.host = f"{name}.pstn.localhost"
        client = trunkline.client
        self.made = client.trunking.v1.trunks.create(domain_name=self.host)
        self.api: Any = client.trunking.v1.trunks(self.made.sid)
        users = client.sip.credential_lists.create(friendly_name=name)
        # Whoever logs in shows his user name as From: a number of the account.
        login = client.sip.credential_lists(users.sid).credentials
        for user in (trunkline.number, "+15005550099"):
            login.create(username=user, password=PASSWORD)
        self.api.credentials_lists.create(credential_list_sid=users.sid)
        (self.number,) = client.incoming_phone_numbers.list(phone_number=trunkline.number)
        self.air = self._air(client, name, users.sid)

    def _air(self, client: Any, name: str, users: str) -> str:
        """Where the simulated phones are, as one of them registers it."""
        host = f"{name}.sip.localhost"
        domain = client.sip.domains.create(domain_name=host, sip_registration=True)
        client.sip.domains(domain.sid).auth.registrations.credential_list_mappings.create(credential_list_sid=users)
        (contact,) = self.trunkline.sip_phone(self.trunkline.number, PASSWORD, host).registers().contacts
        uri = Uri.parse(contact.strip("<>").partition(">")[0])
        return f"{uri.host}:{uri.port}"

    def leads_to(self, address: str, priority: int = 1) -> None:
        self.api.origination_urls.create(
            sip_url=f"sip:{address}", priority=priority, weight=1, enabled=True, friendly_name=address
        )

    def dials(self, to: str, user: str = "", password: str = PASSWORD) -> Any:
        phone = self.trunkline.sip_phone(user or self.trunkline.number, password, self.host)
        assert phone.registers().status >= 400  # nobody registers with a trunk; it knows its login from here on
        return phone.dials(f"sip:{to}@{self.host}", wait=False)


@pytest.fixture
def trunk(trunkline: Local) -> Iterator[Trunk]:
    trunk = Trunk(trunkline)
    yield trunk
    for one in trunk.api.phone_numbers.list():
        trunk.api.phone_numbers(one.sid).delete()


def the_call(trunk: Trunk, direction: str) -> Any:
    found = [one for one in trunk.trunkline.client.calls.list(limit=20) if one.trunk_sid == trunk.made.sid]
    assert [one.direction for one in found] == [direction]
    return found[0]


def test_a_pbx_calls_out(trunk: Trunk) -> None:
    outside = trunk.trunkline.phone("+14155550123")
    calling = trunk.dials("+14155550123")
    called = outside.rings()
    assert called.state.remote == trunk.trunkline.number
    called.answers()
    calling.reaches("up")
    talk(calling, called)
    called.hangs_up()
    calling.ended()
    call = landed(trunk.trunkline, the_call(trunk, "trunking-terminating").sid)
    assert (call._from, call.to, call.status) == (trunk.trunkline.number, "+14155550123", "completed")


def test_a_pbx_learns_that_somebody_is_busy(trunk: Trunk) -> None:
    trunk.trunkline.phone("+14155550124").is_busy()
    assert trunk.dials("+14155550124").ended().status == 486


def test_whom_a_trunk_does_not_let_out(trunk: Trunk) -> None:
    for user, password in (("", "wrong-Password-1"), ("+15005550099", PASSWORD)):
        assert trunk.dials("+14155550125", user, password).ended().status == 403
    assert [one for one in trunk.trunkline.client.calls.list(limit=20) if one.trunk_sid == trunk.made.sid] == []


def test_a_number_of_the_trunk_rings_at_the_pbx(trunk: Trunk) -> None:
    trunk.leads_to(trunk.air)
    trunk.api.phone_numbers.create(phone_number_sid=trunk.number.sid)
    outside, pbx = trunk.trunkline.phone(), trunk.trunkline.phone(trunk.trunkline.number)
    calling = outside.dials(trunk.trunkline.number, wait=False)
    called = pbx.rings()
    assert called.state.remote == outside.number
    called.answers()
    calling.reaches("up")
    talk(calling, called)
    called.hangs_up()
    calling.ended()
    call = landed(trunk.trunkline, the_call(trunk, "trunking-originating").sid)
    assert (call._from, call.to) == (outside.number, trunk.trunkline.number)


def test_disaster_recovery(trunk: Trunk) -> None:
    app = VoiceApp()
    app.answers["/recovery"] = response("<Say>The office is closed</Say>")
    trunk.api.update(disaster_recovery_url=f"{app.url}/recovery")
    trunk.leads_to("127.0.0.1:9")
    trunk.api.phone_numbers.create(phone_number_sid=trunk.number.sid)
    calling = trunk.trunkline.phone().dials(trunk.trunkline.number, wait=False)
    calling.hears("The office is closed")
    (told,) = app.at("/recovery")
    assert told["DialCallStatus"] in ("failed", "no-answer")
    app.close()
