"""SMPP times (SMPP 3.4 §7.1.1): `YYMMDDhhmmsstnnp`, absolute with p "+" or "-", relative with p "R"."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from trunkline.smpp.errors import SmppError

_FORMAT: Final = re.compile(r"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d)(\d\d)([+\-R])")
_QUARTER: Final = timedelta(minutes=15)
MAX_QUARTERS: Final = 48
_DAYS_PER_MONTH: Final = 30  # of a relative time: which months is not said
_DAYS_PER_YEAR: Final = 365
MAX_RELATIVE_S: Final = 99 * _DAYS_PER_YEAR * 86_400


class TimeFormatError(SmppError, ValueError):
    """Not an SMPP time."""


def absolute(epoch_ms: int, quarters: int = 0) -> str:
    """The time in the zone so many quarter hours ahead of UTC (negative: behind). Raises `TimeFormatError`."""
    if not -MAX_QUARTERS <= quarters <= MAX_QUARTERS:
        raise TimeFormatError(f"{quarters} quarter hours from UTC")
    try:
        moment = datetime.fromtimestamp(epoch_ms // 100 / 10, UTC) + quarters * _QUARTER
    except (OverflowError, ValueError, OSError):
        raise TimeFormatError(f"{epoch_ms} ms is out of range") from None
    if not 2000 <= moment.year <= 2099:
        raise TimeFormatError(f"year {moment.year} has no two-digit form")
    sign = "-" if quarters < 0 else "+"
    return f"{moment:%y%m%d%H%M%S}{moment.microsecond // 100_000}{abs(quarters):02d}{sign}"


def relative(seconds: int) -> str:
    """The time so many seconds from when the SMSC gets it. Months count 30 days, years 365."""
    if not 0 <= seconds <= MAX_RELATIVE_S:
        raise TimeFormatError(f"{seconds} s is out of range")
    days, rest = divmod(seconds, 86_400)
    years, days = divmod(days, _DAYS_PER_YEAR)
    months, days = divmod(days, _DAYS_PER_MONTH)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    return f"{years:02d}{months:02d}{days:02d}{hours:02d}{minutes:02d}{rest:02d}000R"


def parse(text: str, now_ms: int) -> int | None:
    """Unix milliseconds of an SMPP time, relative ones from `now_ms`; `None` for the empty (default) one.

    Raises `TimeFormatError`.
    """
    if not text:
        return None
    match = _FORMAT.fullmatch(text)
    if match is None or not text.isascii():
        raise TimeFormatError(f"{text!r} is not YYMMDDhhmmsstnnp")
    years, months, days, hours, minutes, seconds, tenths, quarters = map(int, match.groups()[:8])
    if match[9] == "R":
        whole_days = years * _DAYS_PER_YEAR + months * _DAYS_PER_MONTH + days
        return now_ms + 1000 * (((whole_days * 24 + hours) * 60 + minutes) * 60 + seconds)
    if quarters > MAX_QUARTERS:
        raise TimeFormatError(f"{quarters} quarter hours from UTC")
    try:
        moment = datetime(2000 + years, months, days, hours, minutes, seconds, tzinfo=UTC)
    except ValueError as error:
        raise TimeFormatError(f"{text!r}: {error}") from None
    # "+": the local time given is ahead of UTC
    offset = quarters * 900 if match[9] == "+" else -quarters * 900
    return (int(moment.timestamp()) - offset) * 1000 + tenths * 100
