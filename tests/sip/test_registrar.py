"""The rules of registration: RFC 3261 section 10.3, RFC 3327, RFC 5626; each test names what it is about."""

import msgspec
import pytest

from trunkline.sip.flow import Flow, Target
from trunkline.sip.message import Request
from trunkline.sip.registrar import Binding, Limits, Outcome, register, way_to

NOW = 1_700_000_000_000
HOME = Flow("UDP", ("198.51.100.7", 40_123), ("192.0.2.1", 5060))
OFFICE = Flow("UDP", ("203.0.113.9", 1025), ("192.0.2.1", 5060))
WIRE = Flow("TCP", ("198.51.100.7", 40_200), ("192.0.2.1", 5060), 77)
SECRET = Flow("TLS", ("198.51.100.7", 40_300), ("192.0.2.1", 5061), 78)
LIMITS = Limits(min_s=60, max_s=3600, default_s=1800, contacts=3)
ALICE = "<sip:alice@198.51.100.7:40123>"


def request(*contacts: str, cseq: int = 1, call_id: str = "one", **headers: str) -> Request:
    fields = [
        ("Via", "SIP/2.0/UDP 198.51.100.7:40123;branch=z9hG4bK1"),
        ("From", "<sip:alice@acme.sip.localhost>;tag=1"),
        ("To", "<sip:alice@acme.sip.localhost>"),
        ("Call-ID", call_id),
        ("CSeq", f"{cseq} REGISTER"),
        *[("Contact", contact) for contact in contacts],
        *[(name.replace("_", "-"), value) for name, value in headers.items()],
    ]
    return Request.make("REGISTER", "sip:acme.sip.localhost", headers=fields)


def asks(
    *contacts: str, before: Outcome | None = None, flow: Flow = HOME, at_s: float = 0, limits: Limits = LIMITS, **more
) -> Outcome:
    standing = before.bindings if before is not None else ()
    return register(request(*contacts, **more), flow, standing, NOW + int(at_s * 1000), limits)


def shown(outcome: Outcome) -> list[str]:
    return [value for name, value in outcome.headers if name == "Contact"]


def header(outcome: Outcome, name: str) -> str:
    return next((value for each, value in outcome.headers if each == name), "")


# -- what is asked for ------------------------------------------------------------------------------------------------


def test_a_phone_registers():
    done = asks(f"{ALICE};expires=600", User_Agent="Phone\x07 1.0")
    assert done.status == 200
    assert shown(done) == [f"{ALICE};expires=600"]
    (one,) = done.bindings
    assert (one.uri, one.flow, one.cseq, one.call_id) == ("sip:alice@198.51.100.7:40123", HOME, 1, "one")
    assert one.expires_ms == NOW + 600_000
    assert one.user_agent == "Phone 1.0"
    assert header(done, "Date") == "Tue, 14 Nov 2023 22:13:20 GMT"
    assert done.changed


@pytest.mark.parametrize(
    ("contact", "expires", "seconds"),
    [
        (ALICE, "", 1800),  # nothing asked: ours
        (ALICE, "120", 120),  # the header
        (f"{ALICE};expires=90", "120", 90),  # the parameter comes first
        (f"{ALICE};expires=7200", "", 3600),  # too long is cut
        (f"{ALICE};expires=99999999999999999999", "", 3600),
        (f"{ALICE};expires=soon", "", 3600),  # what cannot be read is an hour (section 10.2.1.1)
        (f"{ALICE};expires=-5", "", 3600),
        (f"{ALICE};expires", "", 3600),
        (ALICE, "never", 3600),
        (f"{ALICE};expires=60", "", 60),
    ],
)
def test_how_long(contact: str, expires: str, seconds: int):
    done = asks(contact, **({"Expires": expires} if expires else {}))
    assert shown(done) == [f"{ALICE};expires={seconds}"]


@pytest.mark.parametrize("seconds", [1, 59])
def test_too_short_is_refused(seconds: int):
    done = asks(f"{ALICE};expires={seconds}")
    assert (done.status, header(done, "Min-Expires"), done.bindings) == (423, "60", ())
    assert not done.changed


def test_fetching_changes_nothing():
    first = asks(f"{ALICE};expires=600")
    again = asks(before=first, at_s=100, cseq=2)
    assert again.status == 200
    assert shown(again) == [f"{ALICE};expires=500"]
    assert not again.changed
    assert again.bindings == first.bindings


def test_a_refresh_prolongs_and_follows_the_flow():
    first = asks(f"{ALICE};expires=600")
    moved = Flow("UDP", ("198.51.100.7", 41_000), HOME.local)
    again = asks(f"{ALICE};expires=600", before=first, at_s=500, cseq=2, flow=moved)
    (one,) = again.bindings
    assert (one.expires_ms, one.flow, one.since_ms) == (NOW + 1_100_000, moved, NOW)


def test_removing_one():
    first = asks(f"{ALICE};expires=600", "<sip:alice@198.51.100.8>;expires=600")
    left = asks(f"{ALICE};expires=0", before=first, cseq=2)
    assert shown(left) == ["<sip:alice@198.51.100.8>;expires=600"]


def test_removing_what_is_not_there_is_no_error():
    assert asks(f"{ALICE};expires=0").status == 200


def test_removing_all():
    first = asks(ALICE, "<sip:alice@198.51.100.8>")
    gone = asks("*", before=first, cseq=2, Expires="0")
    assert (gone.status, gone.bindings, gone.changed) == (200, (), True)


@pytest.mark.parametrize(
    ("contacts", "headers"),
    [
        (("*",), {}),
        (("*",), {"Expires": "10"}),
        (("*",), {"Expires": "none"}),
        (("*", ALICE), {"Expires": "0"}),
        ((ALICE, " *"), {"Expires": "0"}),
    ],
)
def test_a_wildcard_stands_alone_and_removes(contacts, headers):
    first = asks(ALICE)
    done = asks(*contacts, before=first, cseq=2, **headers)
    assert (done.status, done.bindings) == (400, first.bindings)


def test_several_contacts_with_preferences():
    done = asks("<sip:a@198.51.100.7>;q=0.5, <sip:b@198.51.100.7>;q=0.75", "<sip:c@198.51.100.7>")
    assert [(one.uri[4], one.q) for one in done.bindings] == [("a", 500), ("b", 750), ("c", 1000)]
    assert shown(done)[0] == "<sip:a@198.51.100.7>;expires=1800;q=0.5"


@pytest.mark.parametrize("q", ["2", "-1", "0.1234", "1.001", "a", "", "0.x", "1.5"])
def test_a_preference_that_is_none(q: str):
    assert asks(f"{ALICE};q={q}").status == 400


def test_all_or_nothing():
    first = asks(ALICE)
    done = asks(f"{ALICE};expires=0", "<sip:b@198.51.100.7>;expires=1", before=first, cseq=2)
    assert (done.status, done.bindings) == (423, first.bindings)


@pytest.mark.parametrize(
    "contact",
    [
        "<tel:+12025550100>", "<mailto:a@example.com>", "<sip:>", "<sip:a@b", '"open <sip:a@b>',
        f"<sip:{'a' * 600}@example.com>", f"{ALICE};x={'y' * 600}", '<sip:a@b>;+sip.instance="<x>\\"";reg-id=1',
        '<sip:a@b>;+sip.instance="<x>";reg-id=0', '<sip:a@b>;+sip.instance="<x>";reg-id=a',
        '<sip:a@b>;+sip.instance="<x>";reg-id', f'<sip:a@b>;+sip.instance="{"x" * 200}"',
    ],
)  # fmt: skip
def test_contacts_that_are_none(contact: str):
    assert asks(contact).status == 400


def test_too_many_contacts_at_once():
    assert asks(*[f"<sip:a{number}@198.51.100.7>" for number in range(4)]).status == 403


def test_what_a_contact_may_not_have_is_dropped():
    done = asks("<sip:alice@198.51.100.7;method=INVITE;transport=udp?Subject=x>")
    assert done.bindings[0].uri == "sip:alice@198.51.100.7;transport=udp"


def test_other_parameters_are_given_back():
    done = asks(f'{ALICE};methods="INVITE, BYE";audio')
    assert shown(done) == [f'{ALICE};expires=1800;methods="INVITE, BYE";audio']


# -- order ------------------------------------------------------------------------------------------------------------


def test_an_older_request_is_refused():
    second = asks(ALICE, cseq=5)
    for contact, headers in ((ALICE, {}), (f"{ALICE};expires=0", {}), ("*", {"Expires": "0"})):
        late = asks(contact, before=second, cseq=4, **headers)
        assert (late.status, late.bindings) == (500, second.bindings)


def test_the_same_request_again_changes_nothing():
    first = asks(f"{ALICE};expires=600")
    again = asks(f"{ALICE};expires=600", before=first, at_s=10)
    assert (again.status, again.repeated, again.changed) == (200, True, False)
    assert shown(again) == [f"{ALICE};expires=590"]


def test_another_call_id_needs_no_order():
    first = asks(ALICE, cseq=500)
    assert asks(ALICE, before=first, call_id="restarted", cseq=1).bindings[0].call_id == "restarted"


def test_what_has_lapsed_is_gone():
    first = asks(f"{ALICE};expires=60", cseq=9)
    later = asks(before=first, at_s=60, cseq=1)
    assert (later.status, shown(later)) == (200, [])


# -- which binding ----------------------------------------------------------------------------------------------------


def test_equivalent_uris_are_one():
    first = asks("<sip:alice@Phone.example.com;x=1>")
    again = asks("<sip:alice@phone.EXAMPLE.com>", before=first, cseq=2)
    assert len(again.bindings) == 1


def test_the_same_private_address_behind_two_nats_is_two():
    contact = "<sip:alice@192.168.1.10:5060>"
    first = asks(contact, flow=HOME, call_id="home")
    both = asks(contact, before=first, flow=OFFICE, call_id="office")
    assert [one.flow for one in both.bindings] == [HOME, OFFICE]
    home = asks(contact, before=both, flow=HOME, call_id="home", cseq=2)
    assert len(home.bindings) == 2
    gone = asks(f"{contact};expires=0", before=home, flow=OFFICE, call_id="office", cseq=2)
    assert [one.flow for one in gone.bindings] == [HOME]


def test_a_phone_that_moves_to_another_nat_is_the_same():
    contact = "<sip:alice@192.168.1.10:5060>"
    first = asks(contact, flow=HOME)
    assert [one.flow for one in asks(contact, before=first, flow=OFFICE, cseq=2).bindings] == [OFFICE]


def test_the_oldest_gives_way():
    done = None
    for number in range(4):
        done = asks(f"<sip:a@198.51.100.7:{5060 + number}>", before=done, at_s=number, call_id=str(number))
    assert done is not None
    assert done.crowded
    assert [one.uri[-4:] for one in done.bindings] == ["5061", "5062", "5063"]


# -- Path and flows ---------------------------------------------------------------------------------------------------


def test_a_path_is_kept_and_repeated():
    path = "<sip:edge.example.com;lr>, <sip:core.example.com;lr>"
    done = asks(ALICE, Path=path, Supported="path")
    assert [value for name, value in done.headers if name == "Path"] == path.split(", ")
    assert done.bindings[0].path == tuple(path.split(", "))
    assert header(done, "Supported") == "path, outbound"


@pytest.mark.parametrize(
    "path", ["sip:a@b", "<tel:1>", "<sip:", "nonsense", ", ".join(["<sip:a;lr>"] * 9), f"<sip:{'a' * 1100};lr>"]
)
def test_a_path_that_is_none(path: str):
    assert asks(ALICE, Path=path).status == 400


def test_instances_keep_their_flows():
    contact = '<sip:alice@198.51.100.7;ob>;+sip.instance="<urn:uuid:1>";reg-id={}'
    first = asks(contact.format(1), Supported="path, outbound")
    assert header(first, "Require") == "outbound"
    assert '+sip.instance="<urn:uuid:1>";reg-id=1' in shown(first)[0]
    both = asks(contact.format(2), before=first, call_id="two", Supported="outbound")
    assert [one.reg_id for one in both.bindings] == [1, 2]
    moved = asks(
        '<sip:alice@203.0.113.1>;+sip.instance="<urn:uuid:1>";reg-id=1', before=both, call_id="three", flow=OFFICE,
        Supported="outbound",
    )  # fmt: skip
    assert [(one.reg_id, one.flow) for one in moved.bindings] == [(1, OFFICE), (2, HOME)]


def test_one_flow_at_a_time():
    contact = '<sip:alice@198.51.100.7>;+sip.instance="<urn:uuid:1>";reg-id=1'
    assert asks(contact, "<sip:b@198.51.100.7>", Supported="outbound").status == 400


def test_a_proxy_that_knows_no_flows():
    contact = '<sip:alice@198.51.100.7>;+sip.instance="<urn:uuid:1>";reg-id=1'
    via = {"Via": "SIP/2.0/UDP 203.0.113.1;branch=z9hG4bK2", "Supported": "outbound"}
    assert asks(contact, **via).status == 439
    assert asks(contact, **via, Path="<sip:edge;lr>").status == 439
    assert asks(contact, **via, Path="<sip:edge;lr;ob>").status == 200


def binding(flow: Flow = HOME, *path: str) -> Binding:
    return Binding("sip:alice@10.0.0.1:5060", flow, NOW, NOW, "one", 1, path=path)


def test_a_phone_is_reached_by_its_flow():
    assert way_to(binding()) == ("sip:alice@10.0.0.1:5060", (), HOME)
    assert way_to(binding(WIRE)).target == WIRE


@pytest.mark.parametrize(
    ("flow", "first", "target"),
    [
        (HOME, "<sip:198.51.100.7:5080;lr>", Target("UDP", "198.51.100.7", 5080)),
        (HOME, "<sip:token@198.51.100.7;lr>", Target("UDP", "198.51.100.7", 5060)),
        (HOME, "<sip:10.1.1.1;lr>", HOME),  # another host is not believed
        (HOME, "<sip:169.254.169.254;lr>", HOME),
        (HOME, "<sip:edge.example.com;lr>", HOME),
        (HOME, "<sip:198.51.100.7;transport=tcp;lr>", HOME),
        (WIRE, "<sip:198.51.100.7;transport=tcp;lr>", Target("TCP", "198.51.100.7", 5060)),
        (SECRET, "<sip:198.51.100.7;transport=tls;lr>", Target("TLS", "198.51.100.7", 5061)),
        (SECRET, "<sip:198.51.100.7;lr>", SECRET),  # never from TLS into the open
        (SECRET, "<sip:198.51.100.7:5080;transport=udp;lr>", SECRET),
    ],
)
def test_the_first_hop_of_a_path(flow: Flow, first: str, target: object):
    way = way_to(binding(flow, first, "<sip:core;lr>"))
    assert way.routes == (first, "<sip:core;lr>")
    assert way.target == target


def test_who_vanishes_with_a_connection():
    assert binding(WIRE).vanishes
    assert not binding(HOME).vanishes
    assert not binding(WIRE, "<sip:edge;lr>").vanishes


def test_it_is_stored_and_read_by_position():
    one = binding(WIRE, "<sip:edge;lr>")
    stored = msgspec.msgpack.encode([one])
    assert msgspec.msgpack.decode(stored, type=list[Binding]) == [one]
    longer = msgspec.msgpack.encode([[*msgspec.to_builtins(one), "of a later release"]])
    assert msgspec.msgpack.decode(longer, type=list[Binding]) == [one]
