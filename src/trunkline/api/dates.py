"""Dates as the API writes and reads them."""

from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache

SECOND_MS = 1000
DAY_MS = 86_400 * SECOND_MS
MAX_DATE_CHARS = 64
"""Longest text that is tried as a date."""
SECONDS_CACHE = 4096
"""Distinct seconds whose texts are remembered: messages cluster around now."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def rfc2822(ms: int) -> str:
    """Unix milliseconds as 2010-04-01 writes them: `Thu, 24 Aug 2023 05:01:45 +0000`."""
    return _rfc2822(ms // SECOND_MS)


def iso8601(ms: int) -> str:
    """Unix milliseconds as the newer APIs write them: `2023-08-24T05:01:45Z`."""
    return _iso8601(ms // SECOND_MS)


def iso8601_ms(ms: int) -> str:
    """Unix milliseconds with their milliseconds: `2023-08-24T05:01:45.250Z`."""
    return f"{_iso8601(ms // SECOND_MS)[:-1]}.{ms % SECOND_MS:03d}Z"


@lru_cache(maxsize=SECONDS_CACHE)
def _rfc2822(seconds: int) -> str:
    t = _EPOCH + timedelta(seconds=seconds)
    day, month = _DAYS[t.weekday()], _MONTHS[t.month - 1]  # never the locale's names
    return f"{day}, {t.day:02d} {month} {t.year:04d} {t.hour:02d}:{t.minute:02d}:{t.second:02d} +0000"


@lru_cache(maxsize=SECONDS_CACHE)
def _iso8601(seconds: int) -> str:
    t = _EPOCH + timedelta(seconds=seconds)
    return f"{t.year:04d}-{t.month:02d}-{t.day:02d}T{t.hour:02d}:{t.minute:02d}:{t.second:02d}Z"


def parse_date(text: str) -> date | None:
    """A `YYYY-MM-DD` day, or None."""
    if len(text) != 10:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def parse_instant(text: str) -> int | None:
    """Unix milliseconds of an ISO 8601 or RFC 2822 time, or of a bare day's first moment; GMT where no zone is
    given. None when it is no time, or lies before 1970."""
    if not 8 <= len(text) <= MAX_DATE_CHARS:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    try:
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        ms = (moment - _EPOCH) // timedelta(milliseconds=1)
    except OverflowError:
        return None
    return ms if ms >= 0 else None


def day_start_ms(day: date) -> int:
    """Unix milliseconds of the day's first moment, GMT."""
    return (day - date(1970, 1, 1)).days * DAY_MS
