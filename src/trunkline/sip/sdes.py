"""Keys of SRTP in session descriptions (SDES, RFC 4568): the `a=crypto` lines of a medium.

    a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^31

Each side names the key that it sends with. A line that we cannot do as it asks (another suite, more than one key, a key
index, encryption or authentication turned off) is passed over, as section 7.1.2 has it. Keys are base64 text throughout
and stand in no representation of what holds them.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from typing import Final

import msgspec

SUITES: Final = ("AES_CM_128_HMAC_SHA1_80", "AES_CM_128_HMAC_SHA1_32")
"""What we do, in the order of our offers."""
KEY_BYTES: Final = 30
"""Master key (128 bits) and salt (112 bits) of both suites."""
MAX_LINES: Final = 16
"""Lines of one medium that are looked at."""
MAX_LINE: Final = 512
"""Characters of a line."""
MAX_TAG: Final = 999_999_999
"""Nine digits (section 9.1)."""
LEAST_LIFETIME: Final = 1 << 20
"""Packets; a key for fewer would not last a call."""
HARMLESS: Final = "WSH="
"""The one session parameter that asks for nothing (section 6.3.7); those with a leading `-` may be passed over too."""

CRYPTO: Final = "crypto"


class Srtp(msgspec.Struct, frozen=True, kw_only=True):
    """What both sides agreed on. Keys are base64 of master key and salt."""

    suite: str
    ours: str
    """What we send with."""
    theirs: str

    def __repr__(self) -> str:
        return f"Srtp({self.suite})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("suite", self.suite)]


class Crypto(msgspec.Struct, frozen=True):
    """A line: its number, suite and key."""

    tag: int
    suite: str
    key: str

    def __repr__(self) -> str:
        return f"Crypto({self.tag}, {self.suite})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("tag", self.tag), ("suite", self.suite)]


def make_key(octets: bytes) -> str:
    """A key's text from KEY_BYTES of randomness. Raises ValueError for another number of octets."""
    if len(octets) != KEY_BYTES:
        raise ValueError(f"{len(octets)} octets are no key")
    return b64encode(octets).decode()


def parse(value: str) -> Crypto | None:
    """The value of a crypto attribute, None if it is malformed or asks for what we do not do."""
    parts = value.split() if len(value) <= MAX_LINE else []
    if len(parts) < 3 or not _is_number(parts[0], len(str(MAX_TAG))):
        return None
    tag, suite, key = int(parts[0]), parts[1], _inline(parts[2])
    if suite not in SUITES or not key:
        return None
    if not all(parameter.startswith(("-", HARMLESS)) for parameter in parts[3:]):
        return None
    return Crypto(tag, suite, key)


def usable(values: Sequence[str]) -> list[Crypto]:
    """What can be used of the crypto attributes of a medium, in their order; of lines with one number the first."""
    found: dict[int, Crypto] = {}
    for value in values[:MAX_LINES]:
        crypto = parse(value)
        if crypto is not None:
            found.setdefault(crypto.tag, crypto)
    return list(found.values())


def line(crypto: Crypto) -> str:
    """The attribute as it stands in a description."""
    return f"a={CRYPTO}:{crypto.tag} {crypto.suite} inline:{crypto.key}"


def offered(keys: Sequence[str]) -> list[Crypto]:
    """The lines of an offer: one key for each of SUITES."""
    return [Crypto(at + 1, suite, key) for at, (suite, key) in enumerate(zip(SUITES, keys, strict=True))]


def _inline(text: str) -> str:
    """The key of a single inline parameter without a key index, as canonical base64; "" otherwise."""
    method, colon, rest = text.partition(":")
    if not colon or method.lower() != "inline" or ";" in rest:
        return ""
    key, *further = rest.split("|")
    if len(further) > 1 or not all(_is_lifetime(part) for part in further):
        return ""
    try:
        octets = b64decode(key + "=" * (-len(key) % 4), validate=True)
    except (binascii.Error, ValueError):
        return ""
    return make_key(octets) if len(octets) == KEY_BYTES else ""


def _is_lifetime(text: str) -> bool:
    """Packets that a key may be used for, long enough for a call. A key index (`1:4`) is none."""
    power = text.startswith("2^")
    digits = text[2:] if power else text
    if not _is_number(digits, 2 if power else 15):
        return False
    return (1 << int(digits) if power else int(digits)) >= LEAST_LIFETIME


def _is_number(text: str, most: int) -> bool:
    return 0 < len(text) <= most and text.isascii() and text.isdigit()
