"""Form bodies, against the standard library's reading of them."""

from urllib.parse import parse_qsl, quote_plus, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.api import form
from trunkline.model.errors import ApiError

MULTIPART = b"multipart/form-data; boundary=XX"


def pairs(parsed: form.Form) -> list[tuple[str, str]]:
    return [(name, value) for name, values in parsed.items() for value in values]


def by_name(fields: list[tuple[str, str]]) -> form.Form:
    grouped: form.Form = {}
    for name, value in fields:
        grouped.setdefault(name, []).append(value)
    return grouped


@given(st.lists(st.tuples(st.text(), st.text()), max_size=20))
def test_round_trip(fields: list[tuple[str, str]]) -> None:
    encodable = [(a.encode("utf-8", "replace").decode(), b.encode("utf-8", "replace").decode()) for a, b in fields]
    assert form.parse_urlencoded(urlencode(encodable).encode(), 100) == by_name(encodable)


@given(st.text(alphabet="abAF019%+&=;.- \x00\x7f", max_size=60))
def test_agrees_with_parse_qsl_on_any_ascii(text: str) -> None:
    assert form.parse_urlencoded(text.encode(), 100) == by_name(parse_qsl(text, keep_blank_values=True))


@given(st.binary(max_size=80))
def test_agrees_with_parse_qsl_on_any_bytes(raw: bytes) -> None:
    ascii_only = b"".join(bytes([c]) if c < 0x80 else b"%%%02X" % c for c in raw)
    expected = by_name(parse_qsl(ascii_only.decode(), keep_blank_values=True))
    parsed = form.parse_urlencoded(raw, 100)
    assert parsed == expected
    "".join(a + b for a, b in pairs(parsed)).encode("utf-8")  # no lone surrogates


def test_repeated_names_and_non_ascii() -> None:
    raw = b"MediaUrl=a&MediaUrl=b&Body=Gr%C3%BC%C3%9Fe+%F0%9F%98%80&Empty=&Bare&%C3%A4=1&Raw=\xc3\xbc&Bad=%C3%28%zz%4"
    assert form.parse_urlencoded(raw, 100) == {
        "MediaUrl": ["a", "b"],
        "Body": ["Grüße 😀"],
        "Empty": [""],
        "Bare": [""],
        "ä": ["1"],
        "Raw": ["ü"],
        "Bad": ["\ufffd(%zz%4"],
    }


def test_fields_are_bounded() -> None:
    assert len(form.parse_urlencoded(b"&".join(b"a%d=1" % i for i in range(10)), 10)) == 10
    with pytest.raises(ApiError) as caught:
        form.parse_urlencoded(b"&".join(b"a%d=1" % i for i in range(11)), 10)
    assert (caught.value.status, caught.value.code) == (400, 20422)


@pytest.mark.parametrize("content_type", [b"application/json", b"text/plain", b"application/octet-stream"])
def test_other_media_types_are_refused(content_type: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        form.parse_body(content_type, b'{"To": "+1"}', 10)
    assert caught.value.status == 415
    assert form.parse_body(content_type, b"", 10) == {}


@pytest.mark.parametrize(
    "content_type", [b"", b"application/x-www-form-urlencoded; charset=UTF-8", b"Application/X-WWW-Form-Urlencoded"]
)
def test_urlencoded_by_any_of_its_names(content_type: bytes) -> None:
    assert form.parse_body(content_type, b"a=1", 10) == {"a": ["1"]}


def multipart(*parts: tuple[str, bytes]) -> bytes:
    body = b""
    for disposition, data in parts:
        body += b"--XX\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + data + b"\r\n"
    return body + b"--XX--\r\n"


def test_multipart() -> None:
    body = multipart(('name="To"', b"+1555"), ('name="Body"', "Grüße\r\n2".encode()), ('name="To"', b"\xff"))
    assert form.parse_body(MULTIPART, body, 10) == {"To": ["+1555", "\ufffd"], "Body": ["Grüße\r\n2"]}


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (MULTIPART, multipart(('name="f"; filename="x.png"', b"PNG"))),
        (MULTIPART, multipart(*[(f'name="{i}"', b"") for i in range(11)])),
        (MULTIPART, multipart(('nome="x"', b""))),
        (MULTIPART, multipart(('name="x"', b"1"))[:-12]),
        (MULTIPART, b"garbage"),
        (b"multipart/form-data", multipart(('name="x"', b"1"))),
        (b"multipart/form-data; boundary=" + b"X" * 100, multipart(('name="x"', b"1"))),
        (MULTIPART, b"--XX\r\n" + b"A: b\r\n" * 40 + b"\r\n\r\n--XX--\r\n"),
    ],
)
def test_bad_multipart_is_refused(content_type: bytes, body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        form.parse_body(content_type, body, 10)
    assert (caught.value.status, caught.value.code) == (400, 20422)


@given(st.binary(max_size=200), st.booleans())
def test_multipart_garbage_is_parsed_or_refused(raw: bytes, framed: bool) -> None:
    body = b"--XX\r\n" + raw + b"\r\n--XX--\r\n" if framed else raw
    try:
        parsed = form.parse_body(MULTIPART, body, 10)
    except ApiError as error:
        refused = error.status
    else:
        refused = 400
        assert all(isinstance(value, str) for _, value in pairs(parsed))
    assert refused == 400


def test_unquote_is_utf8() -> None:
    assert form.unquote(quote_plus("ü/😀")) == "ü/😀"
