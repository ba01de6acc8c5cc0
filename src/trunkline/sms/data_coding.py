"""The data_coding octet (SMPP 3.4 §5.2.19, 3GPP TS 23.038 §4) and the text behind it.

What data_coding 0 means is the operator's choice, so every route names its default alphabet.
"""

from typing import Final, Literal

from trunkline.sms import gsm7
from trunkline.sms.segment import Encoding

DefaultAlphabet = Literal["gsm7", "gsm7_packed", "latin1", "ascii"]
Charset = Literal[
    "default", "ascii", "binary", "latin1", "cyrillic", "hebrew", "ucs2", "shift_jis", "iso2022_jp", "euc_kr"
]

DEFAULT: Final = 0x00
ASCII: Final = 0x01
LATIN1: Final = 0x03
BINARY: Final = 0x04
UCS2: Final = 0x08
FLASH_GSM7: Final = 0x10
FLASH_UCS2: Final = 0x18

_PYTHON_CODECS: Final = {
    "ascii": "ascii",
    "latin1": "latin-1",
    "cyrillic": "iso8859-5",
    "hebrew": "iso8859-8",
    "shift_jis": "shift_jis",
    "iso2022_jp": "iso2022_jp",
    "euc_kr": "euc_kr",
}
_SMPP_CHARSETS: Final[dict[int, Charset]] = {
    0x01: "ascii",
    0x02: "binary",
    0x03: "latin1",
    0x04: "binary",
    0x05: "shift_jis",
    0x06: "cyrillic",
    0x07: "hebrew",
    0x08: "ucs2",
    0x0A: "iso2022_jp",
    0x0E: "euc_kr",
}
_GENERAL_ALPHABETS: Final[tuple[Charset, ...]] = ("default", "binary", "ucs2", "default")


def _charset(octet: int) -> Charset:
    group = octet >> 4
    if group == 0x0:
        return _SMPP_CHARSETS.get(octet, "default")
    if group in (0x1, 0x5):  # general data coding, uncompressed, with a message class
        return _GENERAL_ALPHABETS[octet >> 2 & 3]
    if group in (0x2, 0x3, 0x6, 0x7):  # compressed: carried as it is
        return "binary"
    if group == 0xE:  # message waiting, store, UCS-2
        return "ucs2"
    if group == 0xF:  # data coding and message class
        return "binary" if octet & 0x04 else "default"
    return "default"


_CHARSETS: Final[tuple[Charset, ...]] = tuple(_charset(octet) for octet in range(256))


def charset_of(data_coding: int) -> Charset:
    """The character set a data_coding octet names; reserved values mean the default alphabet."""
    return _CHARSETS[data_coding & 0xFF]


def message_class(data_coding: int) -> int | None:
    """0 flash, 1 to 3 storage classes, `None` when the octet names none."""
    return data_coding & 3 if data_coding >> 4 in (0x1, 0x5, 0xF) else None


def decode(
    data_coding: int,
    payload: bytes,
    *,
    default: DefaultAlphabet = "gsm7",
    header_octets: int = 0,
    single_shift: int = 0,
) -> str | None:
    """The text of an inbound payload (its UDH removed), `None` when it is binary. Never raises.

    `header_octets` is the size of the removed UDH, to which packed septets align.
    """
    charset = _CHARSETS[data_coding & 0xFF]
    if charset == "default":
        return _decode_default(payload, default, header_octets, single_shift)
    if charset == "ucs2":
        return decode_ucs2(payload)
    if charset == "binary":
        return None
    return payload.decode(_PYTHON_CODECS[charset], "replace")


def decode_ucs2(payload: bytes) -> str:
    """UTF-16BE text; a byte order mark is obeyed, a trailing odd octet dropped, bad surrogates replaced."""
    payload = payload[: len(payload) & ~1]
    if payload[:2] == b"\xff\xfe":
        return payload[2:].decode("utf-16-le", "replace")
    if payload[:2] == b"\xfe\xff":
        payload = payload[2:]
    return payload.decode("utf-16-be", "replace")


def _decode_default(payload: bytes, default: DefaultAlphabet, header_octets: int, single_shift: int) -> str:
    if default == "latin1" or default == "ascii":
        return payload.decode(_PYTHON_CODECS[default], "replace")
    septets = unpacked(DEFAULT, payload, default=default, header_octets=header_octets)
    return gsm7.LANGUAGES.get(single_shift, gsm7.DEFAULT).decode(septets)


def unpacked(data_coding: int, payload: bytes, *, default: DefaultAlphabet, header_octets: int = 0) -> bytes:
    """The payload with packed septets unpacked, so that parts can be joined; decode it with default "gsm7"."""
    if default == "gsm7_packed" and _CHARSETS[data_coding & 0xFF] == "default":
        return gsm7.unpack(payload, fill=gsm7.fill_bits(header_octets))
    return payload


def carries(default: DefaultAlphabet, text: str) -> bool:
    """Whether data_coding 0 can carry `text` on a route with this default alphabet; if not, send UCS-2."""
    if default == "latin1" or default == "ascii":
        return gsm7.is_gsm7(text) and _encodable(text, _PYTHON_CODECS[default])
    return gsm7.is_gsm7(text)


def _encodable(text: str, codec: str) -> bool:
    try:
        text.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


def encode_segment(
    encoding: Encoding, segment: bytes, *, default: DefaultAlphabet = "gsm7", header_octets: int = 0
) -> bytes:
    """The payload to send for one segment of a `Plan`, without its UDH.

    A default alphabet that lacks a character carries "?" for it: ask `carries` beforehand.
    """
    if encoding == "ucs2" or default == "gsm7":
        return segment
    if default == "gsm7_packed":
        return gsm7.pack(segment, gsm7.fill_bits(header_octets))
    return gsm7.decode(segment).encode(_PYTHON_CODECS[default], "replace")


def data_coding_for(encoding: Encoding, *, flash: bool = False) -> int:
    """The octet to send with a segment; flash is message class 0."""
    if encoding == "ucs2":
        return FLASH_UCS2 if flash else UCS2
    return FLASH_GSM7 if flash else DEFAULT
