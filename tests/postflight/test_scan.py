"""Fetches and pages from segment files against a plain list, over many row groups and overlapping segments."""

import random
from pathlib import Path

import pytest

from tests.postflight.harness import ALICE, BOB, NOW, archive_at, message, reader_at, sid_at, sids
from trunkline.postflight import segments
from trunkline.postflight.archive import SegmentedArchive
from trunkline.postflight.compaction import roll
from trunkline.postflight.scan import Scanner, Want
from trunkline.postflight.segments import read_identities
from trunkline.storage.archive import Document
from trunkline.storage.manifest import RecentReader, Segment

ROWS, GROUP = 400, 16
"""Documents landed between roll-ups; rows of a row group here."""


def matches(document: Document, want: Want) -> bool:
    key = document.sid[2:]
    ms = int(key[:12], 16)
    ranges = {
        "created_ge_ms": lambda v: ms >= v,
        "created_lt_ms": lambda v: ms < v,
        "sent_ge_ms": lambda v: ms + 100 >= v,
    }
    return (
        document.account == want.account
        and document.kind == want.kind
        and want.after < key < want.before
        and all(
            ranges[name](value) if name in ranges else f'"{name}":"{value}"'.encode() in document.body
            for name, value in want.filters.items()
        )
    )


async def roll_here(archive: SegmentedArchive, path: Path) -> None:
    """A roll-up in this process, where the row groups are small."""
    reader = reader_at(path)
    watermark = reader.watermark()
    async with archive._alone():
        await _roll_here(archive, path, reader, watermark)
    reader.close()


async def _roll_here(archive: SegmentedArchive, path: Path, reader: RecentReader, watermark: str) -> None:
    for above, upto, late in (("", watermark, True), (watermark, "f", False)):
        await archive._recent.raise_watermark(upto if late else sid_at(NOW)[2:])
        segment = roll(path / "segments", reader, above, upto, late=late, now_ms=NOW)
        if segment is not None:
            await archive._recent.add_segments([segment])
            for group in range(ROWS // GROUP + 1):
                await archive._recent.drain(read_identities(path / "segments" / segment.path, group, 1))


async def build(path: Path, rng: random.Random) -> list[Document]:
    """Three segments, the third with late rows and newer revisions; some documents deleted. Returns what is left."""
    documents: dict[str, Document] = {}
    async with archive_at(path) as archive:
        for part in range(3):
            batch = []
            for number in range(ROWS):
                ms = NOW - 3_000_000 + (rng.randrange(2_000_000) if part == 2 else part * 1_000_000 + number * 2000)
                batch.append(
                    message(
                        ms,
                        part * 1000 + number,
                        account=rng.choice([ALICE, ALICE, BOB]),
                        kind=rng.choice(["message", "message", "call"]),
                        status=rng.choice(["sent", "delivered"]),
                        to=f"+49{rng.randrange(60):04d}",
                    )
                )
            if part == 2:
                for old in rng.sample(list(documents.values()), 30):
                    ms = int(old.sid[2:14], 16)
                    batch.append(message(ms, sid=old.sid, account=old.account, kind=old.kind, rev=2, status="read"))
            await archive.land(batch)
            documents.update({document.sid: document for document in batch})
            await roll_here(archive, path)
        for document in rng.sample(list(documents.values()), 40):
            await archive.delete(document.account, document.sid)
            del documents[document.sid]
        assert [segment.late for segment in await archive._recent.segments()].count(True) == 1
        assert await archive._recent.counts("g") == (0, 0, "")
    return list(documents.values())


def random_want(rng: random.Random) -> Want:
    filters: dict[str, object] = {}
    if rng.random() < 0.4:
        filters["status"] = rng.choice(["sent", "delivered", "read"])
    if rng.random() < 0.3:
        filters["to"] = f"+49{rng.randrange(60):04d}"
    for name in ("created_ge_ms", "created_lt_ms", "sent_ge_ms"):
        if rng.random() < 0.15:
            filters[name] = NOW - rng.randrange(3_000_000)
    return Want(
        account=rng.choice([ALICE, BOB]),
        kind=rng.choice(["message", "call"]),
        before=rng.choice(["g", sid_at(NOW - rng.randrange(3_000_000))[2:]]),
        after=rng.choice(["", sid_at(NOW - rng.randrange(3_000_000))[2:]]),
        limit=rng.choice([1, 3, 20, 1000]),
        filters=filters,
    )


@pytest.mark.parametrize("seed", [1, 2])
async def test_pages_are_what_a_list_would_give(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "ROW_GROUP", GROUP)
    rng = random.Random(seed)
    documents = sorted(await build(tmp_path, rng), key=lambda document: document.sid[2:], reverse=True)
    scanner, reader = Scanner(tmp_path / "segments"), reader_at(tmp_path)
    full = 0
    for _ in range(400):
        want = random_want(rng)
        expected = [document for document in documents if matches(document, want)][: want.limit]
        assert scanner.page(reader, want) == expected, want
        full += len(expected) == want.limit
    assert full > 50, "limits were met"
    for document in rng.sample(documents, 100):
        assert scanner.get(reader, document.account, document.sid) == document
        other = BOB if document.account == ALICE else ALICE
        assert scanner.get(reader, other, document.sid) is None
    reader.close()


def vanishing(reader: RecentReader, stale: list[Segment]) -> RecentReader:
    """Its first snapshot is older than a compaction."""
    segments, generation, left = reader.segments, reader.generation, [stale]
    reader.segments = lambda: left.pop() if left else segments()  # type: ignore[method-assign]
    reader.generation = lambda: -2 if left else generation()  # type: ignore[method-assign]
    return reader


async def test_a_file_that_a_compaction_removed_is_looked_for_in_its_successor(tmp_path: Path) -> None:
    documents = [message(NOW - 3_000_000 + n, n) for n in range(20)]
    async with archive_at(tmp_path) as archive:
        await archive.land(documents)
        await archive.roll(force=True)
        reader = vanishing(reader_at(tmp_path), await archive._recent.segments())
        await archive.delete(ALICE, documents[3].sid)
        assert (await archive.compact())["segments"] == 1
        scanner = Scanner(tmp_path / "segments")
        want = Want(account=ALICE, kind="message", before="g", after="", limit=99, filters={})
        page = scanner.page(reader, want)
        assert sids(page) == [d.sid for d in reversed(documents) if d is not documents[3]]
        reader.close()
