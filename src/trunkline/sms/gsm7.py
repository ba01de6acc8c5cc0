"""The GSM 7-bit default alphabet and its extension tables (3GPP TS 23.038 §6.2.1).

Theory: CPython maps a whole string through a character map in C when the map is a trie, and it builds a
trie only for tables whose entry 0 is NUL. GSM has "@" there. So text is first mapped to an *intermediate*
byte per character: the GSM code for the basic table, 0x80 for "@", and 0x80 | code for characters of the
extension table. The intermediate form is then turned into septets by one `translate` (for "@") and, only
when it holds extension characters, one regular expression substitution that puts ESC before their codes.
A text of 100 characters costs about a microsecond.

Septets are carried *unpacked*, one per octet, which is what SMPP expects; `pack` and `unpack` convert.
"""

import codecs
import re
from re import Match
from typing import Final

ESC: Final = 0x1B
REPLACEMENT: Final = "�"

_BASIC: Final = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION: Final = {
    0x0A: "\f", 0x14: "^", 0x28: "{", 0x29: "}", 0x2F: "\\", 0x3C: "[", 0x3D: "~", 0x3E: "]", 0x40: "|", 0x65: "€",
}  # fmt: skip

# National language single shift tables replace the extension table (TS 23.038 annex A.2).
_TURKISH: Final = _EXTENSION | {
    0x47: "Ğ", 0x49: "İ", 0x53: "Ş", 0x63: "ç", 0x67: "ğ", 0x69: "ı", 0x73: "ş",
}  # fmt: skip
_SPANISH: Final = _EXTENSION | {
    0x09: "ç", 0x41: "Á", 0x49: "Í", 0x4F: "Ó", 0x55: "Ú", 0x61: "á", 0x69: "í", 0x6F: "ó", 0x75: "ú",
}  # fmt: skip
_PORTUGUESE: Final = _EXTENSION | {
    0x05: "ê", 0x09: "ç", 0x0B: "Ô", 0x0C: "ô", 0x0E: "Á", 0x0F: "á", 0x12: "Φ", 0x13: "Γ", 0x15: "Ω", 0x16: "Π",
    0x17: "Ψ", 0x18: "Σ", 0x19: "Θ", 0x1F: "Ê", 0x41: "À", 0x49: "Í", 0x4F: "Ó", 0x55: "Ú", 0x5B: "Ã", 0x5C: "Õ",
    0x61: "Â", 0x69: "í", 0x6F: "ó", 0x75: "ú", 0x7B: "ã", 0x7C: "õ", 0x7F: "â",
}  # fmt: skip

_UNDEFINED: Final = "\ufffe"  # what `codecs` takes for "no such character" in a character map
_AT: Final = 0x80  # the intermediate byte of "@"; no extension table defines code 0
_BAD_OCTET: Final = 0x80 | ESC  # stands for an octet above 0x7F on its way to U+FFFD; never a character
_AT_TO_ZERO: Final = bytes(0 if octet == _AT else octet for octet in range(256))
_MARK_HIGH: Final = bytes(octet if octet < 0x80 else _BAD_OCTET for octet in range(256))
_EXTENDED: Final = bytes(range(0x81, 0x100))
_EXTENDED_OCTET: Final = re.compile(rb"[\x81-\xff]")
_ESCAPED: Final = re.compile(rb"\x1b([\x00-\xff]?)", re.DOTALL)


class Alphabet:
    """The basic table with one extension table; `language` is the single shift id (0 is the default one)."""

    __slots__ = ("_decode", "_encode", "_pairs", "_shifted", "language")

    def __init__(self, language: int, extension: dict[int, str]) -> None:
        self.language = language
        forward = ["\0", *_BASIC[1:], *([_UNDEFINED] * 128)]
        forward[ESC] = _UNDEFINED
        forward[_AT] = "@"
        backward = [*_BASIC, *([REPLACEMENT] * 128)]
        for code, character in extension.items():
            backward[0x80 | code] = character
            if character not in _BASIC:
                forward[0x80 | code] = character
        self._encode = codecs.charmap_build("".join(forward))
        self._decode = "".join(backward)
        self._pairs = {bytes((0x80 | code,)): bytes((ESC, code)) for code in extension}
        self._shifted = {bytes((code,)): bytes((0x80 | code,)) for code in extension}

    def intermediate(self, text: str) -> bytes | None:
        """One byte per character, `None` when a character is outside this alphabet. See the theory above."""
        try:
            octets = codecs.charmap_encode(text, "strict", self._encode)[0]
        except UnicodeEncodeError:
            return None
        return None if 0 in octets else octets

    def expand(self, intermediate: bytes) -> bytes:
        """The septets of an intermediate form, extension characters as ESC pairs."""
        if intermediate.isascii():
            return intermediate
        return _EXTENDED_OCTET.sub(self._pair, intermediate).translate(_AT_TO_ZERO)

    def _pair(self, match: Match[bytes]) -> bytes:
        return self._pairs[match[0]]

    def covers(self, text: str) -> bool:
        """Whether every character of `text` is in this alphabet."""
        return self.intermediate(text) is not None

    def septets(self, text: str) -> int | None:
        """How many septets `text` takes, extension characters counting two; `None` when not covered."""
        octets = self.intermediate(text)
        return None if octets is None else length(octets)

    def encode(self, text: str, replace: str = "?") -> bytes:
        """Unpacked septets; characters outside the alphabet become `replace`, which must be inside it."""
        octets = self.intermediate(text)
        if octets is None:
            octets = self.intermediate("".join(c if self.covers(c) else replace for c in text)) or b""
        return self.expand(octets)

    def decode(self, septets: bytes) -> str:
        """Text of unpacked septets. Never raises.

        An octet above 0x7F becomes U+FFFD. An escaped code that the extension table lacks shows the basic
        character, ESC ESC a space, a lone ESC at the end nothing (TS 23.038 §6.2.1.1 notes 1 and 3).
        """
        if not septets.isascii():
            septets = septets.translate(_MARK_HIGH)
        if ESC in septets:
            septets = _ESCAPED.sub(self._unescape, septets)
        return codecs.charmap_decode(septets, "strict", self._decode)[0]

    def _unescape(self, match: Match[bytes]) -> bytes:
        code = match[1]
        return b" " if code == b"\x1b" else self._shifted.get(code, code)


DEFAULT: Final = Alphabet(0, _EXTENSION)
LANGUAGES: Final = {
    0: DEFAULT,
    1: Alphabet(1, _TURKISH),
    2: Alphabet(2, _SPANISH),
    3: Alphabet(3, _PORTUGUESE),
}

is_gsm7: Final = DEFAULT.covers
septets: Final = DEFAULT.septets
encode: Final = DEFAULT.encode
decode: Final = DEFAULT.decode


def length(intermediate: bytes) -> int:
    """Septets of an intermediate form."""
    if intermediate.isascii():
        return len(intermediate)
    return 2 * len(intermediate) - len(intermediate.translate(None, _EXTENDED))


def fill_bits(header_octets: int) -> int:
    """Padding bits between a user data header (its length octet included) and the first septet."""
    return -header_octets * 8 % 7


def pack(unpacked: bytes, fill: int = 0) -> bytes:
    """Septets packed into octets after `fill` zero bits (TS 23.038 §6.1.2.1.1)."""
    bits = 0
    for septet in reversed(unpacked):
        bits = bits << 7 | (septet & 0x7F)
    return (bits << fill).to_bytes((fill + 7 * len(unpacked) + 7) // 8, "little")


def unpack(octets: bytes, count: int | None = None, fill: int = 0) -> bytes:
    """Septets of packed octets; `count` of them, or as many as there are.

    Without a count a final zero septet that fills the last octet is taken for padding, not for "@":
    seven septets and eight septets ending in "@" pack alike.
    """
    available = max(0, (8 * len(octets) - fill) // 7)
    wanted = available if count is None else min(count, available)
    bits = int.from_bytes(octets, "little") >> fill
    unpacked = bytes([bits >> shift & 0x7F for shift in range(0, 7 * wanted, 7)])
    exact = (8 * len(octets) - fill) % 7 == 0
    if count is None and exact and unpacked.endswith(b"\0"):
        return unpacked[:-1]
    return unpacked
