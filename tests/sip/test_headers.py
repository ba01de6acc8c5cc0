"""Typed header values."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.sip import headers as h
from trunkline.sip.errors import MalformedMessage
from trunkline.sip.headers import NameAddr, Via, parse_list, split_values
from trunkline.sip.uri import Uri


@pytest.mark.parametrize(
    ("text", "display", "uri", "params"),
    [
        ("sip:a@h;tag=1", "", "sip:a@h", {"tag": "1"}),
        ("<sip:a@h;lr>;tag=1", "", "sip:a@h;lr", {"tag": "1"}),
        ("Alice B. <sip:a@h>", "Alice B.", "sip:a@h", {}),
        ('"A \\"x\\" \\\\, <b>" <sip:a@h> ; tag = 1 ;p', 'A "x" \\, <b>', "sip:a@h", {"tag": "1", "p": None}),
        ('""<sip:a@h>', "", "sip:a@h", {}),
        ('"大" <sip:a@h>;x="a;b=\\"c,"', "大", "sip:a@h", {"x": 'a;b="c,'}),
        ("<sip:a@h?x=y>;TAG=1;tag=2;", "", "sip:a@h?x=y", {"tag": "1"}),
        ("tel:+1555;phone-context=x", "", "tel:+1555", {"phone-context": "x"}),
    ],
)
def test_addresses(text: str, display: str, uri: str, params: dict[str, str | None]) -> None:
    address = NameAddr.parse(text)
    assert (address.display, str(address.uri), address.params) == (display, uri, params)
    assert str(address) == text.strip()
    plain = NameAddr(address.uri, display, params)
    again = NameAddr.parse(str(plain))
    assert (again.display, again.params) == (display, params)


@pytest.mark.parametrize(
    "text",
    ["", "a", "<sip:a@h", "sip:a@h>", '"a <sip:a@h>', '"a" sip:a@h', "<sip:a@h> x", "<sip:a@h>;;x", 'sip:a@h;x="y'],
)
def test_malformed_addresses(text: str) -> None:
    with pytest.raises(MalformedMessage):
        NameAddr.parse(text)


def test_a_tag_can_be_given() -> None:
    address = NameAddr.parse('"A" <sip:a@h>;x=1')
    assert address.tag == ""
    assert str(address.with_tag("t")) == '"A" <sip:a@h>;x=1;tag=t'


def test_lists_split_outside_quotes_and_brackets() -> None:
    routes = parse_list(['<sip:p1;lr>,<sip:p2,x@h;lr> , "a, b" <sip:p3>', "", "sip:p4@h"])
    assert [str(route.uri) for route in routes] == ["sip:p1;lr", "sip:p2,x@h;lr", "sip:p3", "sip:p4@h"]
    assert split_values([' "a,b" , c,,']) == ['"a,b"', "c"]
    with pytest.raises(MalformedMessage):
        split_values(['"a, b'])
    with pytest.raises(MalformedMessage):
        split_values(["a," * (h.MAX_LIST_VALUES + 1)])


def test_via_as_received_and_filled_in() -> None:
    via = Via.parse("SIP / 2.0 /udp [2001:DB8::9] : 5070 ; branch=z9hG4bKa;RPORT;ttl=16")
    assert (via.transport, via.host, via.port, via.branch) == ("UDP", "[2001:db8::9]", 5070, "z9hG4bKa")
    assert via.wants_rport
    filled = via.with_params(received="192.0.2.1", rport="40000")
    assert (filled.received, filled.rport) == ("192.0.2.1", 40000)
    assert str(filled) == ("SIP/2.0/UDP [2001:db8::9]:5070;branch=z9hG4bKa;rport=40000;ttl=16;received=192.0.2.1")
    assert Via.parse("SIP/2.0/UDP h;rport=x").rport is None
    assert str(Via("TCP", "h", None, {"branch": "b", "received": "[::1]"})) == "SIP/2.0/TCP h;branch=b;received=[::1]"


@pytest.mark.parametrize(
    "text", ["SIP/2.0/UDP  h;branch=1", "SIP/2.0/UDP h : 7 ;branch=1", "SIP/2.0/UDP\th ; branch = 1"]
)
def test_white_space_in_a_via(text: str) -> None:
    via = Via.parse(text)
    assert (via.transport, via.host, via.branch) == ("UDP", "h", "1")


TEXT = st.text(alphabet='<>";,=\\ \t:@sipab1[]%?', max_size=40)


@settings(max_examples=500, deadline=None)
@given(TEXT)
def test_nothing_but_malformed_message_comes_out(text: str) -> None:
    for prefix in ("", "<sip:a@h>", "sip:a@h;", "SIP/2.0/UDP h"):
        for read in (NameAddr.parse, Via.parse, lambda value: parse_list([value])):
            try:
                read(prefix + text)
            except MalformedMessage:
                continue


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=("Cs", "Cc")), max_size=30), st.text('ab;",\\ =', max_size=20))
def test_what_is_made_is_read_back(display: str, value: str) -> None:
    made = NameAddr(Uri(user="a", host="h"), display.strip(), {"x": value, "flag": None})
    again = NameAddr.parse(str(made))
    assert (again.display, again.params) == (made.display, made.params)
    assert [str(part) for part in parse_list([f"{made}, {made}"])] == [str(made)] * 2


def test_set_replaces_in_place_whatever_was_asked_before():
    for asked in (False, True):
        headers = h.Headers([("v", "1"), ("X-Own", "a"), ("To", "b"), ("x-own", "c")])
        copy = headers.copy()
        if asked:
            assert headers.get("Via") == "1"
        headers.set("via", "2")
        headers.set("X-OWN", "d")
        headers.set("Reason", "e")
        assert headers.items() == [("Via", "2"), ("X-OWN", "d"), ("To", "b"), ("Reason", "e")]
        assert [headers.get(name) for name in ("Via", "x-own", "to", "reason")] == ["2", "d", "b", "e"]
        assert copy.all("x-own") == ["a", "c"]
        assert copy.get("v") == "1"
