"""Reading, answering and writing messages."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sip.rfc4475 import behaviour, invalid, valid
from tests.sip.samples import INVITE, OFFER, invite
from trunkline.sip import message as m
from trunkline.sip.headers import Headers
from trunkline.sip.message import MalformedMessage, Request, Response, parse


def request(data: bytes) -> Request:
    message = parse(data)
    assert isinstance(message, Request)
    return message


def refusal(data: bytes) -> MalformedMessage:
    with pytest.raises(MalformedMessage) as caught:
        parse(data)
    return caught.value


def test_an_invite_is_read_and_written_back_byte_for_byte() -> None:
    message = request(INVITE)
    assert (message.method, message.uri) == ("INVITE", "sip:+15551230002@198.51.100.7:5060;transport=udp")
    assert (message.via.transport, message.via.host, message.via.port) == ("UDP", "192.0.2.10", 5060)
    assert message.via.branch == "z9hG4bK776asdhds"
    assert message.via.wants_rport
    assert message.via.rport is None
    assert message.from_.display == "Alice Example"
    assert message.from_.uri.params == {"user": "phone"}
    assert (message.from_tag, message.to_tag) == ("1928301774", "")
    assert message.cseq == (314159, "INVITE")
    assert message.call_id == "a84b4c76e66710@pc33.example.com"
    assert message.contact is not None
    assert message.contact.uri.transport == "UDP"
    assert message.content_type == "application/sdp"
    assert message.body == OFFER
    assert message.encode() == INVITE


def test_typed_values_follow_a_change_of_headers() -> None:
    message = request(INVITE)
    assert message.via.host == "192.0.2.10"
    message.headers.prepend("v", "SIP/2.0/TCP [2001:DB8::1];branch=z9hG4bKx")
    assert (message.via.transport, message.via.host) == ("TCP", "[2001:db8::1]")
    assert len(message.vias) == 2
    message.headers.set("t", "<sip:b@example.com>;tag=2")
    assert message.to_tag == "2"
    message.uri = "sip:other@example.com"
    assert message.request_uri.user == "other"


def test_a_response_repeats_what_it_must() -> None:
    asked = request(
        invite("Via: SIP/2.0/UDP 192.0.2.99;branch=z9hG4bKb", "Record-Route: <sip:p2;lr>", "Record-Route: <sip:p1;lr>")
    )
    ringing = Response.make(asked, 180, to_tag="ours", headers=[("contact", "<sip:us@198.51.100.7>")])
    again = parse(ringing.encode())
    assert isinstance(again, Response)
    assert (again.status, again.reason) == (180, "Ringing")
    assert again.headers.all("Via") == asked.headers.all("Via")
    assert again.headers.all("Record-Route") == ["<sip:p2;lr>", "<sip:p1;lr>"]
    assert again.headers.get("From") == asked.headers.get("From")
    assert (again.to_tag, again.cseq, again.call_id) == ("ours", asked.cseq, asked.call_id)
    assert again.contact is not None
    assert "User-Agent" not in again.headers
    assert "Record-Route" not in Response.make(asked, 486, to_tag="ours").headers


def test_a_trying_has_no_tag_but_the_timestamp() -> None:
    trying = Response.make(request(invite("Timestamp: 54")), 100, to_tag="ours")
    assert trying.to_tag == ""
    assert trying.headers.get("Timestamp") == "54"


def test_a_tag_that_is_there_stays() -> None:
    asked = request(invite("To: <sip:b@example.com>;tag=mine", drop=("To",)))
    assert Response.make(asked, 200, to_tag="ours").headers.all("To") == ["<sip:b@example.com>;tag=mine"]


def test_a_made_request_has_a_right_length() -> None:
    made = Request.make("INFO", "sip:b@example.com", headers=[("l", "99"), ("X-A", "1")], body=b"Signal=1")
    assert made.encode() == b"INFO sip:b@example.com SIP/2.0\r\nX-A: 1\r\nContent-Length: 8\r\n\r\nSignal=1"


@pytest.mark.parametrize("breaker", ["\r\n", "\n", "\r"])
def test_a_line_break_never_gets_into_what_is_sent(breaker: str) -> None:
    made = Request.make("BYE", f"sip:b{breaker}X: y", headers=[("X-A", f"1{breaker}Evil: 1"), (f"X{breaker}Y", "2")])
    head = made.encode().decode()
    lines = head.split("\r\n")
    assert len(lines) == 6
    assert "\n" not in "".join(lines)
    assert "\r" not in "".join(lines)


def test_headers_are_latin_1_where_they_are_not_utf_8() -> None:
    sent = invite('From: "José" <sip:a@example.com>;tag=1', drop=("From",)).decode().encode("latin-1")
    message = request(sent)
    assert message.from_.display == "José"
    assert message.encode().startswith(sent.partition(b"\r\n\r\n")[0])
    assert 'From: "José"'.encode("latin-1") in Response.make(message, 200).encode()
    wider = Response.make(message, 200, headers=[("X-Name", "大")])
    assert "X-Name: 大".encode() in wider.encode()


def test_folds_compact_forms_and_bare_line_feeds() -> None:
    fields = "v: SIP/2.0/UDP h\nf: sip:a@h\n ;tag=1\nt:sip:b@h\ni : 1\ncseq:\n\t1 OPTIONS\n"
    message = request(f"OPTIONS sip:x@example.com SIP/2.0\n{fields}\nab".encode())
    assert message.from_tag == "1"
    assert message.cseq == (1, "OPTIONS")
    assert message.body == b"ab"
    assert [name for name, _ in message.headers] == ["Via", "From", "To", "Call-ID", "CSeq"]


@pytest.mark.parametrize("name", ["Via", "From", "To", "Call-ID", "CSeq"])
def test_each_mandatory_header_is_asked_for(name: str) -> None:
    error = refusal(invite(drop=(name,)))
    assert error.status == 400
    assert (error.partial is None) == (name == "Via")
    assert refusal(invite(f"{name}:", drop=(name,))).status == 400


@pytest.mark.parametrize(
    ("line", "drop"),
    [
        ("CSeq: 2147483648 INVITE", "CSeq"),
        ("CSeq: -1 INVITE", "CSeq"),
        ("CSeq: 1 BYE", "CSeq"),
        ("CSeq: ² INVITE", "CSeq"),
        ("From: <sip:a@h", "From"),
        ('From: "a" sip:a@h', "From"),
        ("From: <sip:a b@h>", "From"),
        ("From: <sip:a@h>x", "From"),
        ("To: <nonsense>", "To"),
        ("Via: SIP/2.0/UDP", "Via"),
        ("Via: SIP/2.0/UDP [::1", "Via"),
        ("Via: SIP/2.0/UDP h:99999", "Via"),
        ("Contact: <sip:@h>", "Contact"),
        ("Content-Length: 1, 1", ""),
        ("Content-Length: ٣", ""),
        ("no colon here", ""),
        ("Bad Name: 1", ""),
        ("X-Y: a\rb", ""),
    ],
)
def test_malformed_lines_are_refused(line: str, drop: str) -> None:
    assert refusal(invite(line, drop=(drop,) if drop else ())).status == 400


@pytest.mark.parametrize(
    "start",
    ["INVITE sip:x@h", "INVITE", "INVITE sip:x@h SIP/2.0 x", "INVITE sip:x@h HTTP/1.1", "IN@VITE sip:x@h SIP/2.0", ""],
)
def test_malformed_request_lines_are_refused(start: str) -> None:
    assert refusal(start.encode() + b"\r\n" + invite().partition(b"\r\n")[2]).status == 400


@pytest.mark.parametrize(
    "start", ["SIP/2.0 99 Low", "SIP/2.0 700 High", "SIP/2.0 2000 Long", "SIP/2.0", "SIP/3.0 200 OK"]
)
def test_malformed_status_lines_cannot_be_answered(start: str) -> None:
    assert refusal(start.encode() + b"\r\n" + invite().partition(b"\r\n")[2]).partial is None


def test_a_datagram_ends_the_body_unless_a_length_does() -> None:
    assert request(invite(body=b"12345")).body == b"12345"
    assert request(invite("Content-Length: 2", body=b"12345")).body == b"12"
    assert refusal(invite("Content-Length: 6", body=b"12345")).status == 400
    assert refusal(invite().rstrip(b"\r\n")).status == 400
    assert request(b"\r\n\r\n" + invite()).method == "INVITE"


def test_limits() -> None:
    assert refusal(invite("X-Long: " + "a" * m.MAX_HEAD_BYTES)).status == 513
    assert refusal(invite(*["X-A: 1"] * m.MAX_HEADER_FIELDS)).status == 513
    assert refusal(b"a" * (m.MAX_HEAD_BYTES + 1)).status == 513
    assert refusal(invite(*["Via: SIP/2.0/UDP h"] * m.MAX_VIAS)).status == 483
    many = request(invite("Via: " + ",".join(["SIP/2.0/UDP h"] * m.MAX_VIAS)))
    with pytest.raises(MalformedMessage):
        _ = many.vias


def test_a_star_is_no_contact() -> None:
    assert request(invite("Contact: *", drop=("Contact",))).contact is None
    assert request(invite(drop=("Contact",))).contact is None
    several = request(invite('Contact: "a,b" <sip:a@h;x=1>, <sip:c@h>', drop=("Contact",))).contact
    assert several is not None
    assert several.display == "a,b"


EVERYTHING = [
    value
    for module in (valid, invalid, behaviour)
    for name, value in vars(module).items()
    if isinstance(value, bytes) and not name.startswith("_")
] + [INVITE]


def read(data: bytes) -> None:
    """Nothing but MalformedMessage comes out, and what is taken can be used."""
    try:
        message = parse(data)
    except MalformedMessage as error:
        if error.partial is not None:
            parse_again = Response.make(error.partial, error.status, to_tag="x").encode()
            assert parse_again.startswith(b"SIP/2.0 ")
        return
    _ = message.via, message.from_, message.to, message.cseq, message.contact, message.content_type
    again = parse(message.encode())
    assert again.cseq == message.cseq
    if isinstance(message, Request):
        parse(Response.make(message, 200, to_tag="x").encode())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    read(data)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(EVERYTHING),
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 3), st.binary(max_size=4)), min_size=1, max_size=8),
)
def test_mutated_messages(data: bytes, cuts: list[tuple[int, int, bytes]]) -> None:
    for at, size, piece in cuts:
        at %= len(data) + 1
        data = data[:at] + piece + data[at + size :]
    read(data)


@pytest.mark.parametrize(
    "line",
    [
        "From: " + " " * 30_000 + "x",
        "Via: SIP/2.0/UDP h" + " " * 30_000 + "x",
        "Via: " + "SIP/2.0/" + "U" * 30_000,
        'From: "' + "\\" * 30_000,
        'From: "' + '\\"' * 15_000,
        "Contact: " + "<" * 30_000,
        "Contact: " + '"" ,' * 7_500,
        "From: <sip:a@h>" + ";a" * 15_000,
        "From: <sip:a@h>" + ";=" * 15_000,
        "X-A:" + "\r\n " * 10_000,
        "From: <sip:" + "%" * 30_000 + "@h>",
    ],
)
def test_no_header_takes_long_to_read(line: str) -> None:
    began = time.thread_time()
    read(invite(line, drop=(line.partition(":")[0],)))
    assert time.thread_time() - began < 0.5


def test_headers_are_an_ordered_multimap() -> None:
    headers = Headers([("v", "1"), ("X-Thing", "a"), ("VIA", "2"), ("x-thing", "b")])
    assert headers.items() == [("Via", "1"), ("X-Thing", "a"), ("Via", "2"), ("x-thing", "b")]
    assert headers.get("X-THING") == "a"
    assert headers.all("via") == ["1", "2"]
    assert "V" in headers
    assert "Route" not in headers
    assert headers.get("Route", "none") == "none"
    headers.set("X-thing", "c")
    assert headers.items() == [("Via", "1"), ("X-thing", "c"), ("Via", "2")]
    headers.prepend("r", "<sip:z@h>")
    headers.add("Route", "<sip:p;lr>")
    assert headers.items()[0] == ("Refer-To", "<sip:z@h>")
    copied = headers.copy()
    headers.remove("via")
    assert headers.all("Via") == []
    assert copied.all("Via") == ["1", "2"]
    assert len(headers) == 3
