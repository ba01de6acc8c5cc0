"""The cache of segments in front of an object store."""

import os
from pathlib import Path

import pytest

from tests.objects import shared_folder
from trunkline.postflight.files import CacheTooSmall, Files, SharedFiles, files_of
from trunkline.storage.manifest import Segment
from trunkline.storage.objects import Objects, ObjectsUnavailable


def segment(name: str, size: int = 100) -> Segment:
    return Segment(path=name, rows=1, size=size, min_key="1", max_key="2")


@pytest.fixture
def store(tmp_path: Path) -> Objects:
    return Objects(shared_folder(tmp_path / "shared"))


def cache(tmp_path: Path, store: Objects, size: int = 250) -> SharedFiles:
    folder = tmp_path / "cache"
    folder.mkdir(exist_ok=True)
    return SharedFiles(folder, store, size)


def put(store: Objects, *names: str, size: int = 100) -> None:
    for name in names:
        store.write(f"segments/{name}", name.encode().ljust(size, b"."))


def names(files: Files) -> list[str]:
    return sorted(path.name for path in files.folder.iterdir())


def test_a_segment_is_fetched_once_and_whole(tmp_path: Path, store: Objects) -> None:
    files = cache(tmp_path, store)
    put(store, "a.parquet")
    path = files.path("a.parquet")
    assert path.read_bytes().startswith(b"a.parquet.")
    store.remove("segments/a.parquet")
    assert files.path("a.parquet") == path
    with pytest.raises(FileNotFoundError):
        files.path("b.parquet")
    assert names(files) == ["a.parquet"]


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, store: Objects) -> None:
    files = cache(tmp_path, store)
    put(store, "a.parquet", "b.parquet", "c.parquet")
    for at, name in enumerate(("a.parquet", "b.parquet")):
        os.utime(files.path(name), (at + 1, at + 1))
    files.path("a.parquet")  # used again
    files.path("c.parquet")
    assert names(files) == ["a.parquet", "c.parquet"]


def test_what_is_held_stays(tmp_path: Path, store: Objects) -> None:
    files = cache(tmp_path, store)
    put(store, "a.parquet", "b.parquet", "c.parquet")
    with files.held([segment("a.parquet"), segment("b.parquet")]) as paths:
        for path in paths:
            os.utime(path, (1, 1))
        other = cache(tmp_path, store)  # another process of this machine
        other.path("c.parquet")
        assert names(files) == ["a.parquet", "b.parquet", "c.parquet"]
        assert all(path.exists() for path in paths)
    put(store, "d.parquet")
    files.path("d.parquet")
    assert len(names(files)) == 2


def test_more_than_fits_is_refused_before_anything_is_fetched(tmp_path: Path, store: Objects) -> None:
    files = cache(tmp_path, store)
    put(store, "a.parquet", "b.parquet", "c.parquet")
    with (
        pytest.raises(CacheTooSmall, match=r"300 bytes .* 250"),
        files.held([segment(f"{name}.parquet") for name in "abc"]),
    ):
        pass
    assert names(files) == []


def test_what_cannot_be_published_is_not_left(tmp_path: Path, store: Objects) -> None:
    files = cache(tmp_path, store)
    (files.folder / "new.parquet").write_bytes(b"rows")
    (tmp_path / "shared").rename(tmp_path / "gone")
    with pytest.raises(ObjectsUnavailable):
        files.publish("new.parquet")
    assert names(files) == []
    (tmp_path / "gone").rename(tmp_path / "shared")
    (files.folder / "new.parquet").write_bytes(b"rows")
    again = cache(tmp_path, Objects(shared_folder(tmp_path / "shared")))
    again.publish("new.parquet")
    assert (tmp_path / "shared" / "segments" / "new.parquet").read_bytes() == b"rows"


def test_orphans_go_by_age(tmp_path: Path, store: Objects) -> None:
    files = cache(tmp_path, store)
    put(store, "named.parquet", "left.parquet")
    assert files.orphans({"named.parquet"}, 3600) == 0
    assert files.orphans({"named.parquet"}, -5) == 1
    assert [one.name for one in store.names("segments")] == ["segments/named.parquet"]


def test_a_plain_folder_needs_none_of_that(tmp_path: Path) -> None:
    files = files_of(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"x")
    with files.held([segment("a.parquet", 1 << 60)]) as (path,):
        assert path == tmp_path / "a.parquet"
    files.publish("a.parquet")
    files.remove(["a.parquet", "gone.parquet"])
    assert not path.exists()
    assert files_of(files) is files
