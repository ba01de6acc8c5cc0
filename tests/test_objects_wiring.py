"""`[objects]`: what is refused, and which stores are opened."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.objects import shared_folder
from tests.postflight.harness import ALICE, message
from tests.postgres import PostgresServer, needs_postgres
from trunkline.bootstrap_stores import check_objects, open_archive, open_blobs
from trunkline.cli.doctor_durability import kept, look_at_objects
from trunkline.settings import Objects, Settings, load
from trunkline.settings.objects import objects_problems
from trunkline.storage.blobs import FolderBlobs
from trunkline.storage.engines.postgres.recent import PostgresRecent
from trunkline.storage.engines.sqlite.archive import SqliteRecent
from trunkline.storage.object_blobs import ObjectBlobs
from trunkline.storage.survives import Survives


@pytest.mark.parametrize(
    ("fields", "engine", "complaint"),
    [
        ({"region": "eu"}, "sqlite", "objects.region"),
        ({"url": "ftp://x/y"}, "postgres", "s3://BUCKET"),
        ({"url": "s3:///x"}, "postgres", "needs a bucket"),
        ({"url": "file://shared/x"}, "postgres", "absolute path"),
        ({"url": "s3://key:secret@bucket"}, "postgres", "access_key"),
        ({"url": "s3://b", "access_key": "a"}, "postgres", "go together"),
        ({"url": "s3://b", "endpoint": "minio:9000"}, "postgres", "https://host:port"),
        ({"url": "s3://b"}, "sqlite", "storage.engine"),
    ],
)
def test_what_does_not_fit_is_refused(fields: Mapping[str, Any], engine: str, complaint: str) -> None:
    (problem,) = objects_problems(Objects(**fields), engine)
    assert complaint in problem
    assert "secret@" not in problem


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"url": "s3://b/f", "access_key": "a", "secret_key": "b", "endpoint": "http://127.0.0.1:9000"},
        {"url": "file:///mnt/shared"},
    ],
)
def test_what_fits_is_taken(fields: Mapping[str, Any]) -> None:
    assert list(objects_problems(Objects(**fields), "postgres")) == []


def settings_of(folder: Path, text: str = "# nothing") -> Settings:
    file = folder / "trunkline.toml"
    file.write_text(text)
    return load(file)


async def test_one_node_keeps_its_folders(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    archive = open_archive(settings)
    assert isinstance(archive._recent, SqliteRecent)
    assert isinstance(open_blobs(settings, "media", 10_000, 10_000), FolderBlobs)
    assert check_objects(settings) == ""
    assert sorted(path.name for path in settings.data_path.iterdir() if path.is_dir()) == ["media", "segments"]
    await archive.close()


@needs_postgres
async def test_with_an_object_store_all_are_shared(
    tmp_path: Path,
    postgres: PostgresServer,
) -> None:
    dsn = postgres.database()
    shared_folder(tmp_path / "shared")
    settings = settings_of(
        tmp_path,
        f'[storage]\nengine = "postgres"\nqueue = "{dsn}"\ndatabase = "{dsn}"\n'
        f'[objects]\nurl = "file://{tmp_path}/shared"\nprefix = "own"\nsurvives = "zone"\n',
    )
    archive = open_archive(settings)
    assert isinstance(archive._recent, PostgresRecent)
    assert archive.survives is Survives.POWER, "PostgreSQL was asked for no more"
    await archive.land([message(1_790_000_000_000, 1)])
    assert await archive.get(ALICE, message(1_790_000_000_000, 1).sid)
    await archive.close()
    blobs = open_blobs(settings, "media", 10_000, 10_000)
    assert isinstance(blobs, ObjectBlobs)
    assert blobs.survives is Survives.ZONE
    assert "refused to overwrite" in check_objects(settings)
    assert [path.name for path in (tmp_path / "shared").iterdir()] == ["own"]


@needs_postgres
@pytest.mark.parametrize("followed", [True, False])
async def test_segments_outlive_a_manifest_that_is_behind_where_a_region_follows(
    tmp_path: Path, postgres: PostgresServer, followed: bool
) -> None:
    dsn = postgres.database()
    shared_folder(tmp_path / "shared")
    other = (
        f'[node]\nname = "a"\nregion = "one"\naddress = "127.0.0.1:7400"\n[cluster]\nenabled = true\n'
        f'secret = "{"s" * 32}"\n[memory]\nengine = "valkey"\nurl = "redis://127.0.0.1:1/0"\n'
        f'[security]\nmaster_key = "{"00" * 32}"\n'
        f'[[regions]]\nname = "two"\nqueue = "{dsn}"\ndatabase = "{dsn}"\n'
    )
    settings = settings_of(
        tmp_path,
        f'[storage]\nengine = "postgres"\nqueue = "{dsn}"\ndatabase = "{dsn}"\npartitions = 2\n'
        f'[objects]\nurl = "file://{tmp_path}/shared"\n{other if followed else ""}',
    )
    archive = open_archive(settings)
    assert (archive.limits.kept_ms > 3_600_000) is followed
    await archive.close()


def test_the_doctor_tries_the_object_store(tmp_path: Path) -> None:
    shared_folder(tmp_path / "shared")
    own = '[storage]\nengine = "postgres"\nqueue = "dbname=a"\ndatabase = "dbname=a"\n[objects]\n'
    there = settings_of(tmp_path, f'{own}url = "file://{tmp_path}/shared"\n')
    away = settings_of(tmp_path, f'{own}url = "file://{tmp_path}/elsewhere"\n')
    assert [(one.verdict, one.what) for one in look_at_objects(there)] == [("ok", "objects")]
    (bad,) = look_at_objects(away)
    assert bad.verdict == "bad"
    assert "is not there" in bad.text
    assert list(look_at_objects(settings_of(tmp_path))) == []
    assert [row for row in kept(there) if "object store" in " ".join(row)]
