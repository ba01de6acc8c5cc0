"""Segments of two regions in one shared folder: each has a manifest of its own, and the promoted one reads all."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tests.objects import shared_folder
from tests.postflight.harness import ALICE, LIMITS, NOW, FakeClock, messages, sids
from tests.postgres import PostgresServer, needs_postgres
from trunkline.postflight.archive import ArchiveLimits, SegmentedArchive
from trunkline.storage.engines.postgres.recent import PostgresRecent, prepare
from trunkline.storage.objects import Location, Objects

pytestmark = needs_postgres
Opener = Callable[..., AbstractAsyncContextManager[SegmentedArchive]]
_numbers = itertools.count()


@pytest.fixture
def location(tmp_path: Path) -> Location:
    return shared_folder(tmp_path / "shared")


@pytest.fixture
def region(location: Location, tmp_path: Path) -> Opener:
    """A node of a region: its cache, and the databases that it has now."""

    @asynccontextmanager
    async def opened(name: str, dsn: str, limits: ArchiveLimits = LIMITS) -> AsyncIterator[SegmentedArchive]:
        archive = SegmentedArchive(PostgresRecent(dsn), tmp_path / name, FakeClock(), limits, objects=location)
        try:
            yield archive
        finally:
            await archive.close()

    return opened


def replicated(postgres: PostgresServer, dsn: str) -> str:
    """Another region's databases: what had come over by now. Nothing is connected to the first one's."""
    name, source = f"replicated{next(_numbers)}", dsn.rpartition("dbname=")[2]
    assert postgres.sql(f"create database {name} template {source}") == []
    return postgres.dsn(name)


async def everything(archive: SegmentedArchive) -> list[str]:
    return sids(await archive.page(ALICE, "message", limit=999, filters={}))


async def test_the_promoted_region_reads_both_regions_segments_and_so_does_the_former_one_when_it_is_back(
    region: Opener, postgres: PostgresServer, location: Location
) -> None:
    one = postgres.database(prepare)
    old = messages(60)
    late = messages(20, first_ms=NOW - 2_000_000)
    new = messages(30, first_ms=NOW - 1_000_000)
    async with region("one", one) as archive:
        await archive.land(old)
        assert await archive.roll(force=True) == 60
        await archive.land(late)
    two = replicated(postgres, one)
    async with region("one", one) as archive:  # a segment of whose manifest nothing has come over
        assert await archive.roll(force=True) == 20
    async with region("two", two) as archive:
        assert await everything(archive) == sids(reversed([*old, *late]))
        await archive.land(new)
        assert await archive.roll(force=True) == 50
        for document in (old[3], late[3], new[3]):
            assert await archive.get(ALICE, document.sid) == document
        assert (await archive.query("select count(*), count(distinct sid) from messages"))[1] == [[110, 110]]
    assert len(list(Objects(location).names("segments"))) >= 3
    async with region("one", replicated(postgres, two)) as archive:
        assert await everything(archive) == sids(reversed([*old, *late, *new]))
        assert await archive.get(ALICE, new[5].sid) == new[5]


@pytest.mark.parametrize("followed", [True, False])
async def test_what_a_region_compacts_away_stays_for_one_that_is_far_behind(
    region: Opener, postgres: PostgresServer, location: Location, monkeypatch: pytest.MonkeyPatch, followed: bool
) -> None:
    monkeypatch.setattr("trunkline.postflight.archive.DROP_GRACE_MS", -1000)
    limits = msgspec.structs.replace(LIMITS, kept_ms=3_600_000) if followed else LIMITS
    one = postgres.database(prepare)
    documents = messages(40)
    async with region("one", one, limits) as archive:
        await archive.land(documents)
        await archive.roll(force=True)
    (first,) = [found.name for found in Objects(location).names("segments")]
    two = replicated(postgres, one)
    async with region("one", one, limits) as archive:
        assert await archive.delete(ALICE, documents[5].sid)
        assert (await archive.compact())["segments"] == 1
        await archive.roll()
    assert (Objects(location).size(first) is not None) is followed
    if followed:
        async with region("two", two, limits) as archive:
            assert await everything(archive) == sids(reversed(documents))
