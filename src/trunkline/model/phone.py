"""Phone numbers and the other addresses that a message may come from or go to.

Two depths of checking. The *light* check, used on the hot path (about 1 us), takes a number whose calling code
exists and whose length the numbering plan allows ("possible", as libphonenumber says): numbers of test ranges pass,
typing errors mostly do not. The *strict* check and everything that describes a number (`details`, `line_type`)
ask the full metadata of `phonenumbers`, which is imported on first use only: it costs start-up time and memory.

Sources: ITU-T E.164; Twilio's address formats, test credentials ("magic numbers") and Lookup v2 documentation.
"""

import re
from enum import StrEnum
from functools import lru_cache
from types import ModuleType
from typing import Any, NamedTuple

from trunkline.model.errors import ApiError

MAX_ADDRESS_CHARS = 64
"""Longest text that is looked at as an address at all."""
MAX_ALPHANUMERIC_CHARS = 11
"""An alphanumeric sender must fit a GSM address field (3GPP TS 23.040 section 9.1.2.5)."""
REGION_CACHE_NUMBERS = 16384
"""Numbers whose country is remembered."""
DETAILS_CACHE_NUMBERS = 4096
"""Numbers whose full description is remembered."""

_E164 = re.compile(r"\+[1-9][0-9]{5,14}", re.ASCII)
_PUNCTUATION = str.maketrans("", "", " -.()/\u00a0\u2010\u2011\u2012\u2013")
_SHORT_CODE = re.compile(r"[1-9][0-9]{2,7}", re.ASCII)
_ALPHANUMERIC = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9+\-_&][A-Za-z0-9+\-_& ]{0,10}", re.ASCII)
_CHANNEL = re.compile(r"[a-z][a-z0-9_]{1,30}:", re.ASCII | re.IGNORECASE)
_NANP_NATIONAL = re.compile(r"[2-9][0-9]{9}", re.ASCII)

NO_LENGTHS: frozenset[int] = frozenset()


class SenderKind(StrEnum):
    """What an address is, when it stands in `From`."""

    PHONE_NUMBER = "phone_number"
    SHORT_CODE = "short_code"
    ALPHANUMERIC = "alpha"


class Sender(NamedTuple):
    """A parsed `From`: E.164 numbers normalised, everything else as given."""

    kind: SenderKind
    address: str


class LineType(StrEnum):
    """Line types as Lookup v2 spells them."""

    LANDLINE = "landline"
    MOBILE = "mobile"
    FIXED_VOIP = "fixedVoip"
    NON_FIXED_VOIP = "nonFixedVoip"
    PERSONAL = "personal"
    TOLL_FREE = "tollFree"
    PREMIUM = "premium"
    SHARED_COST = "sharedCost"
    UAN = "uan"
    VOICEMAIL = "voicemail"
    PAGER = "pager"
    UNKNOWN = "unknown"


class NumberDetails(NamedTuple):
    """What the numbering plan tells about a number (Lookup v2's basic answer)."""

    phone_number: str
    """E.164, or the text as given when it cannot be read as a number."""
    valid: bool
    country: str | None
    """ISO 3166-1 alpha-2; None for calling codes that belong to no country."""
    calling_code: str | None
    national_format: str | None
    validation_errors: tuple[str, ...]
    """TOO_SHORT, TOO_LONG, INVALID_BUT_POSSIBLE, INVALID_COUNTRY_CODE, INVALID_LENGTH, NOT_A_NUMBER."""
    line_type: LineType


def _phonenumbers() -> ModuleType:
    """The metadata library, imported when first needed (36 ms)."""
    import phonenumbers

    return phonenumbers


# --- the light check -------------------------------------------------------------------------------------------

_lengths: dict[str, frozenset[int]] = {}
"""First three digits after the plus -> allowed lengths of the whole E.164 text; at most 1,000 entries."""


def _allowed_lengths(digits: str) -> frozenset[int]:
    """Lengths (plus sign included) that the plan of the calling code in `digits` allows; empty: no such code."""
    plans = _phonenumbers()
    for width in (1, 2, 3):
        regions = plans.COUNTRY_CODE_TO_REGION_CODE.get(int(digits[:width]))
        if regions is not None:
            plan = plans.PhoneMetadata.metadata_for_region_or_calling_code(int(digits[:width]), regions[0])
            return frozenset(1 + width + national for national in plan.general_desc.possible_length)
    return NO_LENGTHS


def is_e164(text: str) -> bool:
    """Whether `text` is a possible E.164 number, plus sign included (the light check)."""
    if _E164.fullmatch(text) is None:
        return False
    digits = text[1:4]
    lengths = _lengths.get(digits)
    if lengths is None:
        lengths = _lengths[digits] = _allowed_lengths(digits)
    return len(text) in lengths


def to_e164(text: str) -> str | None:
    """`text` as E.164, or None when it is no possible number.

    Punctuation is dropped. Without a plus sign (often lost where `+` was not URL-encoded) ten digits are a North
    American number, anything else is taken as starting with its calling code, as Twilio does.
    """
    if is_e164(text):
        return text
    if len(text) > MAX_ADDRESS_CHARS:
        return None
    digits = text.translate(_PUNCTUATION)
    if not digits.startswith("+"):
        digits = ("+1" if _NANP_NATIONAL.fullmatch(digits) else "+") + digits
    return digits if is_e164(digits) else None


def is_short_code(text: str) -> bool:
    """Whether `text` is a short code: 3 to 8 digits."""
    return _SHORT_CODE.fullmatch(text) is not None


def is_alphanumeric(text: str) -> bool:
    """Whether `text` may be an alphanumeric sender: up to 11 of A-Z a-z 0-9 space + - _ &, at least one letter."""
    return len(text) <= MAX_ALPHANUMERIC_CHARS and _ALPHANUMERIC.fullmatch(text) is not None


def channel_of(text: str) -> str | None:
    """The channel of an address such as `whatsapp:+15551234567`; None for a plain one."""
    match = _CHANNEL.match(text)
    return None if match is None else match.group()[:-1].lower()


def parse_to(text: str) -> str:
    """The E.164 form of a `To`; raises 21211, or 21910 for another channel's address (only SMS is served)."""
    if is_e164(text):
        return text
    number = to_e164(text)
    if number is None:
        if channel_of(text) is not None:
            raise ApiError.of(21910)
        raise ApiError.of(21211, to=text)
    return number


def parse_from(text: str) -> Sender:
    """The sender that a `From` names; raises 21212, or 63007 for another channel's address.

    Short codes win over bare numbers, numbers over alphanumeric names.
    """
    if is_e164(text):
        return Sender(SenderKind.PHONE_NUMBER, text)
    if is_short_code(text):
        return Sender(SenderKind.SHORT_CODE, text)
    number = to_e164(text)
    if number is not None:
        return Sender(SenderKind.PHONE_NUMBER, number)
    name = text.strip(" ")
    if is_alphanumeric(name):
        return Sender(SenderKind.ALPHANUMERIC, name)
    if channel_of(text) is not None:
        raise ApiError.of(63007)
    raise ApiError.of(21212, from_=text)


# --- what the numbering plan tells -----------------------------------------------------------------------------

_regions: dict[str, str] = {}
"""Prefix -> country where the prefix settles it: the calling code's first three digits, or in North America area
code and one digit more. At most 11,000 entries, since only E.164 numbers get in."""


def country(number: str) -> str | None:
    """ISO 3166-1 alpha-2 country of an E.164 number; None when it belongs to none (or is none).

    A possible number of no assigned range counts for its plan's main country.
    """
    known = _regions.get(number[1:6] if number.startswith("+1") else number[1:4])
    return known if known is not None else _region(number)


@lru_cache(maxsize=REGION_CACHE_NUMBERS)
def _region(number: str) -> str | None:
    """The country by full metadata, remembered for the whole prefix where that suffices."""
    if _E164.fullmatch(number) is None:
        return None
    plans = _phonenumbers()
    try:
        parsed = plans.parse(number)
    except plans.NumberParseException:
        return None
    regions = plans.COUNTRY_CODE_TO_REGION_CODE.get(parsed.country_code, ())
    if not regions or regions[0] == plans.REGION_CODE_FOR_NON_GEO_ENTITY:
        return None
    if len(regions) == 1:
        _regions[number[1:4]] = regions[0]
        return str(regions[0])
    region = str(plans.region_code_for_number(parsed) or regions[0])
    if parsed.country_code == 1 and len(number) == 12:
        _regions[number[1:6]] = region
    return region


def calling_code(number: str) -> str | None:
    """The country calling code of an E.164 number, digits only."""
    plans = _phonenumbers()
    for width in (1, 2, 3):
        digits = number[1 : 1 + width]
        if digits.isdecimal() and int(digits) in plans.COUNTRY_CODE_TO_REGION_CODE:
            return digits
    return None


def is_valid(number: str) -> bool:
    """The strict check: the number lies in an assigned range of its plan."""
    return details(number).valid


def national_format(number: str) -> str:
    """The number as its own country writes it, e.g. `(415) 555-2671`; unreadable text comes back as it is."""
    return details(number).national_format or number


def line_type(number: str) -> LineType:
    """What kind of line the numbering plan says it is (ported numbers keep their plan's type).

    Where the plan does not part mobile from fixed (North America) the answer is `unknown`.
    """
    return details(number).line_type


@lru_cache(maxsize=DETAILS_CACHE_NUMBERS)
def details(text: str, default_country: str | None = None) -> NumberDetails:
    """Everything the numbering plan tells; national formats are read in `default_country` (alpha-2)."""
    plans = _phonenumbers()
    bad = NumberDetails(text[:MAX_ADDRESS_CHARS], False, None, None, None, ("NOT_A_NUMBER",), LineType.UNKNOWN)
    if len(text) > MAX_ADDRESS_CHARS:
        return bad
    try:
        parsed = plans.parse(text, default_country)
    except plans.NumberParseException as error:
        return bad._replace(validation_errors=(_PARSE_ERRORS.get(error.error_type, "NOT_A_NUMBER"),))
    valid = bool(plans.is_valid_number(parsed))
    number = str(plans.format_number(parsed, plans.PhoneNumberFormat.E164))
    return NumberDetails(
        phone_number=number,
        valid=valid,
        country=country(number),
        calling_code=str(parsed.country_code),
        national_format=str(plans.format_number(parsed, plans.PhoneNumberFormat.NATIONAL)),
        validation_errors=() if valid else (_reason(plans, parsed),),
        line_type=_LINE_TYPES.get(plans.number_type(parsed), LineType.UNKNOWN),
    )


def _reason(plans: ModuleType, parsed: Any) -> str:
    """Why a number that parses is not valid."""
    return _REASONS.get(plans.is_possible_number_with_reason(parsed), "INVALID_BUT_POSSIBLE")


# libphonenumber's constants, by value, so that these tables do not import it.
_PARSE_ERRORS = {0: "INVALID_COUNTRY_CODE", 1: "NOT_A_NUMBER", 2: "TOO_SHORT", 3: "TOO_SHORT", 4: "TOO_LONG"}
_REASONS = {1: "INVALID_COUNTRY_CODE", 2: "TOO_SHORT", 3: "TOO_LONG", 5: "INVALID_LENGTH"}
_LINE_TYPES = {
    0: LineType.LANDLINE,
    1: LineType.MOBILE,
    3: LineType.TOLL_FREE,
    4: LineType.PREMIUM,
    5: LineType.SHARED_COST,
    6: LineType.NON_FIXED_VOIP,
    7: LineType.PERSONAL,
    8: LineType.PAGER,
    9: LineType.UAN,
    10: LineType.VOICEMAIL,
}

# --- magic numbers of test credentials -------------------------------------------------------------------------

MAGIC_SENDER = "+15005550006"
"""The only `From` that test credentials may use."""

MAGIC_MESSAGE_FROM = {"+15005550001": 21212, "+15005550007": 21606, "+15005550008": 21611}
MAGIC_MESSAGE_TO = {
    "+15005550001": 21211,
    "+15005550002": 21612,
    "+15005550003": 21408,
    "+15005550004": 21610,
    "+15005550009": 21614,
}
MAGIC_CALL_FROM = {"+15005550001": 21212}
MAGIC_CALL_TO = {"+15005550001": 21217, "+15005550002": 21214, "+15005550003": 21215, "+15005550004": 21216}
MAGIC_PURCHASE = {"+15005550000": 21422, "+15005550001": 21421}
MAGIC_AREA_CODE = {"533": 21452}


def check_magic_message(from_: str | None, to: str) -> None:
    """Raise what test credentials answer to a message from and to these numbers; any other sender is 21606.

    `from_` is None where a Messaging Service sends.
    """
    code = MAGIC_MESSAGE_TO.get(to)
    if from_ is not None and from_ != MAGIC_SENDER:
        code = MAGIC_MESSAGE_FROM.get(from_, 21606)
    if code is not None:
        raise ApiError.of(code, from_=from_ or "", to=to)


def check_magic_call(from_: str, to: str) -> None:
    """Raise what test credentials answer to a call from and to these numbers; any other caller is 21210."""
    code = MAGIC_CALL_TO.get(to) if from_ == MAGIC_SENDER else MAGIC_CALL_FROM.get(from_, 21210)
    if code is not None:
        raise ApiError.of(code, from_=from_, to=to)


def check_magic_purchase(phone_number: str | None, area_code: str | None) -> None:
    """Raise what test credentials answer to the purchase of a number; other numbers are not available (21422)."""
    if phone_number is not None:
        code = MAGIC_PURCHASE.get(phone_number, None if phone_number == MAGIC_SENDER else 21422)
        if code is not None:
            raise ApiError.of(code, number=phone_number)
    elif area_code is not None and area_code in MAGIC_AREA_CODE:
        raise ApiError.of(MAGIC_AREA_CODE[area_code], area_code=area_code)
