"""Emergency numbers: which numbers are some, and how a call to one is told from others.

They are placed through `voice.emergency_trunk` alone, as the bare digits that the country of the caller knows (`911`,
`112`): such an address is no E.164 number, so that a call to one can always be told by it. The country is that of the
number that is shown as caller, which the far end finds the caller by. Nothing that limits calls holds for them.
"""

from functools import lru_cache
from typing import Final

from trunkline.model import phone

MAX_DIGITS: Final = 6
"""Of an emergency number; the longest known has 5."""
MAX_CODE: Final = 3
"""Digits of a calling code."""
CACHED: Final = 4096
_SEPARATORS = str.maketrans("", "", " -.()")


def is_bare(to: str) -> bool:
    """Whether an address is that of an emergency call: digits without a plus."""
    return to[:1] != "+" and to.isascii() and to.isdecimal()


def called(text: str, caller: str) -> str:
    """The emergency number that `text` is in the country of a caller (E.164), as bare digits; empty: it is none.

    `911` and `9-1-1` are read, and `+1911` behind the caller's own calling code."""
    if len(text) > 2 * (MAX_DIGITS + MAX_CODE) or caller[:1] != "+":
        return ""
    digits = text.translate(_SEPARATORS)
    if digits[:1] == "+":
        digits = digits.removeprefix("+" + (phone.calling_code(caller) or "+"))
    return digits if _is_one(digits, phone.country(caller) or "") else ""


def anywhere(text: str) -> bool:
    """Whether a text is an emergency number of some country."""
    return is_bare(text) and len(text) <= MAX_DIGITS and _is_any(text)


@lru_cache(maxsize=CACHED)
def _is_one(digits: str, region: str) -> bool:
    if not is_bare(digits) or len(digits) > MAX_DIGITS or not region:
        return False
    import phonenumbers

    return bool(phonenumbers.is_emergency_number(digits, region))


@lru_cache(maxsize=CACHED)
def _is_any(digits: str) -> bool:
    import phonenumbers

    return any(phonenumbers.is_emergency_number(digits, region) for region in phonenumbers.SUPPORTED_SHORT_REGIONS)
