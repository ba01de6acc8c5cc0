"""Documents and archives for the tests of this folder."""

import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from trunkline.postflight.archive import ArchiveLimits, SegmentedArchive
from trunkline.storage.archive import Document
from trunkline.storage.engines.postgres.recent import PostgresReader, PostgresRecent
from trunkline.storage.engines.sqlite.archive import SqliteReader, SqliteRecent
from trunkline.storage.manifest import Recent, RecentReader

NOW = 1_790_000_000_000
ALICE = "AC" + "a1" * 16
BOB = "AC" + "b2" * 16
LIMITS = ArchiveLimits(least_rows=10, recent_rows=100, settle_ms=1000, segment_rows=5000)


class FakeClock:
    def __init__(self, now_ms: int = NOW) -> None:
        self.now = now_ms

    def now_ms(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1000


def sid_at(ms: int, number: int = 0) -> str:
    return f"SM{ms:012x}00{number:018x}"


def message(
    ms: int, number: int = 0, *, account: str = ALICE, rev: int = 1, kind: str = "message", **fields: Any
) -> Document:
    sid = fields.pop("sid", None) or sid_at(ms, number)
    record = {
        "kind": kind,
        "v": 1,
        "sid": sid,
        "account_sid": account,
        "direction": "outbound-api",
        "from": "+15550001111",
        "to": f"+4915{number:08d}",
        "body": f"text {number}",
        "status": "delivered",
        "created_ms": ms,
        "sent_ms": ms + 100,
        "price": "0.0075",
        "price_unit": "USD",
        "webhooks": [],
    } | fields
    return Document(sid=sid, account=account, kind=kind, rev=rev, body=orjson.dumps(record))


def messages(count: int, first_ms: int = NOW - 3_600_000, step_ms: int = 100, **fields: Any) -> list[Document]:
    return [message(first_ms + i * step_ms, i, **fields) for i in range(count)]


def sids(documents: Iterable[Document]) -> list[str]:
    return [document.sid for document in documents]


DSN = "TRUNKLINE_TEST_ARCHIVE"
"""Environment variable: the PostgreSQL database of the recent documents; without it they are in a file."""


def open_recent(path: Path) -> Recent:
    """The recent store of an archive in a folder."""
    dsn = os.environ.get(DSN)
    return PostgresRecent(dsn) if dsn else SqliteRecent(path / "archive.db")


def reader_at(path: Path) -> RecentReader:
    """A reader of it."""
    dsn = os.environ.get(DSN)
    return PostgresReader(dsn) if dsn else SqliteReader(path / "archive.db")


@asynccontextmanager
async def archive_at(
    path: Path, clock: FakeClock | None = None, limits: ArchiveLimits = LIMITS
) -> AsyncIterator[SegmentedArchive]:
    archive = SegmentedArchive(open_recent(path), path / "segments", clock or FakeClock(), limits)
    try:
        yield archive
    finally:
        await archive.close()
