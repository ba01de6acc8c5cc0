"""Blobs in the object store keep the contract of `BlobStore`, seen by several nodes."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.objects import S3Server, shared_folder
from trunkline.model.sid import new_sid
from trunkline.storage import object_blobs as blobs_module
from trunkline.storage.blobs import STALE_DRAFT_S, BlobsFull, BlobTooLarge
from trunkline.storage.object_blobs import ObjectBlobs
from trunkline.storage.objects import AsyncObjects, Location, Objects, ObjectsUnavailable
from trunkline.storage.survives import Survives


@pytest.fixture(params=["folder", "memory", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "folder":
        return shared_folder(tmp_path / "shared")
    if request.param == "memory":
        return Location(url=f"memory://{tmp_path}")
    server: S3Server = request.getfixturevalue("s3")
    return server.location()


@pytest.fixture
def objects(location: Location) -> Iterator[AsyncObjects]:
    opened = AsyncObjects(Objects(location))
    yield opened
    opened.close()


@pytest.fixture
def blobs(objects: AsyncObjects, tmp_path: Path) -> ObjectBlobs:
    return ObjectBlobs(objects, "media", tmp_path / "drafts", max_bytes=1_000_000)


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def collect(stream: AsyncIterator[bytes]) -> list[bytes]:
    return [chunk async for chunk in stream]


async def test_put_get_size_delete(blobs: ObjectBlobs) -> None:
    assert blobs.survives is Survives.HOST
    sid = new_sid("ME")
    assert await blobs.put(sid, b"picture") == 7
    assert await blobs.get(sid) == b"picture"
    assert await blobs.size(sid) == 7
    assert await blobs.delete(sid) is True
    assert await blobs.delete(sid) is False
    assert await blobs.get(sid) is None
    assert await blobs.size(sid) is None
    assert await collect(blobs.stream(sid)) == []
    assert blobs.stored_bytes == 0


async def test_chunks_in_and_out(blobs: ObjectBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "READ_BYTES", 4)
    sid = new_sid("ME")
    assert await blobs.put(sid, chunks(b"abc", b"", b"defgh", b"i")) == 9
    assert await collect(blobs.stream(sid)) == [b"abcd", b"efgh", b"i"]
    assert await collect(blobs.stream(sid, 3, 5)) == [b"defg", b"h"]
    assert await collect(blobs.stream(sid, 7)) == [b"hi"]
    assert await collect(blobs.stream(sid, 2, 0)) == []
    assert await collect(blobs.stream(sid, 100, 5)) == []
    assert list((tmp_path / "drafts").iterdir()) == []


async def test_another_node_reads_what_one_has_kept(blobs: ObjectBlobs, objects: AsyncObjects, tmp_path: Path) -> None:
    other = ObjectBlobs(objects, "media", tmp_path / "elsewhere")
    sid = new_sid("ME")
    await blobs.put(sid, b"one")
    await blobs.put(sid, b"second")
    assert await other.get(sid) == b"second"
    assert await other.measure() == 6
    assert blobs.stored_bytes == 6
    assert await ObjectBlobs(objects, "recordings", tmp_path / "drafts").get(sid) is None


@pytest.mark.parametrize("name", ["", "../etc/passwd", "ME" + "A" * 32, "ME/" + "a" * 31])
async def test_only_sids_are_names(blobs: ObjectBlobs, name: str) -> None:
    for call in (blobs.put(name, b"x"), blobs.get(name), blobs.delete(name)):
        with pytest.raises(ValueError, match="SID"):
            await call


async def test_a_broken_source_leaves_nothing(blobs: ObjectBlobs, tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise ConnectionResetError

    sid = new_sid("ME")
    with pytest.raises(ConnectionResetError):
        await blobs.put(sid, broken())
    with pytest.raises(BlobTooLarge):
        await blobs.put(sid, chunks(b"x" * 999_999, b"xx"))
    assert await blobs.get(sid) is None
    assert list((tmp_path / "drafts").iterdir()) == []
    assert blobs.stored_bytes == 0


async def test_all_blobs_together_are_bounded(objects: AsyncObjects, tmp_path: Path) -> None:
    blobs = ObjectBlobs(objects, "media", tmp_path / "drafts", max_total_bytes=10)
    results = await asyncio.gather(*(blobs.put(new_sid("ME"), b"1234") for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results].count(BlobsFull) == 3
    assert blobs.stored_bytes == await blobs.measure() == 8


async def test_drafts_of_a_crash_are_swept(blobs: ObjectBlobs, tmp_path: Path) -> None:
    for name, at in (("old", 0), ("new", 100)):
        (tmp_path / "drafts" / name).write_bytes(b"half")
        os.utime(tmp_path / "drafts" / name, (at, at))
    assert await blobs.sweep(STALE_DRAFT_S + 50) == 1
    assert [path.name for path in (tmp_path / "drafts").iterdir()] == ["new"]


async def test_a_store_that_is_away_is_no_empty_one(tmp_path: Path) -> None:
    location = shared_folder(tmp_path / "shared")
    objects = AsyncObjects(Objects(location))
    blobs, sid = ObjectBlobs(objects, "media", tmp_path / "drafts"), new_sid("ME")
    await blobs.put(sid, b"12345")
    (tmp_path / "shared").rename(tmp_path / "gone")
    for call in (blobs.get(sid), blobs.size(sid), blobs.put(sid, b"x"), blobs.delete(sid)):
        with pytest.raises(ObjectsUnavailable):
            await call
    assert await blobs.measure() == 5, "what was known stays"
    objects.close()
