"""The worker process: started when needed, replaced when it dies, ended when idle, apart from the serving process."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from trunkline.postflight import worker_client
from trunkline.postflight.wire import Setup
from trunkline.postflight.worker_client import Refused, WorkerClient, WorkerFailed
from trunkline.storage.engines.sqlite.archive import SqliteRecent

Make = Callable[..., WorkerClient]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    recent = SqliteRecent(tmp_path / "archive.db")
    clients: list[WorkerClient] = []
    (tmp_path / "segments").mkdir()

    def client(role: str = "read", *, timeout_s: float = 20, idle_s: float = 300, concurrency: int = 4) -> WorkerClient:
        reader, location = recent.reader_spec
        setup = Setup(role=role, folder=str(tmp_path / "segments"), reader=reader, location=location)
        clients.append(WorkerClient(setup, concurrency=concurrency, timeout_s=timeout_s, idle_s=idle_s))
        return clients[-1]

    yield client
    for each in clients:
        await each.close()
    await recent.close()


def get(client: WorkerClient) -> Awaitable[object]:
    return client.call("get", account="AC1", sid="SM" + "0" * 32)


async def gone(pid: int) -> None:
    async with asyncio.timeout(60):
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.01)


async def test_it_starts_on_first_need_and_ends_with_its_client(make: Make) -> None:
    client = make()
    assert client.pid is None
    assert await get(client) is None
    pid = client.pid
    assert pid is not None
    await asyncio.gather(*(get(client) for _ in range(40)))
    assert client.starts == 1
    await client.close()
    await gone(pid)
    with pytest.raises(WorkerFailed):
        await get(client)


async def test_it_is_replaced_when_it_dies(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "RESTART_S", 0.0)
    client = make()
    await get(client)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGSTOP)
    waiting = asyncio.gather(get(client), get(client))
    await asyncio.sleep(0)
    os.kill(client.pid, signal.SIGKILL)
    assert await waiting == [None, None]
    assert client.starts == 2


async def test_what_must_not_be_repeated_is_not(make: Make) -> None:
    client = make()
    await get(client)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGSTOP)
    once = asyncio.ensure_future(client.call("get", again=False, account="AC1", sid="SM" + "0" * 32))
    await asyncio.sleep(0)
    os.kill(client.pid, signal.SIGKILL)
    with pytest.raises(WorkerFailed, match="died"):
        await once


async def test_a_hung_worker_is_killed_and_replaced(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "RESTART_S", 0.0)
    client = make(timeout_s=10)
    await get(client)
    pid = client.pid
    assert pid is not None
    client._timeout_s = 0.2
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(WorkerFailed, match="took more than"):
        await get(client)
    await gone(pid)
    client._timeout_s = 10
    assert await get(client) is None


async def test_an_idle_worker_gives_its_memory_back(make: Make) -> None:
    client = make(idle_s=0.2)
    await get(client)
    pid = client.pid
    assert pid is not None
    await gone(pid)
    assert client.pid is None
    assert await get(client) is None


async def test_refusals_say_why_and_leave_the_worker_alive(make: Make) -> None:
    client = make("analysis")
    with pytest.raises(Refused, match="SELECT") as caught:
        await client.call("query", sql="drop table x")
    assert caught.value.kind == "QueryError"
    with pytest.raises(Refused):
        await client.call("no-such-operation")
    assert (await client.call("query", sql="select 1 as one"))["rows"] == [[1]]
    assert client.starts == 1


async def test_too_many_waiting_requests_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "MAX_WAITING", 3)
    client = make(concurrency=1)
    outcomes = await asyncio.gather(*(get(client) for _ in range(5)), return_exceptions=True)
    assert sum(isinstance(outcome, WorkerFailed) for outcome in outcomes) == 2


async def test_a_roll_up_worker_is_niced(make: Make) -> None:
    client = make("roll")
    await client.call("sweep")
    assert client.pid is not None
    assert os.getpriority(os.PRIO_PROCESS, client.pid) >= 15


@asynccontextmanager
async def orphan(folder: Path) -> AsyncIterator[int]:
    """A worker whose parent was killed."""
    script = f"""
import asyncio, os, pathlib
from trunkline.postflight.archive import SegmentedArchive
from trunkline.storage.engines.sqlite.archive import SqliteRecent
from trunkline.model.clock import SystemClock
async def main():
    path = pathlib.Path({str(folder)!r})
    archive = SegmentedArchive(SqliteRecent(path / "archive.db"), path / "segments", SystemClock())
    await archive.read_worker.call("get", account="A", sid="SM0")
    print(archive.read_worker.pid, flush=True)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    yield int(out)


async def test_a_worker_does_not_outlive_its_parent(tmp_path: Path) -> None:
    async with orphan(tmp_path) as pid:
        await gone(pid)


def test_the_serving_process_imports_neither_duckdb_nor_pyarrow() -> None:
    script = """
import sys
import trunkline.postflight.archive, trunkline.postflight.retention, trunkline.postflight.landing
import trunkline.storage.engines.sqlite.archive
print([name for name in ("duckdb", "pyarrow", "numpy", "phonenumbers") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
