"""Phones that register: logins, what stands, what survives, and what strangers can do (nothing)."""

import random
from types import SimpleNamespace

import pytest

from trunkline.model.account import Account
from trunkline.model.sip_domain import Ha1, SipDomain
from trunkline.settings import Sip
from trunkline.sip import digest
from trunkline.sip.flow import Flow
from trunkline.sip.message import Request
from trunkline.sip.registrar import way_to
from trunkline.storage.memory import InProcess
from trunkline.testing.clock import ManualClock
from trunkline.voice.logins import Logins
from trunkline.voice.registrations import Registrations, read

AC = "AC" + "a" * 32
SD = "SD" + "d" * 32
REALM = "trunkline"
HOST = "acme.sip.localhost"
FLOW = Flow("UDP", ("127.0.0.9", 5062), ("127.0.0.1", 5060))
USERS = {"alice": "s3cret", "bob": "hunter2", "a/b": "slash"}


class Directory:
    """One account with one domain."""

    def __init__(self) -> None:
        self.owner = Account(sid=AC, account_sid=AC, owner_account_sid=AC, status="active")
        self.domain = SipDomain(sid=SD, account_sid=AC, domain_name=HOST, name="acme", sip_registration=True)
        self.users = dict(USERS)

    def account(self, sid):
        return self.owner if sid == AC else None

    def sip_domain(self, host):
        return self.domain if host.lower() == HOST else None

    def is_sip_name(self, host):
        return host.lower().endswith(".sip.localhost")

    def sip_login(self, domain_sid, username, purpose):
        assert (domain_sid, purpose) == (SD, "registrations")
        password = self.users.get(username)
        if password is None:
            return ()
        hashes = [digest.ha1(name, username, REALM, password) for name in ("MD5", "SHA-256")]
        return (Ha1(*hashes, REALM),)


class Place:
    """A registrar, and phones that talk to it."""

    def __init__(self, memory=None, clock=None, algorithms=("MD5",), **sip) -> None:
        self.clock = clock or ManualClock()
        self.directory = Directory()
        self.memory = memory or InProcess(self.clock)
        self.failed, self.alerts = [], []
        logins = Logins(REALM, b"secret", self.clock, algorithms, self.failed.append)
        alerts = SimpleNamespace(raise_=lambda account, code, **more: self.alerts.append((account, code)))
        self.registrations = Registrations(self.memory, self.directory, alerts, logins, Sip(**sip), self.clock)
        self.cseq = 0

    def request(self, user="alice", contact="<sip:alice@127.0.0.9:5062>", host=HOST, to="", call_id="", **headers):
        self.cseq += 1
        fields = [
            ("Via", "SIP/2.0/UDP 127.0.0.9:5062;branch=z9hG4bK1"),
            ("From", f"<sip:{user}@{HOST}>;tag=1"),
            ("To", to or f"<sip:{user}@{host}>"),
            ("Call-ID", call_id or f"call-{user}"),
            ("CSeq", f"{self.cseq} REGISTER"),
            *([("Contact", contact)] if contact else []),
            *[(name.replace("_", "-"), value) for name, value in headers.items()],
        ]
        return Request.make("REGISTER", f"sip:{host}", headers=fields)

    def send(self, request, flow=FLOW):
        return self.registrations.register(request, flow)

    def registers(self, user="alice", password=None, flow=FLOW, nc=1, challenge=None, **more):
        """The whole exchange: 401, then with the login."""
        if challenge is None:
            status, headers = self.send(self.request(user, **more), flow)
            if status != 401:
                return status, headers
            challenge = digest.parse_challenge(dict(headers)["WWW-Authenticate"])
        request = self.request(user, **more)
        password = USERS.get(user, "none") if password is None else password
        answer = digest.answer(challenge, user, password, "REGISTER", request.uri, "cnonce", nc)
        request.headers.add("Authorization", answer)
        self.last = request, challenge
        return self.send(request, flow)

    def contacts(self, user="alice"):
        return [one.uri for one in self.registrations.contacts(self.directory.domain, user)]


def test_a_phone_registers_and_is_found():
    here = Place()
    status, headers = here.registers()
    assert status == 200
    assert dict(headers)["Contact"].startswith("<sip:alice@127.0.0.9:5062>;expires=3600")
    assert here.contacts() == ["sip:alice@127.0.0.9:5062"]
    assert here.registrations.count == 1
    assert here.registrations.counters == {"challenged": 1, "registered": 1}
    assert here.failed == []


@pytest.mark.parametrize("algorithms", [("MD5",), ("SHA-256",), ("SHA-256", "MD5")])
def test_algorithms_are_offered_in_their_order(algorithms):
    here = Place(algorithms=algorithms)
    _, headers = here.send(here.request())
    offered = [digest.parse_challenge(value) for _, value in headers]
    assert [one.algorithm for one in offered] == list(algorithms)
    assert all(one.realm == REALM and one.qop == ("auth",) for one in offered)
    for challenge in offered:
        assert here.registers(challenge=challenge)[0] == 200


@pytest.mark.parametrize(
    ("user", "password"), [("alice", "wrong"), ("alice", ""), ("nobody", "s3cret"), ("ALICE", "s3cret")]
)
def test_a_wrong_login_tells_nothing(user, password):
    here = Place()
    status, headers = here.registers(user, password)
    assert (status, headers) == (403, [])
    assert here.failed == ["127.0.0.9"]
    assert here.registrations.count == 0
    assert here.alerts == [(AC, 32212)]
    here.registers(user, password)
    assert here.alerts == [(AC, 32212)]  # once a minute


def test_who_is_unknown_is_verified_all_the_same(monkeypatch):
    """Else the time that an answer takes would tell which users there are."""
    here = Place()
    verified = []
    real = digest.verify
    monkeypatch.setattr(digest, "verify", lambda *args: verified.append(args[0].username) or real(*args))
    for user in ("alice", "nobody"):
        here.registers(user, "wrong")
    assert verified == ["alice", "nobody"]


def test_nobody_registers_for_somebody_else():
    here = Place()
    assert here.registers("bob", to=f"<sip:alice@{HOST}>")[0] == 403
    assert here.registers("alice", to="<sip:alice@elsewhere.example>")[0] == 403
    assert here.registers("alice", to="<tel:+12025550100>")[0] == 403
    assert here.registrations.count == 0


@pytest.mark.parametrize(
    ("change", "status", "alerts"),
    [
        (lambda one: setattr(one.owner, "status", "suspended"), 401, []),
        (lambda one: setattr(one.domain, "sip_registration", False), 401, [(AC, 32210)]),
        (lambda one: setattr(one.domain, "secure", True), 403, [(AC, 32209)]),
        (lambda one: setattr(one.domain, "account_sid", "AC" + "0" * 32), 401, []),
    ],
)
def test_domains_that_take_no_phones(change, status, alerts):
    here = Place()
    change(here.directory)
    assert here.send(here.request())[0] == status
    assert here.alerts == alerts
    assert here.registers()[0] == 403
    assert here.registrations.count == 0


def test_strangers_do_not_learn_which_domains_there_are():
    """The answers to a domain that does not exist are those of one that has no such user."""
    here = Place()
    answers = []
    for host in (HOST, "none.sip.localhost"):
        challenged = here.send(here.request("eve", host=host))
        assert challenged[1][0][1].partition("nonce")[0] == 'Digest realm="trunkline", '
        answers.append((challenged[0], here.registers("eve", "guess", host=host)))
    assert answers == [(401, (403, []))] * 2
    assert here.failed == ["127.0.0.9"] * 2


@pytest.mark.parametrize("host", ["elsewhere.example", "127.0.0.1", "sip.localhost"])
def test_other_hosts_are_not_ours(host):
    here = Place()
    assert here.send(here.request(host=host))[0] == 404


def test_a_login_is_good_for_one_request():
    here = Place()
    here.registers()
    request, challenge = here.last
    assert here.send(request)[0] == 200  # the same once more: it was lost on the way, and changes nothing
    other = here.request(contact="<sip:mallory@127.0.0.66>")
    other.headers.add("Authorization", request.headers.get("Authorization"))
    status, headers = here.send(other)
    assert status == 401
    assert "stale=true" in dict(headers)["WWW-Authenticate"]
    assert here.contacts() == ["sip:alice@127.0.0.9:5062"]
    assert here.registers(challenge=challenge, nc=2)[0] == 200
    assert here.registers(challenge=challenge, nc=2)[0] == 401


def test_a_login_is_good_for_one_source():
    here = Place()
    here.registers()
    request, _ = here.last
    assert here.send(request, FLOW._replace(remote=("127.0.0.66", 5062)))[0] == 401


def test_a_nonce_grows_old():
    here = Place()
    here.registers()
    _, challenge = here.last
    here.clock.advance(301)
    status, headers = here.registers(challenge=challenge, nc=2)
    assert (status, "stale=true" in dict(headers)["WWW-Authenticate"]) == (401, True)


@pytest.mark.parametrize(
    "credentials",
    [
        "Basic YWxpY2U6czNjcmV0", "Digest", "Digest username=", 'Digest username="alice"', "\x00",
        'Digest username="alice", realm="trunkline", nonce="00", uri="sip:x", response="0"',
        f'Digest username="alice", realm="trunkline", nonce="{"0" * 50}", uri="sip:x", response="{"f" * 32}"',
        'Digest username="alice", realm="other", nonce="0", uri="sip:x", response="0"', "Digest " + "a=b," * 5000,
    ],
)  # fmt: skip
def test_credentials_that_are_none(credentials):
    here = Place()
    request = here.request()
    request.headers.add("Authorization", credentials)
    assert here.send(request)[0] == 401
    assert here.failed == []


def test_a_login_of_a_proxy_on_the_way_is_passed_over():
    here = Place()
    here.registers(Authorization='Digest username="x", realm="proxy", nonce="1", uri="sip:x", response="0"')
    assert here.registrations.count == 1


async def test_another_process_knows_the_phones():
    here = Place()
    here.registers()
    here.registers("a/b", contact="<sip:ab@127.0.0.9:5062>")
    here.registers("bob", contact="<sip:bob@127.0.0.9;transport=tcp>", flow=FLOW._replace(transport="TCP", id=3))
    here.clock.advance(10)
    there = Place(here.memory, here.clock)
    assert await there.registrations.load() == 2
    assert there.contacts() == ["sip:alice@127.0.0.9:5062"]
    assert there.contacts("a/b") == ["sip:ab@127.0.0.9:5062"]
    assert there.contacts("bob") == []  # his connection died with the process
    assert [name for name, _ in await here.memory.scan("register/")] == [f"register/{SD}/alice", f"register/{SD}/a/b"]
    there.cseq = 50
    assert there.registers(contact="<sip:alice@127.0.0.9:5062>;expires=0")[0] == 200
    assert there.registrations.count == 1


async def test_what_cannot_be_read_is_dropped():
    here = Place()
    here.memory.post(f"register/{SD}/alice", b"\xc1")
    assert await here.registrations.load() == 0
    assert await here.memory.scan("register/") == []
    assert read("register/SD1/a", b"nonsense") is None


async def test_a_phone_lapses():
    here = Place()
    here.registers(contact="<sip:alice@127.0.0.9>;expires=60")
    here.registers("bob", contact="<sip:bob@127.0.0.9>;expires=600")
    here.clock.advance(61)
    assert here.contacts() == []
    assert here.registrations.stand() == 1
    assert [name for name, _ in await here.memory.scan("register/")] == [f"register/{SD}/bob"]
    assert here.contacts("bob") == ["sip:bob@127.0.0.9"]


def test_lapsed_phones_leave_while_others_come():
    here = Place()
    here.registers(contact="<sip:alice@127.0.0.9>;expires=60")
    here.clock.advance(61)
    here.registers("bob", contact="<sip:bob@127.0.0.9>")
    assert here.registrations.count == 1


def test_a_connection_closes():
    here = Place()
    wire = FLOW._replace(transport="TCP", id=7)
    here.registers(flow=wire)
    here.registers("bob", contact="<sip:bob@127.0.0.9>", flow=wire, Path="<sip:127.0.0.9;lr>")
    here.registers("a/b", contact="<sip:ab@127.0.0.9>", flow=wire._replace(id=8))
    here.registrations.flow_closed(wire)
    assert [here.contacts(user) for user in USERS] == [[], ["sip:bob@127.0.0.9"], ["sip:ab@127.0.0.9"]]
    here.registrations.flow_closed(wire)
    assert here.registrations.count == 2


def test_a_phone_that_comes_back_on_another_connection_stays():
    here = Place()
    here.registers(flow=FLOW._replace(transport="TCP", id=7))
    here.registers(flow=FLOW._replace(transport="TCP", id=8))
    here.registrations.flow_closed(FLOW._replace(transport="TCP", id=7))
    assert len(here.contacts()) == 1


def test_who_may_no_longer_register_is_not_called():
    here = Place()
    here.registers()
    here.directory.domain.sip_registration = False
    assert here.contacts() == []
    here.directory.domain.sip_registration = True
    del here.directory.users["alice"]
    assert here.contacts() == []


def test_the_preferred_phone_comes_first():
    here = Place()
    here.registers(contact="<sip:a@127.0.0.9>;q=0.2, <sip:b@127.0.0.9>;q=0.9, <sip:c@127.0.0.9>;q=0.5")
    assert [uri[4] for uri in here.contacts()] == ["b", "c", "a"]


def test_one_user_has_so_many_phones():
    here = Place(user_contacts=3)
    for number in range(5):
        here.clock.advance(1)
        assert here.registers(contact=f"<sip:alice@127.0.0.9:{6000 + number}>", call_id=str(number))[0] == 200
    assert [uri[-4:] for uri in here.contacts()] == ["6004", "6003", "6002"]
    assert here.registrations.count == 3
    assert here.alerts == [(AC, 32007)]


def test_all_have_so_many_phones():
    here = Place(registrations=2)
    here.registers(contact="<sip:alice@127.0.0.9>;expires=60")
    assert here.registers("bob", contact="<sip:bob@127.0.0.9>")[0] == 200
    status, headers = here.registers("a/b", contact="<sip:ab@127.0.0.9>")
    assert (status, dict(headers)["Retry-After"]) == (503, "60")
    assert here.registers("bob", contact="<sip:bob@127.0.0.9>")[0] == 200  # a refresh is no new one
    here.clock.advance(61)
    assert here.registers("a/b", contact="<sip:ab@127.0.0.9>")[0] == 200


def test_registering_and_leaving_over_and_over_leaves_nothing_behind():
    here = Place()
    for _ in range(50):
        here.registers()
        here.registers(contact="<sip:alice@127.0.0.9:5062>;expires=0")
    own = here.registrations
    assert (own.count, own._bytes, len(own._bindings), len(own._sizes), len(own._on_flow)) == (0, 0, 0, 0, 0)
    assert len(own._lapses) <= 1


@pytest.mark.parametrize("contact", ["<sip:a@127.0.0.9>;expires=5", "<tel:1>", "*", "<sip:"])
def test_refusals_of_the_rules_are_passed_on(contact):
    here = Place()
    assert here.registers(contact=contact)[0] in (400, 423)
    assert here.registrations.count == 0


@pytest.mark.parametrize("seed", range(3))
def test_noise_with_a_right_login_stays_within_the_rules(seed):
    """A customer's own phone may send anything: what stands stays bounded, readable and right."""
    dice = random.Random(seed)
    here = Place(user_contacts=4)
    parts = [
        "<sip:alice@127.0.0.9>", ";expires=", "60", "0", "99999999999", ";q=", "0.5", ",", "*", '"', "<", ">", ";ob",
        ';+sip.instance="<urn:uuid:1>"', ";reg-id=1", ";reg-id=", "\\", "%00", "%zz", "sip:", "@", "[::1]", " ", "\x7f",
        "<sip:bob@10.0.0.1:99999>", "<sip:b@[::1]:5060;transport=tcp>", "é", "tel:1", "\t", "x" * 300,
    ]  # fmt: skip
    for _ in range(300):
        here.clock.advance(dice.randrange(30))
        contact = "".join(dice.choices(parts, k=dice.randrange(1, 7)))
        path = "".join(dice.choices(parts, k=dice.randrange(3)))
        status, _ = here.registers(
            contact=contact, call_id=str(dice.randrange(5)), Supported="outbound",
            **({"Path": path} if path else {}), **({"Expires": "0"} if dice.random() < 0.1 else {}),
        )  # fmt: skip
        assert status in (200, 400, 403, 423, 439, 500)
    own = here.registrations
    assert own.count == sum(len(bindings) for bindings in own._bindings.values()) <= 4
    assert own._bytes == sum(own._sizes.values())
    for binding in here.registrations.contacts(here.directory.domain, "alice"):
        way_to(binding)
