"""Usage, SQL and exports over recent rows and segments."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.postflight.harness import ALICE, BOB, archive_at, message, reader_at
from trunkline.postflight import analysis
from trunkline.postflight.export import export
from trunkline.postflight.worker_client import Refused
from trunkline.storage.archive import Document

DAY1 = 1_789_948_800_000
"""2026-09-21 00:00 UTC."""
DAY2 = DAY1 + 86_400_000


def traffic() -> list:
    return [
        message(DAY1, 1, num_segments=2, price="0.10"),
        message(DAY1 + 1, 2, num_segments=1, price="0.20"),
        message(DAY1 + 2, 3, status="failed", price="9"),
        message(DAY1 + 3, 4, direction="inbound", status="received", price="0.01", **{"from": "+33612345678"}),
        message(DAY1 + 4, 5, media=[{"sid": "ME1"}, {"sid": "ME2"}], price="1"),
        message(DAY2, 6, price=""),
        message(DAY2 - 50, 7, sent_ms=DAY2 + 5, price="0.30"),
        message(DAY1, 8, account=BOB, price="5"),
        message(DAY1, 9, kind="call"),
    ]


@pytest.mark.parametrize("rolled", [0, 1, 2])
async def test_usage_sums(tmp_path: Path, rolled: int) -> None:
    async with archive_at(tmp_path) as archive:
        await archive.land(traffic())
        if rolled:
            await archive.roll(force=True)
        if rolled == 2:  # the price came late
            await archive.land([message(DAY2, 6, rev=2, price="0.25")])
        rows = await archive.usage([ALICE], DAY1, DAY2 + 86_400_000, "day")
        sums = {(r["period"], r["direction"], r["country"], r["channel"]): r for r in rows}
        assert sorted(sums) == [
            ("2026-09-21", "inbound", "FR", "sms"),
            ("2026-09-21", "outbound-api", "DE", "mms"),
            ("2026-09-21", "outbound-api", "DE", "sms"),
            ("2026-09-22", "outbound-api", "DE", "sms"),
        ]
        first = sums["2026-09-21", "outbound-api", "DE", "sms"]
        assert (first["count"], first["segments"], first["price"], first["price_unit"]) == (2, 3, "0.3", "USD")
        assert sums["2026-09-21", "outbound-api", "DE", "mms"]["media"] == 2
        second = sums["2026-09-22", "outbound-api", "DE", "sms"]
        assert (second["count"], second["price"]) == (2, "0.55" if rolled == 2 else "0.3")
        assert sum(r["count"] for r in await archive.usage([], 0, 1 << 60, "all")) == 7
        assert {r["period"] for r in await archive.usage([ALICE, BOB], DAY1, DAY2, "month")} == {"2026-09"}
        assert await archive.usage([ALICE], DAY1 - 1000, DAY1, "year") == []


def call(ms: int, number: int, seconds: int, **fields: Any) -> Document:
    """A landed call that was answered one second after it began."""
    times = {"answered_ms": ms + 1000, "ended_ms": ms + 1000 * (1 + seconds)} if seconds else {"ended_ms": ms + 1000}
    status = "completed" if seconds else "no-answer"
    sid = f"CA{ms:012x}00{number:018x}"
    return message(ms, number, kind="call", sid=sid, **{"status": status, "price": "0.01", **times, **fields})


@pytest.mark.parametrize("rolled", [False, True])
async def test_calls_are_summed_in_begun_minutes(tmp_path: Path, rolled: bool) -> None:
    async with archive_at(tmp_path) as archive:
        await archive.land(
            [
                call(DAY1, 1, 60),
                call(DAY1, 2, 61),
                call(DAY1, 3, 0),
                call(DAY1, 4, 5, direction="outbound-dial", to="sip:ada@example.com"),
                call(DAY1, 5, 5, direction="inbound", to="+18005550100", **{"from": "+14155550100"}),
                call(DAY1, 6, 5, direction="inbound", to="+12025550100", **{"from": "+14155550100"}),
                call(DAY1, 7, 5, direction="inbound", to="+12025550100", **{"from": "client:ada"}),
            ]
        )
        if rolled:
            await archive.roll(force=True)
        rows = await archive.usage([ALICE], DAY1, DAY2, "all")
        assert {row["channel"] for row in rows} == {"call"}
        sums = {(row["direction"], row["sender"]): (row["count"], row["segments"], row["price"]) for row in rows}
        assert sums == {
            ("outbound-api", "local"): (2, 3, "0.02"),
            ("outbound-dial", "sip"): (1, 1, "0.01"),
            ("inbound", "tollfree"): (1, 1, "0.01"),
            ("inbound", "local"): (1, 1, "0.01"),
            ("inbound", "client"): (1, 1, "0.01"),
        }


async def test_queries_see_typed_calls(tmp_path: Path) -> None:
    async with archive_at(tmp_path) as archive:
        quality = {"codec": "PCMU", "mos": 4.25}
        await archive.land([call(DAY1, 1, 61, trunk="acme", quality=quality), call(DAY1, 2, 0), message(DAY1, 3)])
        _, rows = await archive.query(
            "select status, duration, minutes, trunk, mos, answered_at::varchar from calls order by created_at, sid"
        )
        assert rows == [
            ["completed", 61, 2, "acme", 4.25, "2026-09-21 00:00:01"],
            ["no-answer", 0, 0, "", None, None],
        ]


async def test_an_unknown_granularity_is_refused(tmp_path: Path) -> None:
    async with archive_at(tmp_path) as archive:
        with pytest.raises(Refused, match="granularity"):
            await archive.usage([ALICE], 0, 1, "hour")


@pytest.mark.parametrize("rolled", [False, True])
async def test_queries_see_typed_messages_and_raw_documents(tmp_path: Path, rolled: bool) -> None:
    async with archive_at(tmp_path) as archive:
        await archive.land(traffic())
        if rolled:
            await archive.roll(force=True)
        columns, rows = await archive.query(
            'select "to", body, created_at, price, sent_at from messages where num_media = 2'
        )
        assert columns == ["to", "body", "created_at", "price", "sent_at"]
        assert rows == [
            ["+491500000005", "text 5", "2026-09-21T00:00:00.004000", "1.00000000", "2026-09-21T00:00:00.104000"]
        ]
        _, rows = await archive.query("select kind, count(*) from documents group by all order by 1")
        assert rows == [["call", 1], ["message", 8]]
        assert (await archive.query("select doc->>'$.to' from documents where kind = 'call'"))[1] == [["+491500000009"]]
        assert (await archive.query("with a as (select 1 as x) select * from a"))[1] == [[1]]


@pytest.mark.parametrize(
    "sql",
    [
        "select * from read_text('{secret}')",
        "select * from read_csv('{secret}')",
        "select * from '{secret}'",
        "select * from read_parquet('{segment}')",
        "select * from glob('{folder}/*')",
        "select * from read_parquet('{folder}/*.parquet')",
        "select count(*) from '{segment}'",
        "select (select max(doc) from read_parquet('{segment}')) from messages",
        "with a as (select * from parquet_scan('{segment}')) select * from a",
        "select * from query('select 1')",
        "select * from query_table('hide')",
        "select * from main.hide",
        "select getenv('HOME') from read_json('{secret}')",
        "copy (select 1) to '{segment}'",
        "copy messages to '{folder}/stolen.csv'",
        "attach '{folder}/x.db'",
        "set enable_external_access = true",
        "install httpfs",
        "load httpfs",
        "create table t as select 1",
        "drop view messages",
        "select 1; select 2",
        "",
        "selec",
    ],
)
async def test_a_query_can_do_nothing_but_select(tmp_path: Path, sql: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    folder = tmp_path / "segments"
    async with archive_at(tmp_path) as archive:
        await archive.land(traffic())
        await archive.roll(force=True)
        segment = next(folder.glob("*.parquet"))
        files = set(tmp_path.rglob("*"))
        reader = reader_at(tmp_path)
        with pytest.raises(analysis.QueryError):
            analysis.query(folder, reader, sql.format(secret=secret, folder=folder, segment=segment))
        reader.close()
        assert set(tmp_path.rglob("*")) == files


@pytest.mark.parametrize(
    "sql",
    [
        "from messages",
        "with a as (select unnest([1, 2]) as x) select x from a, range(2)",
        "select m.sid from messages m join documents d on m.sid = d.sid where d.doc->>'$.to' like '+49%'",
        "describe messages",
        "select 1 union all select count(*) from main.documents",
        "select *, row_number() over (partition by account_sid order by created_at) from messages qualify true",
    ],
)
async def test_all_kinds_of_selects_run(tmp_path: Path, sql: str) -> None:
    async with archive_at(tmp_path) as archive:
        await archive.land(traffic())
        await archive.roll(force=True)
        assert (await archive.query(sql))[1]


async def test_short_codes_are_told_apart(tmp_path: Path) -> None:
    async with archive_at(tmp_path) as archive:
        await archive.land(
            [message(DAY1, 1, **{"from": "12345"}), message(DAY1, 2), message(DAY1, 3, **{"from": "Brand"})]
        )
        await archive.land([message(DAY1, 4, direction="inbound", to="777", **{"from": "+4915112345678"})])
        rows = await archive.usage([ALICE], 0, 1 << 60, "all")
        assert {(row["direction"], row["sender"]): row["count"] for row in rows} == {
            ("inbound", "shortcode"): 1,
            ("outbound-api", "longcode"): 2,
            ("outbound-api", "shortcode"): 1,
        }


async def test_an_answer_is_bounded_and_says_so(tmp_path: Path) -> None:
    async with archive_at(tmp_path) as archive:
        await archive.land(traffic())
    reader = reader_at(tmp_path)  # also works when nothing serves
    result = analysis.query(tmp_path / "segments", reader, "select sid from documents", analysis.Bounds(query_rows=3))
    assert (len(result.rows), result.truncated) == (3, True)
    result = analysis.query(tmp_path / "segments", reader, "select sid from documents", analysis.Bounds(query_rows=9))
    assert (len(result.rows), result.truncated) == (9, False)
    reader.close()


@pytest.mark.parametrize("rolled", [False, True])
async def test_exports_hold_the_accounts_documents_of_the_span(tmp_path: Path, rolled: bool) -> None:
    out = tmp_path / "out"
    async with archive_at(tmp_path) as archive:
        await archive.land(traffic())
        if rolled:
            await archive.roll(force=True)
        await archive.delete(ALICE, message(DAY1, 1).sid)
        options = {"accounts": [ALICE], "start_ms": DAY1, "end_ms": DAY2}
        for format in ("parquet", "csv", "jsonl"):
            assert await archive.export(out, format, **options) == 6
        assert await archive.export(tmp_path / "all", "csv") == 8
        with pytest.raises(Refused, match="format"):
            await archive.export(out, "xlsx")
    expected = {d.sid for d in traffic() if d.account == ALICE} - {message(DAY1, 1).sid, message(DAY2, 6).sid}
    assert set(pq.read_table(out / "documents.parquet").column("sid").to_pylist()) == expected
    with open(out / "documents.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["sid"] for row in rows} == expected
    assert {json.loads(row["doc"])["sid"] for row in rows} == expected
    lines = (out / "documents.jsonl").read_text().splitlines()
    assert {json.loads(line)["sid"] for line in lines} == expected
    assert sorted(path.name for path in out.iterdir()) == ["documents.csv", "documents.jsonl", "documents.parquet"]


async def test_export_runs_without_a_server(tmp_path: Path) -> None:
    async with archive_at(tmp_path) as archive:
        await archive.land(traffic())
        await archive.roll(force=True)
    reader = reader_at(tmp_path)
    assert export(tmp_path / "segments", reader, tmp_path / "it's here", "csv", [BOB]).rows == 1
    reader.close()
