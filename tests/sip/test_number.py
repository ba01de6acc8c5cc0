"""Who calls, who is called, who forwarded."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sip.samples import invite
from trunkline.sip import number as n
from trunkline.sip.headers import Headers
from trunkline.sip.message import MalformedMessage, Request, parse
from trunkline.sip.number import (
    ANONYMOUS,
    Caller,
    called_of,
    caller_of,
    custom_headers,
    e164,
    forwarded_from,
    number_of,
    reason_of,
)
from trunkline.sip.uri import Uri


def request(*lines: str, drop: tuple[str, ...] = ("P-Asserted-Identity",)) -> Request:
    message = parse(invite(*lines, drop=drop))
    assert isinstance(message, Request)
    return message


def calling(from_: str, *lines: str) -> Caller:
    return caller_of(request(f"From: {from_};tag=1", *lines, drop=("From", "P-Asserted-Identity")))


@pytest.mark.parametrize(
    ("text", "country", "expected"),
    [
        ("+15551230001", "", "+15551230001"),
        ("+1 (555) 123-0.001", "", "+15551230001"),
        ("+15551230001;ext=22", "", "+15551230001"),
        ("15551230001", "", "+15551230001"),
        ("0015551230001", "", "+15551230001"),
        ("5551230001", "", ""),
        ("5551230001", "1", "+15551230001"),
        ("02079460001", "44", "+442079460001"),
        ("447700900123", "44", "+447700900123"),
        ("1001", "1", ""),
        ("+0123456789", "", ""),
        ("+123456", "", ""),
        ("+1234567890123456", "", ""),
        ("+", "", ""),
        ("", "", ""),
        ("alice", "", ""),
        ("+1555123٣001", "", ""),
    ],
)
def test_e164(text: str, country: str, expected: str) -> None:
    assert e164(text, country) == expected


def test_tel_uris() -> None:
    assert number_of(Uri.parse("tel:+1-555-123-0001")) == "+15551230001"
    assert number_of(Uri.parse("tel:123-0001;phone-context=+1555")) == "+15551230001"
    assert number_of(Uri.parse("tel:911;phone-context=example.com")) == ""
    assert number_of(Uri.parse("mailto:+15551230001")) == ""


def test_the_caller_is_from() -> None:
    assert calling('"Alice" <sip:+15551230001@h;user=phone>') == Caller("+15551230001", "Alice")
    assert calling("<sip:15551230001@h>", "P-Asserted-Identity: <sip:+15559999999@h>") == Caller("+15551230001")
    assert calling("<tel:+1-555-123-0001>").number_or_uri == "+15551230001"
    assert calling("<sip:alice@Example.com:5070;transport=tcp>").number_or_uri == "sip:alice@example.com:5070"
    assert calling("<sip:1001@pbx.example.com>").number_or_uri == "sip:1001@pbx.example.com"


def test_an_asserted_number_stands_in_for_a_name() -> None:
    asserted = 'P-Asserted-Identity: "Bob" <sip:bob@h>, <tel:+15551230009>'
    assert calling("<sip:bob@h>", asserted) == Caller("+15551230009")
    assert calling("<sip:bob@h>", "Remote-Party-ID: <sip:+15551230009@h>;privacy=off").number_or_uri == "+15551230009"
    assert calling("<sip:bob@h>", "P-Asserted-Identity: <broken").number_or_uri == "sip:bob@h"


@pytest.mark.parametrize(
    ("from_", "line", "shown"),
    [
        ('"Anonymous" <sip:anonymous@anonymous.invalid>', "P-Asserted-Identity: <sip:+15551230001@h>", ANONYMOUS),
        ("<sip:x@anonymous.invalid>", "X-A: 1", ANONYMOUS),
        ("<sip:Anonymous@carrier.example.com>", "X-A: 1", ANONYMOUS),
        ("<sip:Restricted@h>", "X-A: 1", "+7378742833"),
        ("<sip:unavailable@h>", "X-A: 1", "+86282452253"),
        ("<sip:+15551230001@h>", "Privacy: id", ANONYMOUS),
        ("<sip:+15551230001@h>", "Privacy: critical; user", ANONYMOUS),
        ("<sip:+15551230001@h>", "Remote-Party-ID: <sip:+15551230001@h>;privacy=full", ANONYMOUS),
    ],
)
def test_anonymous_callers(from_: str, line: str, shown: str) -> None:
    assert calling(from_, line) == Caller(shown, "", anonymous=True)


def test_privacy_none_hides_nothing() -> None:
    assert not calling("<sip:+15551230001@h>", "Privacy: none").anonymous


def test_displays_have_no_control_characters_and_an_end() -> None:
    assert calling('"A\\\x00\\\x07B" <sip:+15551230001@h>').display == "AB"
    assert len(calling(f'"{"x" * 500}" <sip:+15551230001@h>').display) == n.MAX_DISPLAY_CHARACTERS


def test_whom_the_request_uri_names() -> None:
    assert called_of(request()) == "+15551230002"
    asked = request()
    asked.uri = "sip:bob@Example.com;user=x"
    assert called_of(asked) == "sip:bob@example.com"
    asked.uri = "nonsense"
    assert called_of(asked) == ""


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), ""),
        (("Diversion: <sip:+15551110001@h>;reason=unconditional", "Diversion: <sip:+15551110002@h>"), "+15551110001"),
        (("Diversion: <tel:+15551110001>;privacy=full",), ""),
        (("Diversion: <sip:reception@pbx>;reason=no-answer",), "sip:reception@pbx"),
        (("Diversion: <broken",), ""),
        (("History-Info: <sip:+15551110001@h>;index=1",), ""),
        (("History-Info: <sip:+15551110001@h>;index=1, <sip:+15551230002@h>;index=1.1",), "+15551110001"),
        (
            (
                "History-Info: <sip:+15551110001@h?Reason=SIP%3Bcause%3D302>;index=1",
                "History-Info: <sip:+15551110002@h?Reason=SIP%3Bcause%3D200>;index=1.1, <sip:+15551230002@h>;index=1.2",
            ),
            "+15551110001",
        ),
        (("History-Info: <sip:+15551110001@h?Privacy=history>;index=1, <sip:+15551230002@h>;index=1.1",), ""),
    ],
)
def test_who_forwarded(lines: tuple[str, ...], expected: str) -> None:
    assert forwarded_from(request(*lines)) == expected


def test_custom_headers() -> None:
    found = custom_headers(
        request(
            "X-Color: blue",
            "x-size: 7",
            "X-Color: red",
            "user-to-user: 56a390f3;encoding=hex",
            "Y-Other: no",
            "X-Nul: a\x00b",
        )
    )
    assert found == {
        "X-Color": "blue, red", "x-size": "7", "User-to-User": "56a390f3;encoding=hex", "X-Nul": "ab",
    }  # fmt: skip
    many = custom_headers(
        request(*[f"X-{at}: {'v' * 2000 if at == 3 else at}" for at in range(n.MAX_CUSTOM_HEADERS + 20)])
    )
    assert len(many) == n.MAX_CUSTOM_HEADERS
    assert len(many["X-3"]) == n.MAX_CUSTOM_HEADER_CHARACTERS


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], None),
        (['SIP ;cause=200 ;text="Call completed elsewhere"'], ("SIP", 200, "Call completed elsewhere")),
        (['SIP;cause=480, Q.850;cause=16;text="a, b"'], ("Q.850", 16, "a, b")),
        (["SIP;cause=480", "q.850 ; cause=19"], ("q.850", 19, "")),
        (["Preemption"], ("Preemption", 0, "")),
        (["SIP;cause=x"], ("SIP", 0, "")),
        (['SIP;text="open'], None),
        ([""], None),
    ],
)
def test_reasons(values: list[str], expected: tuple[str, int, str] | None) -> None:
    assert reason_of(Headers([("Reason", value) for value in values])) == expected


NAMES = st.sampled_from(
    ["P-Asserted-Identity", "Remote-Party-ID", "Privacy", "Diversion", "History-Info", "Reason", "X-A", "From"]
)
VALUES = st.text(alphabet='<>";,=sip:tel+1@h?%0 anonymous\x00é', max_size=40)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_nothing_raises(fields: list[tuple[str, str]]) -> None:
    drop = ("From",) if any(name == "From" for name, _ in fields) else ()
    try:
        message = request(*[f"{name}: {value}" for name, value in fields], drop=drop)
    except MalformedMessage as error:
        if error.partial is None:
            return
        message = error.partial
    assert caller_of(message).number_or_uri
    assert isinstance(forwarded_from(message), str)
    assert called_of(message) == "+15551230002"
    assert all(value.isprintable() for value in custom_headers(message).values())
    reason_of(message.headers)
