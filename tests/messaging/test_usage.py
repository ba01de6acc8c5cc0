"""Sums of usage: monthly charges, and what the archive's rows become."""

import asyncio
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest

from tests.postflight.harness import ALICE, NOW, archive_at, message
from trunkline.messaging.usage import CATEGORIES, Usage, charges, day_ms, day_of, usage_of
from trunkline.model.recording import Recording
from trunkline.storage.archive import Document
from trunkline.storage.engines.sqlite.database import SqliteDatabase


def ms(text: str) -> int:
    return day_ms(date.fromisoformat(text))


@pytest.mark.parametrize(
    ("bought", "start", "end", "expected"),
    [
        ("2023-01-31", "2023-01-01", "2023-05-01", ["2023-01-31", "2023-02-28", "2023-03-31", "2023-04-30"]),
        ("2024-01-31", "2024-02-01", "2024-03-01", ["2024-02-29"]),
        ("2023-12-15", "2023-12-15", "2024-01-16", ["2023-12-15", "2024-01-15"]),
        ("2023-12-15", "2023-12-16", "2024-01-15", []),
        ("2023-12-15", "2020-01-01", "2023-12-15", []),
    ],
)
def test_charges(bought: str, start: str, end: str, expected: list[str]) -> None:
    assert [day.isoformat() for day in charges(ms(bought), ms(start), ms(end))] == expected


async def test_what_the_archive_sums(tmp_path: Path, database: SqliteDatabase, clock: Any) -> None:
    async with archive_at(tmp_path) as archive:
        await archive.land(
            [
                message(NOW, 1, num_segments=3),
                message(NOW, 2, num_segments=1, direction="inbound", price=""),
                message(NOW, 3, num_segments=1, sid=f"MM{NOW:012x}00{3:018x}", media=[{"sid": "ME1"}]),
                message(NOW, 4, num_segments=1, status="failed"),
            ]
        )
        today = day_of(NOW)
        usage = usage_of(archive, database, clock)
        assert usage is usage_of(archive, database, clock)
        totals = await usage.totals([ALICE], today, today, "month", "USD")
    amounts = totals[f"{today:%Y-%m}"]
    seen = {name: (amount.count, amount.usage) for name, amount in amounts.items() if name != "totalprice"}
    assert seen == {
        "sms": (2, 4),
        "sms-outbound": (1, 3),
        "sms-outbound-longcode": (1, 3),
        "sms-inbound": (1, 1),
        "sms-inbound-longcode": (1, 1),
        "mms": (1, 1),
        "mms-outbound": (1, 1),
        "mms-outbound-longcode": (1, 1),
    }
    assert amounts["totalprice"].price == Decimal("0.015")


def call(number: int, seconds: int, **fields: Any) -> Document:
    times = {"answered_ms": NOW + 1, "ended_ms": NOW + 1 + seconds * 1000} if seconds else {}
    status = "completed" if seconds else "busy"
    sid = f"CA{NOW:012x}00{number:018x}"
    return message(NOW, number, kind="call", sid=sid, **{"status": status, "price": "0.02", **times, **fields})


async def test_calls_and_recordings(tmp_path: Path, database: SqliteDatabase, clock: Any) -> None:
    async with archive_at(tmp_path) as archive:
        free = {"direction": "inbound", "price": ""}
        await archive.land(
            [
                call(1, 61),
                call(2, 0),
                call(3, 20, to="sip:ada@example.com", direction="outbound-dial"),
                call(4, 20, to="+18005550100", **free),
                call(5, 20, to="+12025550100", **free),
                call(6, 20, to="+12025550100", price_unit="EUR"),
            ]
        )
        for at, status in enumerate(("completed", "absent", "completed")):
            await database.insert(
                Recording(
                    sid=f"RE{NOW:012x}00{at:018x}", account_sid=ALICE, call_sid="CA1", created_ms=NOW,
                    source="OutboundAPI", status=status, duration_ms=61_000, price="0.005", price_unit="USD",
                )
            )  # fmt: skip
        today = day_of(NOW)
        totals = await usage_of(archive, database, clock).totals([ALICE], today, today, "day", "USD")
        earlier = await usage_of(archive, database, clock).totals(
            [ALICE], date(2020, 1, 1), date(2020, 1, 2), "day", "USD"
        )
    amounts = totals[f"{today:%Y-%m-%d}"]
    seen = {name: (amount.count, amount.usage, str(amount.price)) for name, amount in amounts.items()}
    assert seen == {
        "calls": (5, 6, "0.04"),
        "calls-outbound": (3, 4, "0.04"),
        "calls-sip": (1, 1, "0.02"),
        "calls-inbound": (2, 2, "0"),
        "calls-inbound-local": (1, 1, "0"),
        "calls-inbound-tollfree": (1, 1, "0"),
        "recordings": (2, 4, "0.010"),
        "totalprice": (0, 0, "0.050"),
    }
    assert set(amounts) <= set(CATEGORIES)
    assert earlier == {}


async def test_the_same_sum_is_read_once_by_all_who_ask_at_a_time(database: SqliteDatabase, clock: Any) -> None:
    class Slow:
        asked = 0

        async def usage(self, *args: Any) -> list[Any]:
            self.asked += 1
            await asyncio.sleep(0)
            return []

    archive = Slow()
    usage = Usage(cast(Any, archive), database, clock)
    day = date(2023, 11, 14)
    await asyncio.gather(*(usage.totals([ALICE], day, day, "all", "USD") for _ in range(5)))
    assert archive.asked == 1
