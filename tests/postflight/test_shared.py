"""One archive on several nodes: recent documents in PostgreSQL, segments in an object store, a cache on each."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.objects import S3Server, shared_folder
from tests.postflight.harness import ALICE, LIMITS, NOW, FakeClock, message, messages, sids
from tests.postgres import PostgresServer, needs_postgres
from trunkline.postflight.archive import SegmentedArchive
from trunkline.storage.engines.postgres.recent import PostgresRecent, prepare
from trunkline.storage.objects import Location, Objects
from trunkline.storage.survives import Survives
from trunkline.storage.unavailable import StoreUnavailable

pytestmark = needs_postgres
Opener = Callable[[str], SegmentedArchive]


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.slow)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "folder":
        return shared_folder(tmp_path / "shared")
    server: S3Server = request.getfixturevalue("s3")
    return server.location()


@pytest.fixture
def opener(location: Location, postgres: PostgresServer, tmp_path: Path) -> Opener:
    dsn = postgres.database(prepare)

    def open_node(name: str) -> SegmentedArchive:
        recent = PostgresRecent(dsn)
        return SegmentedArchive(recent, tmp_path / name, FakeClock(), LIMITS, objects=location, survives=Survives.HOST)

    return open_node


@asynccontextmanager
async def nodes(opener: Opener, *names: str) -> AsyncIterator[list[SegmentedArchive]]:
    opened = [opener(name) for name in names]
    try:
        yield opened
    finally:
        await asyncio.gather(*(archive.close() for archive in opened))


async def everything(archive: SegmentedArchive) -> list[str]:
    return sids(await archive.page(ALICE, "message", limit=999, filters={}))


def in_cache(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.parquet"))


async def test_what_one_node_rolled_up_another_reads_also_when_its_host_is_gone(opener: Opener, tmp_path: Path) -> None:
    documents = messages(300)
    async with nodes(opener, "a") as (a,):
        assert a.survives is Survives.POWER
        await a.land(documents)
        assert await a.roll(force=True) == 300
    for path in (tmp_path / "a").iterdir():
        path.unlink()
    async with nodes(opener, "b") as (b,):
        assert await everything(b) == sids(reversed(documents))
        assert await b.get(ALICE, documents[7].sid) == documents[7]
        assert (await b.query("select count(*), count(distinct sid) from messages"))[1] == [[300, 300]]
        assert in_cache(tmp_path / "b")
        assert not b.unavailable


async def test_a_deletion_holds_on_every_node_at_once_and_its_bytes_go_everywhere(
    opener: Opener, location: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = messages(60)
    async with nodes(opener, "a", "b") as (a, b):
        await a.land(documents)
        await a.roll(force=True)
        assert await everything(b) == sids(reversed(documents))
        (first,) = in_cache(tmp_path / "b")
        assert await b.delete(ALICE, documents[5].sid)
        for node in (a, b):
            assert await node.get(ALICE, documents[5].sid) is None
            assert (await node.query("select count(*) from messages"))[1] == [[59]]
        assert (await a.compact())["segments"] == 1
        assert await everything(b) == sids(reversed([*documents[:5], *documents[6:]]))
        objects = Objects(location)
        assert objects.size(f"segments/{first}"), "a reader of the former manifest may still come"
        monkeypatch.setattr("trunkline.postflight.archive.DROP_GRACE_MS", -1000)
        await a.roll()
        assert objects.size(f"segments/{first}") is None
        os.utime(tmp_path / "b" / first, (1, 1))
        await b.tidy()
        assert first not in in_cache(tmp_path / "b")
        assert await everything(b) == sids(reversed([*documents[:5], *documents[6:]]))


async def test_objects_that_no_manifest_names_go_and_others_stay(
    opener: Opener, location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.postflight.archive.ORPHAN_S", -5.0)
    documents = messages(30)
    async with nodes(opener, "a") as (a,):
        await a.land(documents)
        await a.roll(force=True)
        Objects(location).write("segments/left.parquet", b"by a crash")
        a._orphans_at = 0.0
        await a.roll()
        assert Objects(location).read("segments/left.parquet") is None
        assert len(list(Objects(location).names("segments"))) == 1
    async with nodes(opener, "b") as (b,):
        assert await everything(b) == sids(reversed(documents))


async def test_an_object_store_that_is_away_loses_nothing(
    postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shared, dsn = tmp_path / "shared", postgres.database(prepare)
    location = shared_folder(shared)
    documents = messages(60)

    def node(name: str) -> SegmentedArchive:
        return SegmentedArchive(PostgresRecent(dsn), tmp_path / name, FakeClock(), LIMITS, objects=location)

    a, b = node("a"), node("b")
    await a.land(documents)
    await a.roll(force=True)
    newer = messages(40, first_ms=NOW - 1_000_000)
    shared.rename(tmp_path / "gone")
    await a.land(newer)
    with pytest.raises(StoreUnavailable):
        await a.roll(force=True)
    with pytest.raises(StoreUnavailable):
        await b.get(ALICE, documents[3].sid)
    with pytest.raises(StoreUnavailable):
        await b.page(ALICE, "message", limit=99, filters={})
    assert "cannot be used" in b.problem
    assert [record for record in caplog.records if "cannot be reached" in record.message]
    assert await b.get(ALICE, newer[3].sid) == newer[3], "recent documents need no object store"
    assert sids(await b.page(ALICE, "message", limit=5, filters={})) == sids(reversed(newer[-5:]))
    assert await a.get(ALICE, documents[3].sid) == documents[3], "it lies in the cache"
    (tmp_path / "gone").rename(shared)
    await asyncio.sleep(2.1)
    assert await a.roll(force=True) == 40
    assert await everything(b) == sids(reversed([*documents, *newer]))
    assert b.problem == ""
    for archive in (a, b):
        await archive.close()


async def test_the_cache_is_bounded_and_still_reads_all(
    postgres: PostgresServer, tmp_path: Path, location: Location
) -> None:
    import msgspec

    dsn = postgres.database(prepare)
    rolling = SegmentedArchive(
        PostgresRecent(dsn), tmp_path / "a", FakeClock(), msgspec.structs.replace(LIMITS, segment_rows=50),
        objects=location,
    )  # fmt: skip
    documents = messages(300)
    await rolling.land(documents)
    await rolling.roll(force=True)
    sizes = [segment.size for segment in await rolling._recent.segments()]
    assert len(sizes) == 6
    bound = 2 * max(sizes) + 100
    reading = SegmentedArchive(
        PostgresRecent(dsn), tmp_path / "b", FakeClock(), msgspec.structs.replace(LIMITS, cache_bytes=bound),
        objects=location,
    )  # fmt: skip
    assert await everything(reading) == sids(reversed(documents))
    assert sum(path.stat().st_size for path in (tmp_path / "b").glob("*.parquet")) <= bound
    with pytest.raises(Exception, match=r"objects\.cache_bytes"):
        await reading.query("select count(*) from messages")
    await rolling.close()
    await reading.close()


async def test_passwords_are_on_no_command_line(opener: Opener) -> None:
    async with nodes(opener, "a") as (a,):
        await a.land(messages(20))
        await a.roll(force=True)
        told = Path(f"/proc/{a.roll_worker.pid}/cmdline").read_bytes()
        assert b"dbname" not in told
        assert b"secret" not in told


async def test_a_paused_node_leaves_the_upkeep_to_others(opener: Opener) -> None:
    from trunkline.postflight.retention import Maintenance

    async def never() -> dict[str, int]:
        return {}

    async with nodes(opener, "a", "b") as (a, b):
        first, second = (Maintenance(archive, FakeClock(), never) for archive in (a, b))
        second.pause()
        await b.land(messages(150, first_ms=NOW - 7_200_000))
        assert await second.step() == {}
        assert (await a._recent.segments()) == []
        assert (await first.step())["rolled"] == 150
        first.pause()
        second.resume()
        await a.land([message(NOW - 8_000_000, n) for n in range(20)])
        assert (await second.step())["rolled"] == 20
