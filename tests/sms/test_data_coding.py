import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.sms import data_coding, gsm7, udh
from trunkline.sms.segment import plan


@pytest.mark.parametrize(
    ("octet", "default", "payload", "text"),
    [
        (0x00, "gsm7", b"\x00a\x1b<", "@a["),
        (0x00, "gsm7_packed", bytes.fromhex("E8329BFD4697D9EC37"), "hellohello"),
        (0x00, "latin1", b"\xe9\x40", "é@"),
        (0x00, "ascii", b"a@\xe9", "a@\ufffd"),
        (0x01, "gsm7", b"a@", "a@"),
        (0x03, "gsm7", b"\xe9@", "é@"),
        (0x06, "gsm7", "жar".encode("iso8859-5"), "жar"),
        (0x08, "gsm7", b"\x04\x36", "ж"),
        (0x08, "gsm7", b"\x04\x36\x00", "ж"),
        (0x08, "gsm7", b"\xff\xfe\x36\x04", "ж"),
        (0x08, "gsm7", b"\xfe\xff\x04\x36", "ж"),
        (0x08, "gsm7", b"\xd8\x3d\x00a", "\ufffda"),
        (0x10, "gsm7", b"\x00", "@"),
        (0xF0, "gsm7", b"\x00", "@"),
        (0x18, "gsm7", b"\x04\x36", "ж"),
        (0xE0, "gsm7", b"\x04\x36", "ж"),
        (0x04, "gsm7", b"\x00", None),
        (0x02, "gsm7", b"\x00", None),
        (0xF4, "gsm7", b"\x00", None),
        (0x14, "gsm7", b"\x00", None),
    ],
)
def test_decode(octet: int, default: data_coding.DefaultAlphabet, payload: bytes, text: str | None) -> None:
    assert data_coding.decode(octet, payload, default=default) == text


@given(
    st.integers(0, 255),
    st.binary(max_size=300),
    st.sampled_from(["gsm7", "gsm7_packed", "latin1", "ascii"]),
    st.integers(0, 12),
    st.integers(0, 255),
)
def test_decoding_anything_never_raises(
    octet: int, payload: bytes, default: data_coding.DefaultAlphabet, header: int, shift: int
) -> None:
    text = data_coding.decode(octet, payload, default=default, header_octets=header, single_shift=shift)
    assert (text is None) == (data_coding.charset_of(octet) == "binary")


@pytest.mark.parametrize(("octet", "cls"), [(0x10, 0), (0xF0, 0), (0xF1, 1), (0x18, 0), (0x00, None), (0x08, None)])
def test_message_class(octet: int, cls: int | None) -> None:
    assert data_coding.message_class(octet) == cls


@pytest.mark.parametrize("text", ["short @ [text]", "ж text", "x" * 155 + "€€€" + "y" * 100])
@pytest.mark.parametrize("default", ["gsm7", "gsm7_packed"])
def test_what_is_sent_is_what_is_received(text: str, default: data_coding.DefaultAlphabet) -> None:
    result = plan(text)
    received: list[str] = []
    for number, segment in enumerate(result.segments, 1):
        header = udh.concat_header(7, result.count, number) if result.count > 1 else b""
        body = data_coding.encode_segment(result.encoding, segment, default=default, header_octets=len(header))
        assert len(header + body) <= (140 if default == "gsm7_packed" or result.encoding == "ucs2" else 160)
        octet = data_coding.data_coding_for(result.encoding)
        received.append(data_coding.decode(octet, body, default=default, header_octets=len(header)) or "")
    assert "".join(received) == text


def test_latin1_routes() -> None:
    assert data_coding.encode_segment("gsm7", gsm7.encode("é@["), default="latin1") == b"\xe9@["
    assert data_coding.carries("latin1", "é@[")
    assert not data_coding.carries("latin1", "€")
    assert not data_coding.carries("ascii", "é")
    assert data_coding.carries("gsm7", "€")
    assert not data_coding.carries("gsm7", "ж")


def test_flash() -> None:
    assert data_coding.data_coding_for("gsm7", flash=True) == 0x10
    assert data_coding.data_coding_for("ucs2", flash=True) == 0x18
    assert data_coding.data_coding_for("ucs2") == 8


def test_packed_parts_unpack_for_joining() -> None:
    packed = gsm7.pack(b"abcdefghij", gsm7.fill_bits(6))
    assert data_coding.unpacked(0, packed, default="gsm7_packed", header_octets=6) == b"abcdefghij"
    assert data_coding.unpacked(8, b"\0a", default="gsm7_packed") == b"\0a"
