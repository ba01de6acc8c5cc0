"""What accounts have used, by category: messages and calls summed by the archive, recordings, and the monthly charges
of numbers.

Messages and answered calls count once they have landed, calls by begun minutes; recordings once their audio is whole,
on the day they began. A number is charged on the day it was bought and on that day of every month after
(the last day of shorter months), as long as the account has it; charges of released numbers are not kept. Nothing is
converted: prices in another currency than the account's are left out. Days, months and years are UTC.

Source: Twilio's usage categories and the spec `api.v2010.account.usage.usage_record`.
"""

import asyncio
from calendar import monthrange
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from trunkline.model.account import Account
from trunkline.model.clock import Clock
from trunkline.model.numbers import PhoneNumber
from trunkline.model.record import Record
from trunkline.model.recording import Recording, RecordingStatus
from trunkline.storage.archive import Archive
from trunkline.storage.database import Database

CACHE_S = 15.0
"""Sums are this old at most."""
MAX_CACHED = 1000
"""Sums remembered."""
PAGE = 1000
"""Records read at once."""
DAY_MS = 86_400_000
MINUTE_MS = 60_000
ZERO = Decimal(0)
LONG_CODE, SHORT_CODE = "longcode", "shortcode"
FORMATS = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y", "all": ""}
"""How the archive names a period of each granularity."""


R = TypeVar("R", bound=Record)


class Category(NamedTuple):
    """What a usage category is called and counted in."""

    description: str
    count_unit: str
    usage_unit: str


def _messages(channel: str, name: str) -> dict[str, Category]:
    """The categories of one channel: in and out, by long and short code."""
    made = {channel: Category(name, "messages", "messages")}
    for way in ("Inbound", "Outbound"):
        made[f"{channel}-{way.lower()}"] = Category(f"{way} {name}", "messages", "messages")
        for code, text in ((LONG_CODE, "Long Code"), (SHORT_CODE, "Short Code")):
            made[f"{channel}-{way.lower()}-{code}"] = Category(f"{text} {way} {name}", "messages", "messages")
    return made


CATEGORIES: dict[str, Category] = {
    **_messages("sms", "SMS"),
    **_messages("mms", "MMS"),
    "phonenumbers": Category("PhoneNumbers", "numbers", "numbers"),
    "phonenumbers-local": Category("Local PhoneNumbers", "numbers", "numbers"),
    "phonenumbers-mobile": Category("Mobile PhoneNumbers", "numbers", "numbers"),
    "phonenumbers-tollfree": Category("Toll Free PhoneNumbers", "numbers", "numbers"),
    "shortcodes": Category("ShortCodes", "codes", "codes"),
    "mediastorage": Category("Media Storage", "gb", "gb"),
    "calls": Category("Voice Minutes", "calls", "minutes"),
    "calls-inbound": Category("Inbound Voice Minutes", "calls", "minutes"),
    "calls-inbound-local": Category("Inbound Local Calls", "calls", "minutes"),
    "calls-inbound-mobile": Category("Inbound Mobile Calls", "calls", "minutes"),
    "calls-inbound-tollfree": Category("Inbound Toll Free Calls", "calls", "minutes"),
    "calls-outbound": Category("Outbound Voice Minutes", "calls", "minutes"),
    "calls-client": Category("Client Voice Minutes", "calls", "minutes"),
    "calls-sip": Category("SIP Minutes", "calls", "minutes"),
    "calleridlookups": Category("Caller Name Lookups", "lookups", "lookups"),
    "recordings": Category("Recordings", "recordings", "minutes"),
    "recordingstorage": Category("Recording Storage", "recordings", "minutes"),
    "transcriptions": Category("Transcriptions", "transcriptions", "minutes"),
    "totalprice": Category("Total Price", "usd", "usd"),
}
"""The categories that are known here. Those that nothing here can use (transcriptions, storage) are zero."""

CALL_CATEGORIES = {
    ("inbound", "local"): "calls-inbound-local",
    ("inbound", "tollfree"): "calls-inbound-tollfree",
    ("inbound", "sip"): "calls-sip",
    ("outbound", "sip"): "calls-sip",
    ("inbound", "client"): "calls-client",
    ("outbound", "client"): "calls-client",
}
"""Way and kind of a call, as the archive tells them -> the category beside `calls` and that of the way."""

NUMBER_CATEGORIES = {
    "local": "phonenumbers-local",
    "mobile": "phonenumbers-mobile",
    "tollfree": "phonenumbers-tollfree",
}


class Amount(msgspec.Struct):
    """The usage of one category in one period."""

    count: int = 0
    """Events: messages, calls, numbers."""
    usage: int = 0
    """What is billed: segments, begun minutes, numbers."""
    price: Decimal = ZERO

    def add(self, count: int, usage: int, price: Decimal) -> None:
        self.count += count
        self.usage += usage
        self.price += price


Amounts = dict[str, Amount]
"""By category; absent: zero."""
Totals = Mapping[str, Amounts]
"""By period, named as FORMATS says."""


def day_ms(day: date) -> int:
    """Unix ms of its beginning."""
    return (day - date(1970, 1, 1)).days * DAY_MS


def day_of(ms: int) -> date:
    """The day that a Unix ms lies in."""
    return datetime.fromtimestamp(ms // 1000, UTC).date()


def charges(bought_ms: int, start_ms: int, end_ms: int) -> Iterator[date]:
    """The days in a span (of whole days) on which a number bought then is charged."""
    bought, start, end = day_of(bought_ms), day_of(max(start_ms, bought_ms, 0)), day_of(end_ms - 1)
    for month in range(start.year * 12 + start.month - 1, end.year * 12 + end.month):
        year, at = divmod(month, 12)
        day = date(year, at + 1, min(bought.day, monthrange(year, at + 1)[1]))
        if start <= day <= end:
            yield day


class Usage:
    """Sums, remembered for a short while. One for each archive: see `usage_of`."""

    def __init__(self, archive: Archive, database: Database, clock: Clock) -> None:
        self._archive = archive
        self._database = database
        self._clock = clock
        self._cache: dict[Any, tuple[float, asyncio.Future[Totals]]] = {}

    async def family(self, account: Account) -> list[str]:
        """The SIDs of an account and, if it is a main account, of its subaccounts."""
        if account.owner_account_sid != account.sid:
            return [account.sid]
        found = [account.sid]
        after = ""
        where = {"owner_account_sid": account.sid}
        while page := await self._database.find(Account, where, after=after, limit=PAGE):
            found += [one.sid for one in page if one.sid != account.sid]
            after = page[-1].sid
        return found

    async def totals(self, accounts: Sequence[str], start: date, end: date, granularity: str, unit: str) -> Totals:
        """Sums over the days from `start` to `end`, both included; `unit` is the currency of the prices."""
        now = self._clock.monotonic()
        key = (tuple(accounts), start, end, granularity, unit)
        known = self._cache.get(key)
        if known is None or known[0] <= now:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            reading = asyncio.ensure_future(
                self._read(accounts, day_ms(start), day_ms(end) + DAY_MS, granularity, unit)
            )
            reading.add_done_callback(lambda done: self._forget_failed(key, done))
            known = self._cache[key] = now + CACHE_S, reading
        return await asyncio.shield(known[1])

    def _forget_failed(self, key: Any, done: "asyncio.Future[Totals]") -> None:
        if done.cancelled() or done.exception() is not None:
            self._cache.pop(key, None)

    async def _read(self, accounts: Sequence[str], start_ms: int, end_ms: int, granularity: str, unit: str) -> Totals:
        totals: dict[str, Amounts] = {}
        for row in await self._archive.usage(accounts, start_ms, end_ms, granularity):
            add = _add_calls if row["channel"] == "call" else _add_messages
            add(totals.setdefault(row["period"], {}), row, unit)
        name = FORMATS[granularity]
        for account in accounts:
            async for number in self._each(PhoneNumber, {"account_sid": account}):
                for day in charges(number.bought_ms or number.created_ms, start_ms, end_ms):
                    _add_number(totals.setdefault(format(day, name) if name else "", {}), number)
            made = {"account_sid": account, "created_ms__ge": start_ms, "created_ms__lt": end_ms}
            async for recording in self._each(Recording, made):
                if recording.status == RecordingStatus.COMPLETED:
                    day = day_of(recording.created_ms)
                    _add_recording(totals.setdefault(format(day, name) if name else "", {}), recording, unit)
        return totals

    async def _each(self, kind: type[R], where: Mapping[str, Any]) -> AsyncIterator[R]:
        """Every record that matches, page by page."""
        after = ""
        while page := await self._database.find(kind, where, after=after, limit=PAGE):
            for record in page:
                yield record
            after = page[-1].sid


def _add(amounts: Amounts, categories: Sequence[str], count: int, usage: int, price: Decimal) -> None:
    for category in categories:
        amounts.setdefault(category, Amount()).add(count, usage, price)
    amounts.setdefault("totalprice", Amount()).add(0, 0, price)


def _add_messages(amounts: Amounts, row: Mapping[str, Any], unit: str) -> None:
    """One of the archive's rows. Its `sender`, if it has one, tells short codes from long ones."""
    channel = row["channel"]
    way = "inbound" if row["direction"] == "inbound" else "outbound"
    kind = SHORT_CODE if row.get("sender") == SHORT_CODE else LONG_CODE
    same = (row["price_unit"] or unit).upper() == unit.upper()
    price = Decimal(row["price"]) if same else ZERO
    usage = row["segments"] if channel == "sms" else row["count"]
    _add(amounts, (channel, f"{channel}-{way}", f"{channel}-{way}-{kind}"), row["count"], usage, price)


def _add_calls(amounts: Amounts, row: Mapping[str, Any], unit: str) -> None:
    """One of the archive's rows about calls: `segments` are begun minutes."""
    way = "inbound" if row["direction"] == "inbound" else "outbound"
    own = CALL_CATEGORIES.get((way, row["sender"]))
    same = (row["price_unit"] or unit).upper() == unit.upper()
    price = Decimal(row["price"]) if same else ZERO
    _add(amounts, ("calls", f"calls-{way}", *([own] if own else ())), row["count"], row["segments"], price)


def _add_recording(amounts: Amounts, recording: Recording, unit: str) -> None:
    """One recording, by begun minutes."""
    same = (recording.price_unit or unit).upper() == unit.upper()
    price = Decimal(recording.price or "0") if same else ZERO
    _add(amounts, ("recordings",), 1, -(-recording.duration_ms // MINUTE_MS), price)


def _add_number(amounts: Amounts, number: PhoneNumber) -> None:
    """One monthly charge."""
    own = NUMBER_CATEGORIES.get(number.type)
    _add(amounts, ("phonenumbers", own) if own else ("phonenumbers",), 1, 1, Decimal(number.monthly_price or "0"))


_SHARED: WeakKeyDictionary[Archive, Usage] = WeakKeyDictionary()


def usage_of(archive: Archive, database: Database, clock: Clock) -> Usage:
    """The `Usage` that belongs to an archive, so that all who ask share what it remembers."""
    usage = _SHARED.get(archive)
    if usage is None:
        usage = _SHARED[archive] = Usage(archive, database, clock)
    return usage
