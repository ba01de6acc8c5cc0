"""The recent store: revisions, floors, filters and what `scrub` leaves in the file."""

import importlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import needs_postgres
from trunkline.storage.archive import Document
from trunkline.storage.engines.postgres.recent import PostgresRecent, prepare
from trunkline.storage.engines.sqlite.archive import SqliteRecent, filter_sql
from trunkline.storage.manifest import TOMBSTONE, Segment, account_digest, holds_account
from trunkline.storage.survives import Survives

ACCOUNT = "AC" + "0" * 31 + "1"
OTHER = "AC" + "0" * 31 + "2"


def key(number: int) -> str:
    return f"{number:032x}"


def document(number: int, rev: int = 1, body: bytes = b"{}", account: str = ACCOUNT, kind: str = "message") -> Document:
    return Document(sid="SM" + key(number), account=account, kind=kind, rev=rev, body=body)


def segment(path: str = "a.parquet", max_key: str = key(50), draining: bool = True) -> Segment:
    return Segment(path=path, rows=1, size=1, min_key=key(1), max_key=max_key, draining=draining, created_ms=5)


Opener = Callable[[], Any]


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def open_recent(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same store each time it is called."""
    if request.param == "sqlite":
        return lambda: SqliteRecent(tmp_path / "archive.db")
    dsn = request.getfixturevalue("postgres").database(prepare)
    return lambda: PostgresRecent(dsn)


@pytest.fixture
async def recent(open_recent: Opener) -> AsyncIterator[Any]:
    store = open_recent()
    yield store
    await store.close()


def reader_of(store: Any) -> Any:
    module, name = store.reader_spec[0].split(":")
    return getattr(importlib.import_module(module), name)(store.reader_spec[1])


async def test_it_survives_power_loss_and_keeps_what_it_acknowledged(open_recent: Opener, tmp_path: Path) -> None:
    store = open_recent()
    assert store.survives is Survives.POWER
    await store.land([document(1)])
    async with store.alone(tmp_path):
        await store.add_segments([segment()])
    await store.close()
    store = open_recent()
    assert await store.get(ACCOUNT, "SM" + key(1)) == document(1)
    assert await store.high() == key(50)
    await store.close()


async def test_the_highest_revision_wins(recent: Any) -> None:
    await recent.land([document(1, 3, b'{"a":3}')])
    await recent.land([document(1, 2, b'{"a":2}'), document(1, 3, b'{"a":0}')])
    assert await recent.get(ACCOUNT, "SM" + key(1)) == document(1, 3, b'{"a":3}')
    await recent.land([document(1, 4, b'{"a":4}')])
    assert await recent.get(ACCOUNT, "SM" + key(1)) == document(1, 4, b'{"a":4}')


async def test_an_account_sees_its_own_documents_only(recent: Any) -> None:
    await recent.land([document(1), document(1, account=OTHER, body=b'{"b":1}')])
    assert await recent.get(OTHER, "SM" + key(1)) == document(1, account=OTHER, body=b'{"b":1}')
    assert await recent.get(ACCOUNT, "MM" + key(1)) is None
    assert len(await recent.page(ACCOUNT, "message", before="", after="", limit=9, filters={})) == 1


async def test_pages_are_newest_first_between_their_bounds(recent: Any) -> None:
    await recent.land([document(n) for n in (3, 1, 5, 2, 4)] + [document(9, kind="call")])

    async def page(before: str = "", after: str = "", limit: int = 9) -> list[int]:
        found = await recent.page(ACCOUNT, "message", before=before, after=after, limit=limit, filters={})
        return [int(d.sid[2:], 16) for d in found]

    assert await page() == [5, 4, 3, 2, 1]
    assert await page(before=key(4)) == [3, 2, 1]
    assert await page(after=key(4)) == [5]
    assert await page(before=key(5), after=key(1), limit=2) == [4, 3]


async def test_a_deleted_document_stays_deleted(recent: Any) -> None:
    await recent.land([document(1)])
    await recent.delete(ACCOUNT, "SM" + key(1), 77)
    await recent.land([document(1, 1000)])
    assert await recent.get(ACCOUNT, "SM" + key(1)) is None
    (floor,) = await recent.all_floors()
    assert (floor.key, floor.rev, floor.at_ms) == (key(1), TOMBSTONE, 77)
    assert await recent.pending_floors() == (1, 77)


async def test_landings_at_or_below_the_watermark_raise_floors(recent: Any) -> None:
    await recent.land([document(1), document(60)])
    assert await recent.all_floors() == []
    await recent.raise_watermark(key(50))
    await recent.land([document(2, 7), document(61)])
    assert [(floor.key, floor.rev) for floor in await recent.all_floors()] == [(key(2), 7)]
    await recent.revise(document(61, 8), 99)
    assert [(floor.key, floor.rev) for floor in await recent.all_floors()] == [(key(2), 7), (key(61), 8)]


async def test_dropping_a_floor_spares_what_was_raised_meanwhile(recent: Any) -> None:
    await recent.raise_watermark(key(50))
    await recent.land([document(1, 2), document(2, 2)])
    await recent.land([document(2, 3)])
    await recent.drop_floors([(ACCOUNT, key(1), 2), (ACCOUNT, key(2), 2)])
    assert [(floor.key, floor.rev) for floor in await recent.all_floors()] == [(key(2), 3)]


async def test_a_late_landing_neither_rejuvenates_nor_declassifies_a_redaction(recent: Any) -> None:
    await recent.raise_watermark(key(50))
    await recent.revise(document(1, 2), 77)
    await recent.land([document(1, 3)])
    (floor,) = await recent.all_floors()
    assert (floor.rev, floor.at_ms, floor.private) == (3, 77, True)


async def test_draining_leaves_what_was_revised_meanwhile(recent: Any) -> None:
    await recent.land([document(1), document(2)])
    await recent.land([document(2, 2)])
    await recent.drain([(ACCOUNT, key(1), 1), (ACCOUNT, key(2), 1)])
    assert await recent.get(ACCOUNT, "SM" + key(1)) is None
    assert await recent.get(ACCOUNT, "SM" + key(2)) == document(2, 2)


async def test_the_manifest_counts_its_changes(recent: Any, tmp_path: Path) -> None:
    reader = reader_of(recent)
    before = reader.generation()
    async with recent.alone(tmp_path):
        await recent.add_segments([segment()])
        await recent.drained("a.parquet")
        await recent.replace_segments(["a.parquet"], [segment("b.parquet", draining=False)])
    assert reader.generation() == before + 3
    (left,) = reader.segments()
    assert (left.path, left.draining, left.id) == ("b.parquet", False, 2)
    assert reader.watermark() == key(50)
    reader.close()


async def test_a_reader_keeps_its_snapshot(recent: Any, tmp_path: Path) -> None:
    await recent.land([document(1), document(60)])
    reader = reader_of(recent)
    reader.begin()
    assert reader.counts(key(100)) == (0, 2, key(1))
    await recent.land([document(2)])
    assert [row.key for row in reader.rows("", key(60))] == [key(1), key(60)]
    reader.end()
    assert [row.key for row in reader.rows("", "g", [ACCOUNT, OTHER])] == [key(1), key(2), key(60)]
    assert reader.cut(2, key(100)) == key(2)
    assert reader.cut(9, key(60)) == key(2)
    async with recent.alone(tmp_path):
        await recent.add_segments([segment()])
    assert reader.cut(9, key(100)) == key(60)
    assert reader.counts(key(100)) == (2, 1, key(60))
    reader.close()


async def test_scrub_settles_deletions_and_drops_revisions(recent: Any) -> None:
    await recent.raise_watermark(key(50))
    await recent.land([document(1, 2), document(2, 2)])
    await recent.delete(ACCOUNT, "SM" + key(3), 10)
    floors = await recent.all_floors()
    await recent.land([document(2, 3)])
    assert await recent.scrub(floors, 1000)
    assert [(f.key, f.rev) for f in await recent.all_floors()] == [(key(2), 3)], "raised again since"
    await recent.land([document(3, 5)])
    assert await recent.get(ACCOUNT, "SM" + key(3)) is None, "a settled deletion still holds"
    await recent.forget_floors(1001)
    await recent.land([document(3, 5)])
    assert await recent.get(ACCOUNT, "SM" + key(3)) is not None


@pytest.mark.parametrize("reading", [False, True])
async def test_scrub_leaves_no_byte_unless_a_reader_holds_the_log(
    recent: Any, tmp_path: Path, reading: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(recent, SqliteRecent):
        pytest.skip("about the file's log")
    recent.writer.connection.set_busy_timeout(50)
    await recent.land([document(n, body=b'{"body":"marker-%d"}' % n + b" " * 3000) for n in range(50)])
    await recent.delete(ACCOUNT, "SM" + key(7), 1)
    reader = reader_of(recent)
    if reading:
        reader.begin()
        reader.generation()
    assert await recent.scrub(await recent.all_floors(), 2) is not reading
    assert len(await recent.all_floors()) == reading
    reader.end()
    assert await recent.scrub(await recent.all_floors(), 3)
    data = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b'marker-7"' not in data
    assert b'marker-8"' in data
    reader.close()


async def test_expiry_takes_only_the_span_of_one_account(recent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in ("sqlite.archive", "postgres.recent"):
        monkeypatch.setattr(f"trunkline.storage.engines.{engine}.EXPIRE_BATCH", 2)
    await recent.land([document(n) for n in range(9)] + [document(n, account=OTHER) for n in range(9)])
    assert await recent.expire(ACCOUNT, key(2), key(7)) == 5
    page = await recent.page(ACCOUNT, "message", before="", after="", limit=99, filters={})
    assert [int(d.sid[2:], 16) for d in page] == [8, 7, 1, 0]
    assert len(await recent.page(OTHER, "message", before="", after="", limit=99, filters={})) == 9


async def test_filters_go_by_the_bodys_own_fields(recent: Any) -> None:
    await recent.land(
        [
            document(1, body=b'{"to":"+491","status":"sent","sent_ms":10}'),
            document(2, body=b'{"to":"a\\"b","status":"sent"}'),
            document(3, body=b'{"from":"+491","to":"+4911"}'),
            document(4, body=b'{"nested":{"to":"+491"},"to":5,"sent_ms":"10"}'),
            document(5, body=b"no JSON"),
        ]
    )

    async def page(**filters: object) -> list[int]:
        found = await recent.page(ACCOUNT, "message", before="", after="", limit=9, filters=filters)
        return [int(d.sid[2:], 16) for d in found]

    assert await page(to="+491") == [1]
    assert await page(to='a"b') == [2]
    assert await page(status="sent") == [2, 1]
    assert await page() == [5, 4, 3, 2, 1]
    assert await page(sent_ge_ms=10, sent_lt_ms=11) == [1]
    assert await page(sent_lt_ms=10) == [], "what was not sent is in no range"


def test_an_unknown_filter_is_an_error() -> None:
    with pytest.raises(KeyError):
        filter_sql({"body": "x"})


def test_account_digests() -> None:
    accounts = ["AC" + f"{n * 7919:032x}" for n in range(100)]
    digests = b"".join(sorted(account_digest(account) for account in accounts))
    assert all(holds_account(digests, account) for account in accounts)
    assert not holds_account(digests, OTHER)
    assert not holds_account(b"", OTHER)
    assert len(account_digest("short")) == len(account_digest("no hex digits at all here")) == 8
