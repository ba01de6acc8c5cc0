"""The composed archive against its promise: one continuous record over recent rows and segments."""

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pytest

from tests.postflight.harness import ALICE, BOB, LIMITS, NOW, FakeClock, archive_at, message, messages, sid_at, sids
from trunkline.postflight.archive import ArchiveLimits, key_at, small_run
from trunkline.storage.archive import Document
from trunkline.storage.manifest import ArchiveBusy, Segment
from trunkline.storage.survives import Survives


def files_with(path: Path, marker: bytes) -> list[str]:
    return [str(file) for file in path.rglob("*") if file.is_file() and marker in file.read_bytes()]


async def test_a_document_reads_the_same_before_and_after_its_roll_up(tmp_path: Path) -> None:
    documents = messages(300)
    async with archive_at(tmp_path) as archive:
        assert archive.survives is Survives.POWER
        await archive.land(documents)
        before = [await archive.get(ALICE, d.sid) for d in documents[::50]]
        page = await archive.page(ALICE, "message", limit=1000, filters={})
        assert await archive.roll(force=True) == 300
        assert [await archive.get(ALICE, d.sid) for d in documents[::50]] == before == documents[::50]
        assert await archive.page(ALICE, "message", limit=1000, filters={}) == page
        assert sids(page) == sids(reversed(documents))
        assert await archive.get(BOB, documents[0].sid) is None
        assert await archive.get(ALICE, sid_at(NOW - 3_600_000, 999)) is None


async def test_pages_cross_from_rows_into_segments(tmp_path: Path) -> None:
    old, new = messages(50), messages(50, first_ms=NOW)
    async with archive_at(tmp_path) as archive:
        await archive.land(old)
        await archive.roll(force=True)
        await archive.land(new)
        expected = sids(reversed(old + new))
        seen: list[str] = []
        before = ""
        while page := await archive.page(ALICE, "message", before=before, limit=7, filters={}):
            seen.extend(sids(page))
            before = page[-1].sid[2:]
        assert seen == expected
        above = await archive.page(ALICE, "message", after=old[40].sid[2:], limit=100, filters={})
        assert sids(above) == expected[:59]


async def test_walking_back_shows_the_same_pages(tmp_path: Path) -> None:
    # Unevenly spread: a burst in one millisecond, a quiet day, and a steady hour.
    burst = messages(30, first_ms=NOW - 200_000_000, step_ms=0)
    steady = messages(60, first_ms=NOW - 3_600_000, step_ms=60_000)
    async with archive_at(tmp_path) as archive:
        await archive.land(burst)
        await archive.roll(force=True)
        await archive.land(steady)
        expected = sids(reversed(burst + steady))
        after, seen = expected[-1][2:], expected[-1:]
        while page := await archive.page(ALICE, "message", after=after, limit=7, filters={}):
            assert len(page) == 7 or page[0].sid == expected[0]
            seen = sids(page) + seen
            after = page[0].sid[2:]
        assert seen == expected


async def test_nothing_is_due_below_the_limits(tmp_path: Path) -> None:
    clock = FakeClock()
    async with archive_at(tmp_path, clock) as archive:
        await archive.land(messages(50, first_ms=NOW - 50_000))
        assert await archive.roll() == 0, "neither many nor old"
        clock.now += LIMITS.recent_age_ms
        assert await archive.roll() == 50
        await archive.land(messages(120, first_ms=clock.now, step_ms=1))
        assert await archive.roll() == 0, "too young to be closed"
        clock.now += 10_000
        assert await archive.roll() == 120, "many"


async def test_no_worker_is_started_for_nothing(tmp_path: Path) -> None:
    async with archive_at(tmp_path, FakeClock()) as archive:
        await archive.land(messages(5))
        await archive.delete(ALICE, messages(5)[0].sid)
        assert (await archive.roll(), await archive.merge()) == (0, 0)
        assert (await archive.compact())["clean"] == 1
        assert await archive.get(ALICE, messages(5)[1].sid) is not None
        assert [worker.starts for worker in (archive.read_worker, archive.roll_worker)] == [0, 0]
        left = tmp_path / "segments" / "left.part"
        left.write_bytes(b"by a crash")
        await archive.roll()
        assert not left.exists()
        assert archive.roll_worker.starts == 1


async def test_a_late_revision_wins_wherever_the_older_one_lies(tmp_path: Path) -> None:
    documents = messages(30, status="sent")
    late = message(NOW - 3_600_000, 0, rev=2, status="delivered")
    async with archive_at(tmp_path) as archive:
        await archive.land(documents)
        await archive.roll(force=True)
        await archive.land([late])
        for _ in range(2):  # as a recent row, then in a segment of its own
            assert await archive.get(ALICE, late.sid) == late
            assert sids(await archive.page(ALICE, "message", limit=9, filters={"status": "delivered"})) == [late.sid]
            assert late.sid not in sids(await archive.page(ALICE, "message", limit=99, filters={"status": "sent"}))
            assert len(await archive.page(ALICE, "message", limit=99, filters={})) == 30
            _, rows = await archive.query("select count(*), count(distinct sid) from messages")
            assert rows == [[30, 30]]
            await archive.roll(force=True)


async def test_a_late_first_landing_asks_for_no_compaction(tmp_path: Path) -> None:
    documents = messages(30)
    async with archive_at(tmp_path) as archive:
        await archive.land(documents[10:])
        await archive.roll(force=True)
        await archive.land(documents[:10])
        await archive.land([message(NOW - 3_600_000 + 2000, 20, rev=2), message(NOW - 3_600_000 + 2100, 21, rev=2)])
        await archive.revise(message(NOW - 3_600_000, 0, rev=2, body=""))
        assert (await archive.pending_floors())[0] == 12
        await archive.roll(force=True)
        assert (await archive.pending_floors())[0] == 3, "two revised after their roll-up, one redacted"
        counts = await archive.compact()
        assert (counts["floors"], counts["rows"]) == (3, 2)
        assert len(await archive.page(ALICE, "message", limit=99, filters={})) == 30


async def test_a_lower_revision_never_comes_back(tmp_path: Path) -> None:
    async with archive_at(tmp_path) as archive:
        await archive.land([message(NOW, 1, rev=5)])
        await archive.land([message(NOW, 1, rev=4, body="old")])
        document = await archive.get(ALICE, sid_at(NOW, 1))
        assert document is not None
        assert document.rev == 5


async def test_a_second_landing_of_the_same_revision_is_seen_once(tmp_path: Path) -> None:
    documents = messages(20)
    async with archive_at(tmp_path) as archive:
        await archive.land(documents)
        await archive.roll(force=True)
        await archive.land(documents[:5])
        assert sids(await archive.page(ALICE, "message", limit=99, filters={})) == sids(reversed(documents))
        assert (await archive.query("select count(*) from messages"))[1] == [[20]]


async def test_a_deleted_document_is_gone_from_every_reader_at_once(tmp_path: Path) -> None:
    clock = FakeClock(NOW + 10_000)
    documents = messages(40, first_ms=NOW - 50_000)
    async with archive_at(tmp_path, clock) as archive:
        await archive.land(documents[:20])
        await archive.roll(force=True)
        await archive.land(documents[20:])
        rolled, recent = documents[3], documents[33]
        for document in (rolled, recent):
            assert await archive.delete(ALICE, document.sid)
            assert not await archive.delete(ALICE, document.sid)
            assert await archive.get(ALICE, document.sid) is None
            await archive.land([Document(sid=document.sid, account=ALICE, kind="message", rev=99, body=b"{}")])
            assert await archive.get(ALICE, document.sid) is None, "a late landing does not bring it back"
        left = [d for d in documents if d not in (rolled, recent)]
        assert sids(await archive.page(ALICE, "message", limit=99, filters={})) == sids(reversed(left))
        (usage,) = await archive.usage([ALICE], 0, 1 << 60, "all")
        assert usage["count"] == 38
        assert (await archive.query("select count(*) from documents"))[1] == [[38]]
        assert await archive.export(tmp_path / "out", "jsonl") == 38
        assert rolled.sid not in (tmp_path / "out" / "documents.jsonl").read_text()


async def test_a_document_deleted_before_it_landed_never_appears(tmp_path: Path) -> None:
    document = message(NOW, 1)
    async with archive_at(tmp_path) as archive:
        assert not await archive.delete(ALICE, document.sid)
        await archive.land([document])
        assert await archive.get(ALICE, document.sid) is None


@pytest.mark.parametrize("rolled", [False, True], ids=["recent", "segment"])
async def test_compaction_removes_the_bytes_from_every_file(tmp_path: Path, rolled: bool) -> None:
    marker = os.urandom(12).hex()
    documents = messages(60)
    secret = message(NOW - 3_000_000, 1, body="deleted " + marker)
    redacted = message(NOW - 3_000_000, 2, body="redacted " + marker)
    async with archive_at(tmp_path) as archive:
        await archive.land([*documents, secret, redacted])
        if rolled:
            # Not compressed away: the marker would not be found in a Parquet file even if it were there.
            await archive.roll(force=True)
        await archive.delete(ALICE, secret.sid)
        await archive.revise(message(NOW - 3_000_000, 2, rev=2, body="", redacted=True))
        counts = await archive.compact()
        assert counts["clean"] == 1
        assert counts["floors"] == 2
        assert counts["segments"] == (1 if rolled else 0)
        assert counts["rows"] == (2 if rolled else 0)
        assert await archive.pending_floors() == (0, 0)
        assert files_with(tmp_path, marker.encode()) == []
        assert not any(marker in text for text in segment_texts(tmp_path / "segments"))
        assert len(await archive.page(ALICE, "message", limit=99, filters={})) == 61
        assert await archive.get(ALICE, secret.sid) is None
        found = await archive.get(ALICE, redacted.sid)
        assert found is not None
        assert found.rev == 2
        assert (await archive.compact())["segments"] == 0, "nothing is left to do"


def segment_texts(folder: Path) -> list[str]:
    """Every string that the Parquet files decode to, and their footers' statistics."""
    import pyarrow.parquet as pq

    texts = []
    for path in folder.glob("*.parquet"):
        texts.append(str(pq.read_table(path).to_pylist()))
        texts.append(str(pq.read_metadata(path).to_dict()))
    return texts


async def test_the_marker_is_found_before_compaction(tmp_path: Path, engine: str) -> None:
    """The test above could not fail otherwise."""
    if engine == "postgres":
        pytest.skip("its rows are no files here (tests/storage/engines/postgres/test_recent.py)")
    async with archive_at(tmp_path) as archive:
        await archive.land([message(NOW - 3_000_000, 1, body="marker-4711")])
        assert files_with(tmp_path, b"marker-4711")
        await archive.roll(force=True)
        assert any("marker-4711" in text for text in segment_texts(tmp_path / "segments"))


async def test_an_emptied_segment_leaves_no_file(tmp_path: Path) -> None:
    documents = messages(12)
    async with archive_at(tmp_path) as archive:
        await archive.land(documents)
        await archive.roll(force=True)
        for document in documents:
            await archive.delete(ALICE, document.sid)
        assert (await archive.compact())["rows"] == 12
        assert list((tmp_path / "segments").glob("*.parquet")) == []
        assert await archive.page(ALICE, "message", limit=9, filters={}) == []


async def test_retention_removes_one_accounts_old_documents(tmp_path: Path) -> None:
    theirs = messages(20, account=BOB)
    old, kept = messages(20), messages(20, first_ms=NOW - 1_800_000)
    imported = message(NOW, 5, sid="SM" + "00" * 16)
    async with archive_at(tmp_path) as archive:
        await archive.land([*theirs, *old, *kept, imported])
        await archive.roll(force=True)
        await archive.land(messages(5, first_ms=NOW - 3_500_000, step_ms=1, body="late"))
        counts = await archive.compact({ALICE: key_at(NOW - 1_800_000)})
        assert (counts["rows"], counts["recent"]) == (20, 5)
        assert sids(await archive.page(ALICE, "message", limit=99, filters={})) == [*sids(reversed(kept)), imported.sid]
        assert len(await archive.page(BOB, "message", limit=99, filters={})) == 20


async def test_filters(tmp_path: Path) -> None:
    documents = [
        message(
            NOW - 90_000 + i, i, status="failed" if i % 3 == 0 else "delivered", sent_ms=0 if i % 3 == 0 else NOW + i
        )
        for i in range(30)
    ]
    cases = [
        ({"to": "+491500000007"}, [7]),
        ({"to": "+490000"}, []),
        ({"to": 'a"b'}, []),
        ({"status": "failed", "from": "+15550001111"}, list(range(0, 30, 3))),
        ({"sent_ge_ms": NOW + 28}, [28, 29]),
        ({"sent_lt_ms": NOW + 3}, [1, 2]),
        ({"created_ge_ms": NOW - 90_000 + 5, "created_lt_ms": NOW - 90_000 + 8}, [5, 6, 7]),
    ]
    async with archive_at(tmp_path) as archive:
        await archive.land(documents)
        for _ in range(2):
            for filters, expected in cases:
                page = await archive.page(ALICE, "message", limit=99, filters=filters)
                assert sids(page) == [documents[i].sid for i in reversed(expected)], filters
            assert await archive.page(ALICE, "call", limit=99, filters={}) == []
            await archive.roll(force=True)


class Stopped(Exception):
    """The process is thought to die here."""


def stop_at(recent: Any, step: str, calls: int) -> None:
    """The store dies when the named step begins, or after its nth call."""
    work, left = getattr(recent, step), [calls]

    async def stops(*arguments: Any) -> Any:
        if step != "replace_segments" or arguments[0]:
            left[0] -= 1
            if left[0] < 0:
                raise Stopped(step)
        return await work(*arguments)

    setattr(recent, step, stops)


@pytest.mark.parametrize(
    ("step", "calls"),
    [("add_segments", 0), ("drain", 0), ("drain", 1), ("drained", 0), ("replace_segments", 0), ("scrub", 0)],
)
async def test_a_crash_at_any_step_loses_and_doubles_nothing(
    tmp_path: Path, step: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.postflight.archive.DRAIN_BATCH", 20)
    documents = messages(60)
    async with archive_at(tmp_path) as archive:
        await archive.land(documents)
        stop_at(archive._recent, step, calls)

        async def history() -> None:
            await archive.roll(force=True)
            await archive.delete(ALICE, documents[5].sid)
            await archive.compact()

        with pytest.raises(Stopped):
            await history()
        await check_all(archive, documents, step)
    async with archive_at(tmp_path) as archive:
        await check_all(archive, documents, step)
        await archive.roll(force=True)
        await check_all(archive, documents, step)
        await archive.compact()
        await check_all(archive, documents, step)
        assert len(list((tmp_path / "segments").glob("*.parquet"))) == 1, "leftovers are swept"


async def check_all(archive: object, documents: list[Document], step: str) -> None:
    deleted = step in ("replace_segments", "scrub")
    expected = [d.sid for d in reversed(documents) if not (deleted and d is documents[5])]
    assert sids(await archive.page(ALICE, "message", limit=99, filters={})) == expected  # type: ignore[attr-defined]
    _, rows = await archive.query("select sid from messages order by sid desc")  # type: ignore[attr-defined]
    assert [row[0] for row in rows] == expected


async def test_readers_miss_nothing_while_a_roll_up_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.postflight.archive.DRAIN_BATCH", 10)
    documents = messages(300)
    expected = sids(reversed(documents))
    async with archive_at(tmp_path) as archive:
        await archive.land(documents)
        rolling = asyncio.create_task(archive.roll(force=True))
        looks = 0
        while not rolling.done():
            assert sids(await archive.page(ALICE, "message", limit=999, filters={})) == expected
            document = documents[looks % 300]
            assert await archive.get(ALICE, document.sid) == document
            looks += 1
        assert await rolling == 300
        assert looks > 3


async def test_a_big_segment_is_drained_and_compacted_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More row groups than are looked at at once."""
    monkeypatch.setattr("trunkline.postflight.archive.DRAIN_GROUPS", 1)
    documents = messages(3 * 2048 + 5, step_ms=10)
    limits = ArchiveLimits(settle_ms=0, segment_rows=100_000)
    async with archive_at(tmp_path, limits=limits) as archive:
        for start in range(0, len(documents), 500):
            await archive.land(documents[start : start + 500])
        assert await archive.roll(force=True) == len(documents)
        assert await archive._recent.counts("g") == (0, 0, "")
        for document in (documents[0], documents[2048], documents[-1]):
            assert await archive.delete(ALICE, document.sid)
        assert (await archive.compact())["rows"] == 3
        page = await archive.page(ALICE, "message", before=documents[2050].sid[2:], limit=4, filters={})
        assert sids(page) == [documents[n].sid for n in (2049, 2047, 2046, 2045)]


async def test_a_revision_during_the_roll_up_wins(tmp_path: Path) -> None:
    documents = messages(20)
    newer = message(NOW - 3_600_000, 0, rev=2, status="read")
    async with archive_at(tmp_path) as archive:
        await archive.land(documents)
        recent = archive._recent
        add = recent.add_segments

        async def land_first(segments: list[Segment]) -> None:
            await archive.land([newer])  # the worker has read revision 1 by now
            await add(segments)

        recent.add_segments = land_first  # type: ignore[method-assign, assignment]
        await archive.roll(force=True)
        assert await archive.get(ALICE, newer.sid) == newer
        assert newer.sid not in sids(await archive.page(ALICE, "message", limit=99, filters={"status": "delivered"}))


async def test_small_segments_are_merged(tmp_path: Path) -> None:
    async with archive_at(tmp_path) as archive:
        for i in range(8):
            await archive.land(messages(10, first_ms=NOW - 3_600_000 + i * 10_000))
            await archive.roll(force=True)
        await archive.delete(ALICE, sid_at(NOW - 3_600_000, 0))
        before = await archive.page(ALICE, "message", limit=99, filters={})
        assert await archive.merge() == 8
        assert await archive.merge() == 0
        assert len(list((tmp_path / "segments").glob("*.parquet"))) == 1
        assert await archive.page(ALICE, "message", limit=99, filters={}) == before
        assert len(before) == 79


def test_small_run_keeps_classes_and_sizes_apart() -> None:
    def segment(number: int, rows: int, late: bool = False, draining: bool = False) -> Segment:
        return Segment(
            path=str(number), late=late, rows=rows, size=1, min_key=str(number), max_key=str(number), draining=draining
        )

    small = [segment(i, 10) for i in range(8)]
    assert small_run(small, 100) == small
    assert small_run(small[:7], 100) == []
    assert small_run([*small[:4], segment(9, 90), *small[4:]], 100) == []
    assert small_run([*small[:4], segment(9, 10, late=True), *small[4:]], 100) == small
    assert small_run([*small[:7], segment(9, 10, draining=True)], 100) == []
    assert len(small_run([segment(i, 25) for i in range(20)], 100)) == 8


async def test_only_one_process_rolls_up(tmp_path: Path) -> None:
    async with archive_at(tmp_path) as first, archive_at(tmp_path) as second:
        async with first._alone():
            with pytest.raises(ArchiveBusy):
                await second.roll()
        assert await second.roll() == 0


async def test_another_process_may_roll_up_beside_the_server(tmp_path: Path) -> None:
    documents = messages(20)
    newer = message(NOW - 3_600_000, 0, rev=2, status="read")
    async with archive_at(tmp_path) as server, archive_at(tmp_path) as command:
        await server.land(documents)
        assert await command.roll(force=True) == 20
        assert await server.get(ALICE, documents[3].sid) == documents[3]
        await server.land([newer])
        assert len(await server.page(ALICE, "message", limit=99, filters={"status": "delivered"})) == 19
        assert await command.get(ALICE, newer.sid) == newer
        assert (await command.compact())["rows"] == 1
        assert len(await server.page(ALICE, "message", limit=99, filters={})) == 20


async def test_random_histories_read_like_a_dictionary(tmp_path: Path) -> None:
    rng = random.Random(7)
    clock = FakeClock()
    truth: dict[tuple[str, str], Document] = {}
    deleted: set[str] = set()
    async with archive_at(tmp_path, clock) as archive:
        for round_number in range(12):
            batch = []
            for number in range(40):
                ms = clock.now - rng.randrange(200_000)
                batch.append(message(ms, round_number * 100 + number, account=rng.choice([ALICE, BOB]), status="sent"))
            known = [d for d in truth.values() if d.sid not in deleted]
            for old in rng.sample(known, min(6, len(known))):
                batch.append(
                    message(
                        int(old.sid[2:14], 16), account=old.account, rev=old.rev + 1, sid=old.sid, status="delivered"
                    )
                )
            await archive.land(batch)
            truth.update({(d.account, d.sid): d for d in batch})
            for old in rng.sample(known, min(3, len(known))):
                await archive.delete(old.account, old.sid)
                deleted.add(old.sid)
            clock.now += 60_000
            action = rng.choice(["roll", "roll", "compact", "merge", "none"])
            if action == "roll":
                await archive.roll(force=True)
            elif action == "compact":
                await archive.compact()
            elif action == "merge":
                await archive.merge()
            for account in (ALICE, BOB):
                for filters in ({}, {"status": "delivered"}, {"status": "sent"}):
                    expected = sorted(
                        (
                            d
                            for d in truth.values()
                            if d.account == account
                            and d.sid not in deleted
                            and (not filters or f'"status":"{filters["status"]}"'.encode() in d.body)
                        ),
                        key=lambda d: d.sid[2:],
                        reverse=True,
                    )
                    page = await archive.page(account, "message", limit=25, filters=filters)
                    assert page == expected[:25], (round_number, action, filters)
            one = rng.choice(list(truth.values()))
            assert await archive.get(one.account, one.sid) == (None if one.sid in deleted else one)
        _, rows = await archive.query("select sid, rev from messages")
        assert sorted(map(tuple, rows)) == sorted((d.sid, d.rev) for d in truth.values() if d.sid not in deleted)
