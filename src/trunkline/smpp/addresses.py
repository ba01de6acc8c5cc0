"""Which type of number (TON) and numbering plan (NPI) an address travels with (SMPP 3.4 §5.2.5, §5.2.6).

International numbers 1/1 without "+", alphanumeric senders 5/0, short codes 3/0; a route may override each.
"""

import re
from typing import Final

import msgspec

from trunkline.smpp.errors import SmppError

TON_UNKNOWN: Final = 0
TON_INTERNATIONAL: Final = 1
TON_NATIONAL: Final = 2
TON_NETWORK_SPECIFIC: Final = 3
TON_ALPHANUMERIC: Final = 5
NPI_UNKNOWN: Final = 0
NPI_ISDN: Final = 1

MAX_ALPHANUMERIC: Final = 11  # TS 23.040 §9.1.2.5: 11 septets in the address field
MAX_SHORT_CODE_DIGITS: Final = 8
MAX_DIGITS: Final = 20

_NUMBER: Final = re.compile(r"(\+?)([0-9]{1,20})")


class AddressError(SmppError, ValueError):
    """The address can travel in no form."""


class Scheme(msgspec.Struct, frozen=True):
    """TON and NPI of each kind of address on a route; `plus` keeps the "+" of international numbers."""

    international: tuple[int, int] = (TON_INTERNATIONAL, NPI_ISDN)
    short_code: tuple[int, int] = (TON_NETWORK_SPECIFIC, NPI_UNKNOWN)
    alphanumeric: tuple[int, int] = (TON_ALPHANUMERIC, NPI_UNKNOWN)
    plus: bool = False


DEFAULT_SCHEME: Final = Scheme()


def address(value: str, scheme: Scheme = DEFAULT_SCHEME) -> tuple[int, int, str]:
    """TON, NPI and the address as sent. Up to 8 digits without "+" are a short code, more are international.

    Raises `AddressError` for an alphanumeric one above 11 characters, outside ASCII or without a letter.
    """
    match = _NUMBER.fullmatch(value)
    if match is not None:
        plus, digits = match.groups()
        if not plus and len(digits) <= MAX_SHORT_CODE_DIGITS:
            return (*scheme.short_code, digits)
        return (*scheme.international, "+" + digits if scheme.plus else digits)
    letters = value.isascii() and value.isprintable() and any(map(str.isalpha, value))
    if not letters or len(value) > MAX_ALPHANUMERIC:
        raise AddressError(f"{value!r} is neither a number nor a sender of 1 to {MAX_ALPHANUMERIC} characters")
    return (*scheme.alphanumeric, value)


def number(ton: int, value: str) -> str:
    """The address of a received PDU as we write it: "+" and digits for international numbers.

    With an unknown TON a number of more than 8 digits is taken for international, and a leading "00" for "+".
    What is no number stays as it is.
    """
    match = _NUMBER.fullmatch(value)
    if match is None or ton == TON_ALPHANUMERIC:
        return value
    plus, digits = match.groups()
    if plus or ton == TON_INTERNATIONAL:
        return "+" + digits
    if ton == TON_UNKNOWN and len(digits) > MAX_SHORT_CODE_DIGITS:
        return "+" + digits.removeprefix("00")
    return digits
