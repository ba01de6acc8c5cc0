"""What is redacted or deleted is gone for every reader at once, and from every file after a compaction."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pyarrow.parquet as pq
import pytest

from tests.e2e.client import Client, until
from tests.e2e.conftest import LOOPBACK, make_tenant
from tests.e2e.server import Server
from tests.e2e.sink import Hook, Sink
from trunkline.bootstrap import ARCHIVE_FILE, SEGMENT_FOLDER
from trunkline.model.clock import SystemClock
from trunkline.postflight.archive import ArchiveLimits, SegmentedArchive
from trunkline.storage.engines.sqlite.archive import SqliteRecent

MARKER = "Zyzzyva-7f3a9"
"""A word that is nowhere else."""
OLD = 12
"""Messages that lie in a segment when they are redacted or deleted."""
NEW = 6
"""Messages that lie in tables."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, {**LOOPBACK, "archive": {"erase_within_s": 3600}})
    yield server
    server.close()


async def roll(server: Server) -> None:
    """Put everything that has landed into a segment, however young it is."""
    recent = SqliteRecent(server.data / ARCHIVE_FILE)
    archive = SegmentedArchive(
        recent, server.data / SEGMENT_FOLDER, SystemClock(), ArchiveLimits(settle_ms=0, least_rows=1)
    )
    assert await archive.roll(force=True) >= OLD
    await archive.close()


def holding(folder: Path) -> set[str]:
    """Names of files that hold the marker: in their bytes, or in a segment's (compressed) columns."""
    found = set()
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        shown = repr(pq.read_table(path).to_pylist()) if path.suffix == ".parquet" else ""
        if MARKER in shown or any(MARKER.encode(code) in content for code in ("utf-8", "utf-16-be", "utf-16-le")):
            found.add(path.name)
    return found


async def send_marked(client: Client, sink: Sink, number: str, count: int) -> list[str]:
    sids = []
    for index in range(count):
        answer = await client.call(
            "POST",
            "Messages.json",
            {
                "To": f"+1212555{170 + index:04d}",
                "From": number,
                "Body": f"{MARKER} {index}",
                "StatusCallback": f"{sink.url}/status",
                "MediaUrl": f"{sink.url}/picture" if index == 0 else [],
            },
            {"Idempotency-Key": f"{count}-{index}"},
        )
        assert answer.status == 201, answer.body
        sids.append(answer.json["sid"])
    await sink.until(lambda: set(sids) <= {hook.form["MessageSid"] for hook in sink.at("/status") if _last(hook)})
    return sids


def _last(hook: Hook) -> bool:
    return hook.form["MessageStatus"] == "delivered"


async def test_nothing_stays(server: Server, session: aiohttp.ClientSession, sink: Sink) -> None:
    sink.files["/picture"] = ("image/gif", b"GIF89a" + MARKER.encode())
    tenant = await asyncio.to_thread(server.seed, make_tenant)
    client, number = Client(session, server, tenant.account), tenant.numbers[0].phone_number
    await asyncio.to_thread(server.start)
    old = await send_marked(client, sink, number, OLD)
    await asyncio.to_thread(server.stop)
    await roll(server)
    assert any(name.endswith(".parquet") for name in holding(server.data)), "the test would prove nothing"
    await asyncio.to_thread(server.start)
    new = await send_marked(client, sink, number, NEW)

    deleted = [*old[::2], *new[::2]]
    redacted = [*old[1::2], *new[1::2]]
    for sid in deleted:
        assert (await client.call("DELETE", f"Messages/{sid}.json")).status == 204
        assert (await client.call("GET", f"Messages/{sid}.json")).status == 404
    for sid in redacted:
        answer = await client.call("POST", f"Messages/{sid}.json", {"Body": ""})
        assert (answer.status, answer.json["body"]) == (200, "")
    listed = (await client.call("GET", "Messages.json?PageSize=100")).json["messages"]
    assert {message["sid"]: message["body"] for message in listed} == dict.fromkeys(redacted, "")
    replay = await client.call("POST", "Messages.json", {"Body": "x"}, {"Idempotency-Key": f"{OLD}-0"})
    assert MARKER.encode() not in replay.body

    command = [sys.executable, "-m", "trunkline", "--config", str(server.folder / "trunkline.toml"), "archive"]
    await asyncio.to_thread(subprocess.run, [*command, "compact"], check=True, stdout=subprocess.DEVNULL)
    assert await asyncio.to_thread(server.stop) == 0
    assert holding(server.folder) == set()

    await asyncio.to_thread(server.start)
    kept = await until(lambda: client.call("GET", "Messages.json?PageSize=100"), lambda answer: answer.status == 200)
    assert {message["sid"] for message in kept.json["messages"]} == set(redacted)
