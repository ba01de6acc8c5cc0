"""The archive by the command line, in a data folder without a server."""

import asyncio
import json
from pathlib import Path

import pytest

from trunkline import bootstrap
from trunkline.cli.archive import day_ms
from trunkline.model.message import Direction, Message
from trunkline.model.sid import new_sid
from trunkline.settings import load
from trunkline.storage.archive import Document

from .conftest import Command

JUNE_MS = 1_780_300_800_000
"""2026-06-01 08:00 UTC."""


@pytest.fixture
def landed(data: Path, account: str) -> list[str]:
    """Three landed messages of the account, oldest first."""

    async def land() -> list[str]:
        archive = bootstrap.open_archive(load(environment={}, overrides={"data": {"path": str(data)}}))
        sids = [new_sid("SM", JUNE_MS + day * 86_400_000) for day in range(3)]
        for sid in sids:
            message = Message(
                sid=sid, account_sid=account, direction=Direction.OUTBOUND_API, to="+12025550143", from_="+12025550142"
            )
            body = {"kind": "message", "v": 1, "sid": sid, "account_sid": account, "status": "delivered"}
            body |= {"direction": message.direction, "from": message.from_, "to": message.to, "body": "Hello"}
            body |= {"num_segments": 1, "created_ms": int(sid[2:14], 16)}
            await archive.land(
                [Document(sid=sid, account=account, kind="message", rev=1, body=json.dumps(body).encode())]
            )
        await archive.delete(account, sids[0])
        await archive.close()
        return sids

    return asyncio.run(land())


def test_query(trunkline: Command, landed: list[str]) -> None:
    ran = trunkline("archive", "query", "select sid, body from messages order by created_at")
    assert ran.rows == [[sid, "Hello"] for sid in landed[1:]], ran.err


@pytest.mark.parametrize(
    "sql", ["selec 1", "select 1; select 2", "create table t (a int)", "from read_csv('/etc/passwd')"]
)
def test_what_is_no_plain_select_is_refused_in_one_line(trunkline: Command, landed: list[str], sql: str) -> None:
    ran = trunkline("archive", "query", sql)
    assert (ran.code, ran.out, ran.err.count("\n")) == (1, "", 1)


def test_query_is_bounded(trunkline: Command, landed: list[str], tmp_path: Path) -> None:
    (tmp_path / "trunkline.toml").write_text("[archive]\nquery_rows = 1\n")
    ran = trunkline("archive", "query", "select sid from messages")
    assert len(ran.rows) == 1
    assert "there may be more: archive.query_rows is 1" in ran.err


def test_export(trunkline: Command, landed: list[str], tmp_path: Path) -> None:
    ran = trunkline("archive", "export", "out", "--start", "2026-06-03")
    assert (ran.code, ran.out) == (0, "1 documents in out/documents.jsonl\n"), ran.err
    (line,) = (tmp_path / "out" / "documents.jsonl").read_text().splitlines()
    assert json.loads(line)["sid"] == landed[2]


@pytest.mark.parametrize("option", [["--format", "xml"], ["--start", "yesterday"]])
def test_export_refuses_wrong_options(trunkline: Command, landed: list[str], option: list[str]) -> None:
    ran = trunkline("archive", "export", "out", *option)
    assert (ran.code, ran.err.count("\n")) == (1, 1)


def test_days_are_utc() -> None:
    assert day_ms("2026-06-01") == JUNE_MS - 8 * 3_600_000


def test_stats_and_compact(trunkline: Command, landed: list[str]) -> None:
    ran = trunkline("archive", "stats")
    assert ran.rows == [["2026-06", "outbound-api", "delivered", "2", "2", "1"]]
    assert "1 deletions wait for a compaction" in ran.err
    ran = trunkline("archive", "compact")
    assert ran.code == 0, ran.err
    assert trunkline("archive", "stats").err == ""


def test_without_data(trunkline: Command) -> None:
    assert "there is no data in" in trunkline("archive", "stats").err
