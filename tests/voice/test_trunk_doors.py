"""By which trunk a call comes in."""

from types import SimpleNamespace

from trunkline.settings import Trunk
from trunkline.sip.flow import Flow
from trunkline.sip.message import Headers
from trunkline.voice.edges import DIRECT, HEADER, Edges
from trunkline.voice.sources import Nobody
from trunkline.voice.trunk_contact import contact_user, is_secret
from trunkline.voice.trunk_doors import TrunkDoors

from ..messaging.world import MovableClock

SECRET = b"s" * 32
REGISTERED = Trunk(name="reg", register=True, username="u", password="p", gateways=("sip:10.0.0.1",))
CHOSEN = Trunk(
    name="chosen", register=True, username="u", password="p", gateways=("sip:10.0.0.2",), contact_user="4930123456"
)
CERTIFIED = Trunk(name="tls", tls_names=("sip.pbx.example", "*.carrier.example"))
PLAIN = Trunk(name="plain", inbound_calls_per_second=1, inbound_calls_at_once=2)


class Sources:
    def __init__(self):
        self.bans = Nobody()
        self.edges = DIRECT

    def trunk_of(self, request, host):
        return PLAIN if host == "10.0.0.9" else None


def doors():
    made = TrunkDoors((REGISTERED, CHOSEN, CERTIFIED, PLAIN), Sources(), MovableClock())
    made.know_contacts(SECRET)
    return made


def asked(user):
    return SimpleNamespace(request_uri=SimpleNamespace(user=user))


def flow(host, transport="UDP"):
    return Flow(transport, (host, 5060), ("10.0.0.100", 5060), 7)


def test_a_contact_that_nobody_guesses_is_the_trunks_from_anywhere():
    user = contact_user(REGISTERED, SECRET)
    assert user.startswith("reg-")
    assert user == contact_user(REGISTERED, SECRET) != contact_user(REGISTERED, b"other")
    assert is_secret(REGISTERED)
    assert doors().trunk_of(asked(user), flow("203.0.113.1")) is REGISTERED
    assert doors().trunk_of(asked(user[:-1]), flow("203.0.113.1")) is None


def test_who_comes_by_these_doors_is_no_stranger():
    vouched = []
    sources = Sources()
    sources.bans = SimpleNamespace(vouched=vouched.append)
    made = TrunkDoors((REGISTERED, PLAIN), sources, MovableClock())
    made.know_contacts(SECRET)
    made.trunk_of(asked(contact_user(REGISTERED, SECRET)), flow("203.0.113.1"))
    made.trunk_of(asked("x"), flow("203.0.113.2"))
    assert vouched == ["203.0.113.1"]


def test_a_contact_of_the_operators_counts_from_the_registrar_only():
    made = doors()
    assert made.trunk_of(asked("4930123456"), flow("10.0.0.2")) is None
    made.know_hosts(CHOSEN, ["10.0.0.2"])
    assert made.trunk_of(asked("4930123456"), flow("10.0.0.2")) is CHOSEN
    assert made.trunk_of(asked("4930123456"), flow("10.0.0.3")) is None
    assert made.trunk_of(asked("4930123456"), flow("10.0.0.9")) is PLAIN


def test_certificates_open_by_their_names():
    made = doors()
    names = {"10.0.0.5": ("sip.PBX.example",), "10.0.0.6": ("other.example", "a.carrier.example"), "10.0.0.7": ()}
    made.certificate = lambda one: SimpleNamespace(names=names[one.remote[0]]) if one.remote[0] in names else None
    found = [made.trunk_of(asked("x"), flow(host, "TLS")) for host in ("10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8")]
    assert found == [CERTIFIED, CERTIFIED, None, None]
    assert made.trunk_of(asked("x"), flow("10.0.0.5", "TCP")) is None
    names["10.0.0.5"] = ("a.b.carrier.example",)
    assert made.trunk_of(asked("x"), flow("10.0.0.5", "TLS")) is None


def test_the_certificate_of_an_edge_is_not_that_of_who_is_behind_it():
    sources = Sources()
    sources.edges = Edges(["10.0.0.5"])
    made = TrunkDoors((CERTIFIED,), sources, MovableClock())
    made.certificate = lambda one: SimpleNamespace(names=("sip.pbx.example",))
    request, headers = asked("x"), Headers()
    request.headers = headers
    headers.set(HEADER, "10.0.0.77")
    assert made.trunk_of(request, flow("10.0.0.5", "TLS")) is None
    assert not made.is_at(request, flow("10.0.0.5", "TLS"))
    assert made.trunk_of(request, flow("10.0.0.6", "TLS")) is CERTIFIED
    assert made.is_at(request, flow("10.0.0.6", "TLS"))


def test_a_contact_that_nobody_guesses_is_shown_to_nobody():
    made, told = doors(), []
    user = contact_user(REGISTERED, SECRET)
    assert made.redacted(f"CANCEL sip:{user}@10.0.0.100") == "CANCEL sip:...@10.0.0.100"
    assert made.redacted("sip:4930123456@x") == "sip:4930123456@x"
    made.tracing(lambda *line: told.append(line))("id", False, f"INVITE sip:{user}@x")
    assert told == [("id", False, "INVITE sip:...@x")]
    plain = TrunkDoors((PLAIN,), Sources(), MovableClock())
    assert plain.tracing(told.append) == told.append


def test_what_comes_in_has_limits_of_its_own():
    clock = MovableClock()
    made = TrunkDoors((PLAIN, REGISTERED), Sources(), clock)
    ends = []
    call = SimpleNamespace(on_end=ends.append)
    assert made.has_room(PLAIN)
    made.let_in(PLAIN, call)
    assert not made.has_room(PLAIN)  # one a second
    clock.offset_ms += 1500
    assert made.has_room(PLAIN)
    made.let_in(PLAIN, call)
    clock.offset_ms += 1500
    assert not made.has_room(PLAIN)  # two at once
    ends.pop()(call)
    assert made.has_room(PLAIN)
    assert made.has_room(REGISTERED)
    made.let_in(REGISTERED, call)
    assert len(ends) == 1


def test_a_trunk_that_is_not_in_the_settings_has_a_dialect_too():
    made = doors()
    assert made.dialect(Trunk(name="new")) is made.dialect(Trunk(name="new"))


def test_calls_that_go_on_after_a_restart_are_counted_again():
    made, ends = doors(), []
    for trunk, incoming in (("plain", True), ("plain", True), ("plain", False), ("tls", True), ("", True)):
        record = SimpleNamespace(trunk=trunk)
        made.recount(SimpleNamespace(record=record, incoming=incoming, on_end=ends.append))
    assert len(ends) == 2
    assert not made.has_room(PLAIN)
    ends.pop()(None)
    assert made.has_room(PLAIN)
