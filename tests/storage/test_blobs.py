"""The contract of the `BlobStore`, and what the folder engine adds."""

import asyncio
import os
import stat
import time

import pytest

from trunkline.model.sid import new_sid
from trunkline.storage import blobs as blobs_module
from trunkline.storage.blobs import STALE_DRAFT_S, BlobsFull, BlobTooLarge, FolderBlobs
from trunkline.storage.survives import Survives


@pytest.fixture
def blobs(tmp_path):
    return FolderBlobs(tmp_path / "blobs", max_bytes=1_000_000)


def files(tmp_path):
    return [path for path in tmp_path.rglob("*") if path.is_file()]


async def chunks(*parts):
    for part in parts:
        yield part


async def collect(stream):
    return [chunk async for chunk in stream]


async def test_put_get_size_delete(blobs, tmp_path):
    assert blobs.survives is Survives.POWER
    sid = new_sid("ME")
    assert await blobs.put(sid, b"picture") == 7
    assert await blobs.get(sid) == b"picture"
    assert await blobs.size(sid) == 7
    assert await blobs.delete(sid) is True
    assert await blobs.delete(sid) is False
    assert await blobs.get(sid) is None
    assert await blobs.size(sid) is None
    assert await collect(blobs.stream(sid)) == []
    assert files(tmp_path) == []


async def test_chunks_in_and_out(blobs, monkeypatch):
    monkeypatch.setattr(blobs_module, "CHUNK_BYTES", 4)
    sid = new_sid("ME")
    assert await blobs.put(sid, chunks(b"abc", b"", b"defgh", b"i")) == 9
    assert await collect(blobs.stream(sid)) == [b"abcd", b"efgh", b"i"]
    assert await collect(blobs.stream(sid, 3, 5)) == [b"defg", b"h"]
    assert await collect(blobs.stream(sid, 7)) == [b"hi"]
    assert await collect(blobs.stream(sid, 2, 0)) == []
    assert await collect(blobs.stream(sid, 100, 5)) == []


async def test_a_second_put_replaces(blobs):
    sid = new_sid("ME")
    await blobs.put(sid, b"one")
    await blobs.put(sid, b"second")
    assert await blobs.get(sid) == b"second"


@pytest.mark.parametrize(
    "name", ["", "../etc/passwd", "ME" + "a" * 31, "ME" + "A" * 32, "me" + "a" * 32, "ME/" + "a" * 31]
)
async def test_only_sids_are_names(blobs, name):
    with pytest.raises(ValueError, match="SID"):
        await blobs.put(name, b"x")
    with pytest.raises(ValueError, match="SID"):
        await blobs.get(name)
    with pytest.raises(ValueError, match="SID"):
        await blobs.delete(name)


async def test_a_broken_source_leaves_nothing(blobs, tmp_path):
    async def broken():
        yield b"half"
        raise ConnectionResetError

    sid = new_sid("ME")
    with pytest.raises(ConnectionResetError):
        await blobs.put(sid, broken())
    assert await blobs.get(sid) is None
    assert files(tmp_path) == []


async def test_too_much_is_refused_and_leaves_nothing(blobs, tmp_path):
    with pytest.raises(BlobTooLarge):
        await blobs.put(new_sid("ME"), chunks(b"x" * 999_999, b"xx"))
    assert files(tmp_path) == []


async def test_synced_before_it_has_its_name(blobs, monkeypatch):
    done = []
    replace, fsync = os.replace, os.fsync

    def watched(handle):
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    monkeypatch.setattr(os, "replace", lambda *names: (done.append("rename"), replace(*names)))
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: (done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file"), fsync(handle)),
    )
    await blobs.put(new_sid("ME"), b"x")
    assert done[0] == "file"
    assert done[-2:] == ["rename", "folder"]
    assert done.count("folder") == 3  # two new folders and the entry itself


async def test_blobs_lie_apart_by_the_time_of_their_key(blobs, tmp_path):
    day_ms = 24 * 3600 * 1000
    for day in range(3):
        await blobs.put(new_sid("ME", 1_700_000_000_000 + day * day_ms), b"x")
    assert len({path.parent for path in files(tmp_path)}) == 3


async def test_drafts_of_a_crash_are_swept(blobs, tmp_path):
    old = tmp_path / "blobs" / "drafts" / "old"
    new = tmp_path / "blobs" / "drafts" / "new"
    for draft, at in [(old, 0), (new, 100)]:
        draft.write_bytes(b"half")
        os.utime(draft, (at, at))
    assert await blobs.sweep(STALE_DRAFT_S + 50) == 1
    assert files(tmp_path) == [new]


async def test_all_blobs_together_are_bounded(tmp_path):
    blobs = FolderBlobs(tmp_path / "blobs", max_total_bytes=10)
    first, second = new_sid("ME"), new_sid("ME")
    await blobs.put(first, b"123456")
    with pytest.raises(BlobsFull):
        await blobs.put(second, chunks(b"1234", b"5"))
    assert (await blobs.get(second), blobs.stored_bytes) == (None, 6), "what was refused takes no room"
    await blobs.put(first, b"12")
    assert blobs.stored_bytes == 2, "what was replaced gives its room back"
    await blobs.put(second, b"12345678")
    assert await FolderBlobs(tmp_path / "blobs").measure() == 10
    assert await blobs.delete(first)
    assert not await blobs.delete(first)
    assert blobs.stored_bytes == 8


async def test_puts_at_once_cannot_pass_the_bound_together(tmp_path):
    blobs = FolderBlobs(tmp_path / "blobs", max_total_bytes=10)
    results = await asyncio.gather(*(blobs.put(new_sid("ME"), b"1234") for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results].count(BlobsFull) == 3
    assert blobs.stored_bytes == await FolderBlobs(tmp_path / "blobs").measure() == 8


async def test_swept_drafts_give_their_room_back(tmp_path):
    blobs = FolderBlobs(tmp_path / "blobs")
    (tmp_path / "blobs" / "drafts" / "left").write_bytes(b"12345")
    assert await blobs.measure() == 5
    assert await blobs.sweep(time.time() + STALE_DRAFT_S + 1) == 1
    assert blobs.stored_bytes == 0
