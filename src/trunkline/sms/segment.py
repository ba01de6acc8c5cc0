"""Splitting a text into short messages (3GPP TS 23.040 §9.2.3.24).

A short message carries 140 octets, its user data header included. Octets 5, 0, 3, reference, total and
sequence make the usual concatenation header, which leaves 153 septets or 67 UTF-16 code units.
"""

from typing import Final, Literal

import msgspec

from trunkline.sms import gsm7
from trunkline.sms.smart import smart_encode

USER_DATA_OCTETS: Final = 140
MAX_SEGMENTS: Final = 255  # the total is one octet in every concatenation header
SINGLE_SEPTETS: Final = 160
SINGLE_UNITS: Final = 70

_LENGTH_OCTET: Final = 1
_CONCAT_OCTETS: Final = {8: 5, 16: 6}
_SHIFT_OCTETS: Final = 3

Encoding = Literal["gsm7", "ucs2"]
EncodingChoice = Literal["auto", "gsm7", "ucs2"]
ReferenceWidth = Literal[8, 16]


class TooManySegmentsError(ValueError):
    """The text needs more than 255 segments."""


class Plan(msgspec.Struct, frozen=True, gc=False):
    """How a text travels: unpacked septets or UTF-16BE octets per segment, headers not included.

    `units` counts septets or UTF-16 code units over all segments. `text` is what is sent: after smart
    encoding, and with lone surrogates replaced. `language` is the national single shift id, 0 for none.
    """

    encoding: Encoding
    segments: tuple[bytes, ...]
    units: int
    text: str
    language: int = 0

    @property
    def count(self) -> int:
        return len(self.segments)


def header_octets(concatenated: bool, reference_width: ReferenceWidth = 8, language: int = 0) -> int:
    """Octets of the user data header, its length octet included; 0 when none is needed."""
    elements = (_CONCAT_OCTETS[reference_width] if concatenated else 0) + (_SHIFT_OCTETS if language else 0)
    return elements + _LENGTH_OCTET if elements else 0


def septet_limit(header: int) -> int:
    """Septets that fit beside a header of so many octets."""
    return (USER_DATA_OCTETS - header) * 8 // 7


def unit_limit(header: int) -> int:
    """UTF-16 code units that fit beside a header of so many octets."""
    return (USER_DATA_OCTETS - header) // 2


def plan(
    text: str,
    *,
    encoding: EncodingChoice = "auto",
    smart_encoding: bool = False,
    reference_width: ReferenceWidth = 8,
    language: int = 0,
) -> Plan:
    """Encode `text` and split it into segments.

    `auto` takes GSM 7-bit when it covers the text and UCS-2 otherwise; `gsm7` forces it, with "?" for what it
    lacks. `language` (1 Turkish, 2 Spanish, 3 Portuguese) lets GSM 7-bit use that single shift table if the
    default one does not suffice. Never splits an ESC pair or a surrogate pair. An empty text is one empty
    segment. Raises `TooManySegmentsError` above 255 segments.
    """
    if smart_encoding and encoding != "ucs2":
        text = smart_encode(text)
    if encoding != "ucs2":
        octets = gsm7.DEFAULT.intermediate(text)
        if octets is not None:
            return _plan_gsm7(text, gsm7.DEFAULT.expand(octets), reference_width, 0)
        shifted = gsm7.LANGUAGES[language] if language else None
        if shifted is not None and shifted.covers(text):
            return _plan_gsm7(text, shifted.encode(text), reference_width, language)
        if encoding == "gsm7":
            septets = gsm7.encode(text)
            return _plan_gsm7(gsm7.decode(septets), septets, reference_width, 0)
    return _plan_ucs2(text, reference_width)


def encoding_of(text: str) -> Encoding:
    """What `plan` would choose for `text`."""
    return "gsm7" if gsm7.is_gsm7(text) else "ucs2"


def count_segments(text: str, *, smart_encoding: bool = False) -> int:
    """Segments of `text` with 8-bit references. Raises `TooManySegmentsError` above 255."""
    if len(text) <= SINGLE_UNITS // 2:
        return 1  # even all emoji, or all extension characters, fit
    return plan(text, smart_encoding=smart_encoding).count


def ucs2(text: str) -> bytes:
    """UTF-16BE octets; lone surrogates become U+FFFD."""
    try:
        return text.encode("utf-16-be")
    except UnicodeEncodeError:
        # A high and a low surrogate that stand together are one character, lone ones are replaced.
        return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be", "replace").encode("utf-16-be")


def _plan_gsm7(text: str, septets: bytes, width: ReferenceWidth, language: int) -> Plan:
    units = len(septets)
    if units <= septet_limit(header_octets(False, width, language)):
        return Plan("gsm7", (septets,), units, text, language)
    limit = septet_limit(header_octets(True, width, language))
    segments: list[bytes] = []
    start = 0
    while start < units:
        end = start + limit
        # An ESC is never the second half of a pair, so an ESC in last place always opens one.
        if end < units and septets[end - 1] == gsm7.ESC:
            end -= 1
        segments.append(septets[start:end])
        start = end
    return Plan("gsm7", _bounded(segments), units, text, language)


def _plan_ucs2(text: str, width: ReferenceWidth) -> Plan:
    octets = ucs2(text)
    units = len(octets) // 2
    sent = text if text.isascii() else octets.decode("utf-16-be")
    if units <= SINGLE_UNITS:
        return Plan("ucs2", (octets,), units, sent)
    limit = 2 * unit_limit(header_octets(True, width))
    segments: list[bytes] = []
    start = 0
    while start < len(octets):
        end = start + limit
        if end < len(octets) and octets[end - 2] & 0xFC == 0xD8:  # a high surrogate would be cut off
            end -= 2
        segments.append(octets[start:end])
        start = end
    return Plan("ucs2", _bounded(segments), units, sent)


def _bounded(segments: list[bytes]) -> tuple[bytes, ...]:
    if len(segments) > MAX_SEGMENTS:
        raise TooManySegmentsError(f"{len(segments)} segments, at most {MAX_SEGMENTS} can be sent")
    return tuple(segments)
