"""When we register, and what a registrar's answer means."""

import pytest

from trunkline.sip.headers import Field
from trunkline.sip.message import Request, Response, parse
from trunkline.sip.register_client import (
    MAX_BRIEF,
    REFUSED_FIRST_S,
    RETRY_AFTER_LONGEST_S,
    RETRY_FIRST_S,
    RETRY_LONGEST_S,
    RegisterClient,
    State,
)

CONTACT = "<sip:acme-1@192.0.2.1:5060>"
NOW = 1000.0


def highest(_low: float, high: float) -> float:
    return high


def client(expires_s: int = 600) -> RegisterClient:
    return RegisterClient(expires_s, "call-id", highest)


def response(status: int, *headers: Field, via: str = "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx") -> Response:
    fields = [
        ("Via", via),
        ("From", "<sip:a@b>;tag=1"),
        ("To", "<sip:a@b>;tag=2"),
        ("Call-ID", "c"),
        ("CSeq", "1 REGISTER"),
    ]
    lines = [f"SIP/2.0 {status} Text", *(f"{name}: {value}" for name, value in (*fields, *headers)), "", ""]
    message = parse("\r\n".join(lines).encode())
    assert isinstance(message, Response)
    return message


def test_it_asks_for_its_time_and_counts_up() -> None:
    one = client(300)
    assert one.request(CONTACT) == [("Contact", CONTACT + ";expires=300"), ("Expires", "300")]
    first = one.cseq
    assert one.request(CONTACT, end=True) == [("Contact", CONTACT + ";expires=0"), ("Expires", "0")]
    assert one.cseq > first


@pytest.mark.parametrize(
    ("headers", "granted"),
    [
        ([("Contact", CONTACT + ";expires=120")], 120),
        ([("Contact", f"<sip:other@x>;expires=7, {CONTACT};expires=90")], 90),
        ([("Contact", CONTACT), ("Expires", "200")], 200),
        ([("Contact", CONTACT)], 600),
        ([], 600),
        ([("Expires", "50")], 50),
    ],
)
def test_it_is_renewed_well_before_its_end(headers: list[Field], granted: int) -> None:
    one = client()
    one.request(CONTACT)
    one.answered(200, response(200, *headers), "acme-1", NOW)
    assert (one.state, one.granted_s, one.expires_at) == (State.REGISTERED, granted, NOW + granted)
    assert NOW + granted * 0.65 < one.due <= NOW + granted * 0.81
    assert one.stands(NOW + granted - 1)
    assert not one.stands(NOW + granted)


def test_a_list_without_our_contact_is_no_registration() -> None:
    one = client()
    one.answered(200, response(200, ("Contact", "<sip:other@x>;expires=60")), "acme-1", NOW)
    assert one.state is State.REFUSED
    assert "not among" in one.detail


def test_a_brief_interval_is_lengthened_at_once() -> None:
    one = client(60)
    one.answered(423, response(423, ("Min-Expires", "1800")), "acme-1", NOW)
    assert one.due == NOW
    assert one.request(CONTACT)[1] == ("Expires", "1800")


def test_a_registrar_that_never_has_enough_is_asked_no_more() -> None:
    one = client(60)
    for _ in range(MAX_BRIEF + 1):
        one.answered(423, response(423), "acme-1", NOW)
    assert one.state is State.REFUSED
    assert one.due >= NOW + REFUSED_FIRST_S / 2


def test_silence_is_tried_again_after_waits_that_double() -> None:
    one = client()
    waits = []
    for _ in range(8):
        one.answered(408, None, "acme-1", NOW)
        waits.append(one.due - NOW)
    assert waits[:3] == [RETRY_FIRST_S, 2 * RETRY_FIRST_S, 4 * RETRY_FIRST_S]
    assert waits[-1] == RETRY_LONGEST_S
    assert (one.state, one.detail) == (State.UNREACHABLE, "no answer")


def test_waits_are_drawn_from_their_upper_half() -> None:
    low = RegisterClient(600, "c", lambda low, _high: low)
    low.answered(503, None, "acme-1", NOW)
    assert low.due - NOW == RETRY_FIRST_S / 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_waits_longer(status: int) -> None:
    one = client()
    one.answered(status, response(status), "acme-1", NOW)
    assert (one.state, one.due) == (State.REFUSED, NOW + REFUSED_FIRST_S)
    assert ("password" in one.detail) == (status in (401, 403))


def test_retry_after_is_heeded_within_reason() -> None:
    one = client()
    one.answered(503, response(503, ("Retry-After", "300 (maintenance)")), "acme-1", NOW)
    assert one.due == NOW + 300
    one.answered(503, response(503, ("Retry-After", "999999999")), "acme-1", NOW)
    assert one.due == NOW + RETRY_AFTER_LONGEST_S


def test_a_failed_renewal_leaves_what_stands_until_its_end() -> None:
    one = client()
    one.answered(200, response(200), "acme-1", NOW)
    one.answered(408, None, "acme-1", NOW + 400)
    assert one.state is State.REGISTERED
    assert one.detail == "no answer"
    one.answered(408, None, "acme-1", NOW + 601)
    assert one.state is State.UNREACHABLE
    one.answered(200, response(200), "acme-1", NOW + 700)
    assert (one.state, one.detail) == (State.REGISTERED, "")


def test_a_refused_renewal_ends_it() -> None:
    one = client()
    one.answered(200, response(200), "acme-1", NOW)
    one.answered(403, response(403), "acme-1", NOW + 400)
    assert not one.stands(NOW + 401)


def test_our_address_as_the_registrar_sees_it() -> None:
    one = client()
    via = "SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bKx;received=203.0.113.9;rport=40000"
    one.answered(200, response(200, via=via), "acme-1", NOW)
    assert one.seen == "203.0.113.9:40000"


def test_service_routes_are_kept() -> None:
    one = client()
    one.answered(200, response(200, ("Service-Route", "<sip:edge.example;lr>")), "acme-1", NOW)
    assert one.service_routes == ("<sip:edge.example;lr>",)


def test_requests_of_ours_are_well_formed() -> None:
    one = client()
    fields = [("Via", "SIP/2.0/UDP a;branch=z9hG4bKx"), ("From", "<sip:a@b>;tag=1"), ("To", "<sip:a@b>"),
              ("Call-ID", one.call_id), *one.request(CONTACT), ("CSeq", f"{one.cseq} REGISTER")]  # fmt: skip
    message = parse(Request.make("REGISTER", "sip:b", headers=fields).encode())
    assert isinstance(message, Request)
    assert message.contact is not None
    assert message.contact.uri.user == "acme-1"
