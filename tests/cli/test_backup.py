"""Backup beside a writing server, and restore."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import apsw
import pytest

from .conftest import Command

BACKUPS = ["copy", "copy.tar", "copy.tar.gz"]
WRITER = """
import apsw, sys
db = apsw.Connection(sys.argv[1])
db.set_busy_timeout(5000)
db.execute("pragma journal_mode=wal")
db.execute("create table if not exists t (a integer primary key, b integer)")
print("ready", flush=True)
for n in range(200_000):
    db.execute("begin immediate")
    db.execute("insert into t values (?, 0)", (2 * n,))
    db.execute("insert into t values (?, 0)", (2 * n + 1,))
    db.execute("commit")
"""


@pytest.fixture
def filled(trunkline: Command, account: str, data: Path) -> str:
    """An account's SID in a data folder that also has a segment, a media file and leftovers."""
    (data / "segments").mkdir()
    (data / "segments" / "a.parquet").write_bytes(b"segment")
    (data / "segments" / "lock").touch()
    (data / "media" / "ME").mkdir(parents=True)
    (data / "media" / "ME" / "x").write_bytes(os.urandom(3_000_000))
    (data / "media" / ".draft").write_bytes(b"unfinished")
    return account


@pytest.mark.parametrize("name", BACKUPS)
def test_restore_gives_back_what_was_backed_up(
    trunkline: Command, filled: str, data: Path, tmp_path: Path, name: str
) -> None:
    token = trunkline("accounts", "token", filled).out
    ran = trunkline("backup", name, "--with-master-key")
    assert ran.code == 0, ran.err
    assert (tmp_path / name).stat().st_mode & 0o077 == 0
    media = (data / "media" / "ME" / "x").read_bytes()
    data.rename(tmp_path / "old")
    ran = trunkline("restore", name)
    assert (ran.code, ran.err) == (0, "")
    assert trunkline("accounts", "token", filled).out == token
    assert (data / "media" / "ME" / "x").read_bytes() == media
    assert (data / "segments" / "a.parquet").read_bytes() == b"segment"
    assert not (data / "media" / ".draft").exists()
    assert data.stat().st_mode & 0o077 == 0
    assert not list(tmp_path.glob(".*copy*")) + list(tmp_path.glob(".data*"))


def test_of_calls_only_recordings_are_kept(trunkline: Command, filled: str, data: Path) -> None:
    kept = data / "recordings" / "01a2" / "05" / "RE1"
    gone = [
        data / name for name in ("memory.journal", "phones.json", "prompts/s-1.pcm", "spool/RE2/0.raw", "media.sock")
    ]
    for file in (kept, *gone):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    assert trunkline("backup", "copy").code == 0
    data.rename(data.with_name("old"))
    assert trunkline("restore", "copy").code == 0
    assert kept.read_bytes() == b"x"
    assert [file.name for file in gone if file.exists()] == []


def test_the_master_key_stays_out_unless_asked_for(trunkline: Command, filled: str, data: Path, tmp_path: Path) -> None:
    ran = trunkline("backup", "copy")
    assert ran.code == 0
    assert "the master key is not in it" in ran.err
    assert not (tmp_path / "copy" / "master.key").exists()
    data.rename(tmp_path / "old")
    assert "put master.key into" in trunkline("restore", "copy").err


def test_a_backup_beside_a_writer_is_one_snapshot(trunkline: Command, filled: str, data: Path, tmp_path: Path) -> None:
    queue = data / "queue.db"
    with subprocess.Popen([sys.executable, "-c", WRITER, str(queue)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        try:
            assert trunkline("backup", "copy").code == 0
            assert writer.poll() is None, "the writer ended before the backup did"
        finally:
            writer.kill()
    copy = apsw.Connection(str(tmp_path / "copy" / "queue.db"), flags=apsw.SQLITE_OPEN_READONLY)
    rows = copy.execute("select count(*), coalesce(max(a), -1) from t").fetchall()
    copy.close()
    ((count, last),) = rows
    assert count % 2 == 0, "a transaction was cut in two"
    assert last == count - 1


@pytest.mark.parametrize("name", BACKUPS)
def test_a_damaged_file_is_found_and_nothing_restored(
    trunkline: Command, filled: str, data: Path, tmp_path: Path, name: str
) -> None:
    trunkline("backup", "whole")
    media = tmp_path / "whole" / "media" / "ME" / "x"
    whole = media.read_bytes()
    media.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    if name != "copy":
        with tarfile.open(tmp_path / name, "w:gz" if name.endswith("gz") else "w") as archive:
            archive.add(tmp_path / "whole", "")
    else:
        (tmp_path / "whole").rename(tmp_path / "copy")
    data.rename(tmp_path / "old")
    ran = trunkline("restore", name)
    assert ran.code == 1
    assert "media/ME/x is damaged (its SHA-256 differs): nothing was restored" in ran.err
    assert not data.exists()


def test_a_damaged_database_is_not_backed_up(trunkline: Command, filled: str, data: Path, tmp_path: Path) -> None:
    database = apsw.Connection(str(data / "more.db"))
    database.execute("create table t (a text)")
    database.executemany("insert into t values (?)", [("x" * 3000,)] * 50)
    database.close()
    with (data / "more.db").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(os.urandom(4096 * 5))
    ran = trunkline("backup", "copy")
    assert ran.code == 1
    assert not (tmp_path / "copy").exists()


def test_restore_refuses_a_dirty_target(trunkline: Command, filled: str, data: Path) -> None:
    trunkline("backup", "copy")
    ran = trunkline("restore", "copy")
    assert ran.code == 1
    assert "is not empty: move it away first" in ran.err


def test_restore_refuses_a_running_server(trunkline: Command, filled: str, data: Path) -> None:
    trunkline("backup", "copy")
    holder = "import apsw, sys; c = apsw.Connection(sys.argv[1]); c.execute('select * from accounts').fetchall(); "
    holder += "print('ready', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", holder, str(data / "database.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        ran = trunkline("restore", "copy")
        server.communicate()
    assert ran.code == 1
    assert "a server is using" in ran.err


@pytest.mark.parametrize("path", ["../evil", "/evil", "a/../../evil", "", "a\0b"])
def test_a_manifest_cannot_lead_outside(trunkline: Command, filled: str, data: Path, tmp_path: Path, path: str) -> None:
    trunkline("backup", "copy")
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_text())
    manifest["files"][0]["path"] = path
    (tmp_path / "copy" / "manifest.json").write_text(json.dumps(manifest))
    data.rename(tmp_path / "old")
    ran = trunkline("restore", "copy")
    assert ran.code == 1
    assert "outside the data folder" in ran.err
    assert not (tmp_path / "evil").exists()
    assert not data.exists()


@pytest.mark.parametrize(
    ("content", "error"),
    [(None, "it has no manifest.json"), ("{", "cannot be read"), ('{"format": 1}', "cannot be read")],
)
def test_what_is_no_backup_is_refused(trunkline: Command, tmp_path: Path, content: str | None, error: str) -> None:
    (tmp_path / "copy").mkdir()
    if content is not None:
        (tmp_path / "copy" / "manifest.json").write_text(content)
    ran = trunkline("restore", "copy")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert error in ran.err


def test_a_file_that_is_no_tar_is_refused(trunkline: Command, tmp_path: Path) -> None:
    (tmp_path / "copy.tar").write_bytes(b"hello")
    ran = trunkline("restore", "copy.tar")
    assert ran.code == 1
    assert "is no backup" in ran.err
    assert "No such file" in trunkline("restore", "absent.tar").err


def test_backup_overwrites_nothing(trunkline: Command, filled: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.tar").write_bytes(b"mine")
    assert "is there already" in trunkline("backup", "copy.tar").err
    assert (tmp_path / "copy.tar").read_bytes() == b"mine"
    assert "lies in the data folder" in trunkline("backup", str(data / "inside")).err
