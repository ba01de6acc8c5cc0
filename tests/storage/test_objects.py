"""The object store: whole objects under names, over a shared folder, memory and S3."""

from pathlib import Path

import msgspec
import pytest

from tests.objects import S3Server, shared_folder
from trunkline.storage import objects as objects_module
from trunkline.storage.objects import Location, Objects, ObjectsUnavailable


@pytest.fixture(params=["folder", "memory", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "folder":
        return shared_folder(tmp_path / "shared")
    if request.param == "memory":
        return Location(url=f"memory://{tmp_path}")
    server: S3Server = request.getfixturevalue("s3")
    return server.location()


@pytest.fixture
def store(location: Location) -> Objects:
    return Objects(location)


def test_an_object_is_written_read_listed_and_removed(store: Objects) -> None:
    assert store.write("a/b/one", b"hello")
    assert store.read("a/b/one") == b"hello"
    assert store.read_part("a/b/one", 1, 3) == b"ell"
    assert store.size("a/b/one") == 5
    store.write("a/two", b"")
    store.write("other/three", b"x")
    assert sorted((one.name, one.size) for one in store.names("a")) == [("a/b/one", 5), ("a/two", 0)]
    store.remove("a/b/one")
    store.remove("a/b/one")
    assert store.read("a/b/one") is None
    assert store.size("a/b/one") is None
    with pytest.raises(FileNotFoundError):
        store.read_part("a/b/one", 0, 1)
    assert not store.failed


def test_two_nodes_see_the_same_and_a_name_is_taken_once(store: Objects, location: Location) -> None:
    other = Objects(location)
    assert store.write("x", b"mine", new=True)
    assert not other.write("x", b"theirs", new=True)
    assert other.read("x") == b"mine"
    assert other.write("x", b"theirs")
    assert store.read("x") == b"theirs"


def test_a_big_file_goes_up_and_down_in_parts(store: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_module, "PART_BYTES", 5 << 20)
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * (12 << 12) + b"end")
    store.write("big", source)
    store.fetch("big", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    with pytest.raises(FileNotFoundError):
        store.fetch("nothing", tmp_path / "copy")


def test_a_prefix_keeps_two_installations_apart(location: Location) -> None:
    one, two = (Objects(msgspec.structs.replace(location, prefix=prefix)) for prefix in ("one", "two/deep"))
    one.write("name", b"1")
    two.write("name", b"2")
    assert (one.read("name"), two.read("name")) == (b"1", b"2")
    assert [found.name for found in one.names("")] == ["name"]


def test_probe_says_what_it_tried(store: Objects) -> None:
    assert "refused to overwrite" in store.probe("token")
    assert list(store.names("")) == []


def test_a_bucket_that_is_not_there_is_one_line(s3: S3Server) -> None:
    store = Objects(msgspec.structs.replace(s3.location(), url="s3://mistyped"))
    for written in (lambda: store.probe("token"), lambda: store.write("name", b"x")):
        with pytest.raises(ObjectsUnavailable, match="mistyped is not there: make it, or check") as error:
            written()
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 200


def test_a_store_that_is_away_is_told_once_and_left_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "RETRIES", 0)
    away = Objects(Location(url="s3://b", access_key="AK", secret_key="sesame", endpoint="http://127.0.0.1:1"))
    for _ in range(3):
        with pytest.raises(ObjectsUnavailable, match="cannot be used"):
            away.read("x")
    assert len(caplog.records) == 1
    assert away.failed
    assert "sesame" not in caplog.text + away.failed + repr(away)


def test_a_folder_that_was_unmounted_is_no_empty_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_module, "REST_S", 0.0)
    store = Objects(shared_folder(tmp_path / "shared"))
    store.write("x", b"1")
    (tmp_path / "shared").rename(tmp_path / "gone")
    with pytest.raises(ObjectsUnavailable):
        store.read("x")
    (tmp_path / "gone").rename(tmp_path / "shared")
    assert store.read("x") == b"1"
    assert not store.failed


def test_no_driver_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)
    with pytest.raises(objects_module.StoreUnavailable, match="pip install"):
        Objects(Location(url="memory:///"))
