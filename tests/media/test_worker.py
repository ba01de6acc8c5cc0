"""The workers: they die, hang and run out of memory, and the node goes on."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from trunkline.media import wav, worker_client
from trunkline.media.worker_client import Refused, WorkerDied, WorkerFailed, Workers
from trunkline.media.worker_wire import AUDIO, MAX_FRAME, SPEECH, Request, Setup, frame

GIB = 1 << 30


@pytest.fixture(autouse=True)
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "RESTART_S", 0.0)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    workers = Workers(Setup(role=AUDIO, memory_bytes=GIB), timeout_s=20)
    yield workers
    await workers.close()


def write_wav(path: Path, seconds: float) -> Path:
    tone = (9000 * np.sin(np.arange(int(8000 * seconds)) / 5)).astype("<i2")
    path.write_bytes(wav.header(len(tone) * 2) + tone.tobytes())
    return path


async def decode(workers: Workers, source: Path) -> int:
    reply = await workers.call("decode", source=str(source), target=str(source.with_suffix(".pcm")))
    return int(reply["ms"])


async def test_requests_are_answered_by_one_process(workers: Workers, tmp_path: Path) -> None:
    source = write_wav(tmp_path / "a.wav", 0.5)
    assert await asyncio.gather(*(decode(workers, source) for _ in range(10))) == [500] * 10
    assert workers.starts == 1
    assert source.with_suffix(".pcm").read_bytes() == source.read_bytes()[wav.HEADER_BYTES :]


async def test_a_refusal_names_its_kind_and_costs_nothing(workers: Workers, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no audio")
    with pytest.raises(Refused) as refused:
        await decode(workers, tmp_path / "x")
    assert refused.value.kind == "Unreadable"
    assert await decode(workers, write_wav(tmp_path / "a.wav", 0.1)) == 100
    assert workers.starts == 1


async def test_a_worker_that_died_between_requests_is_replaced(workers: Workers, tmp_path: Path) -> None:
    source = write_wav(tmp_path / "a.wav", 0.1)
    assert await decode(workers, source) == 100
    (pid,) = workers.pids
    os.kill(pid, signal.SIGKILL)
    while workers.pids:
        await asyncio.sleep(0.005)
    assert await decode(workers, source) == 100
    assert workers.starts == 2


async def test_a_worker_that_dies_costs_the_request_it_was_at(workers: Workers, tmp_path: Path) -> None:
    source = write_wav(tmp_path / "a.wav", 0.1)
    await workers.start()
    (pid,) = workers.pids
    os.kill(pid, signal.SIGSTOP)
    first = asyncio.create_task(decode(workers, source))
    second = asyncio.create_task(decode(workers, source))
    for _ in range(20):  # turns of the loop, until the first request has left
        await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(WorkerDied):
        await first
    assert await second == 100


async def test_a_worker_that_takes_too_long_is_killed(workers: Workers, tmp_path: Path) -> None:
    source = write_wav(tmp_path / "a.wav", 0.1)
    await workers.start()
    (pid,) = workers.pids
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(WorkerFailed, match=r"more than 0.2 s"):
        await workers.call("decode", timeout_s=0.2, source=str(source), target=str(tmp_path / "x.pcm"))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert await decode(workers, source) == 100


async def test_while_none_answers_nobody_waits_for_all_before_him(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Silent:
        alive = True

        async def ask(self, request: Request) -> None:
            asked.append(request.id)
            await asyncio.Event().wait()

        async def end(self, *, kill: bool) -> None:
            pass

    async def start(self: Workers, index: int) -> Silent:
        return Silent()

    monkeypatch.setattr(Workers, "_start", start)
    workers = Workers(Setup(role=SPEECH, memory_bytes=GIB), timeout_s=0.05)
    calls = [workers.call("speak") for _ in range(20)]
    failed = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(one) for one in failed} == {WorkerFailed}
    assert len(asked) < len(calls) / 2


async def test_memory_is_bounded(tmp_path: Path) -> None:
    workers = Workers(Setup(role=AUDIO, memory_bytes=60 << 20), timeout_s=20)
    with pytest.raises(WorkerFailed):  # its libraries alone are larger
        await decode(workers, write_wav(tmp_path / "a.wav", 1))
    await workers.close()


async def test_too_many_requests_are_refused(workers: Workers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_client, "MAX_WAITING", 3)
    source = write_wav(tmp_path / "a.wav", 0.1)
    results = await asyncio.gather(*(decode(workers, source) for _ in range(8)), return_exceptions=True)
    assert [result for result in results if result == 100]
    assert any(isinstance(result, WorkerFailed) and "too many" in str(result) for result in results)


async def test_closing_ends_the_process_and_fails_what_waits(tmp_path: Path) -> None:
    workers = Workers(Setup(role=AUDIO, memory_bytes=GIB), timeout_s=20)
    await workers.start()
    (pid,) = workers.pids
    os.kill(pid, signal.SIGSTOP)
    waiting = [asyncio.create_task(decode(workers, tmp_path / "x")) for _ in range(3)]
    await asyncio.sleep(0)
    await workers.close()
    results = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)
    assert all(isinstance(result, WorkerFailed) for result in results)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_speech_worker_speaks(tmp_path: Path) -> None:
    workers = Workers(Setup(role=SPEECH, memory_bytes=2 * GIB, engine="tones"), timeout_s=20)
    spoken = await workers.call("speak", text="Hello", target=str(tmp_path / "x.pcm"))
    assert spoken["samples"] * 2 == (tmp_path / "x.pcm").stat().st_size > 1000
    await workers.close()


def test_frames_are_bounded() -> None:
    with pytest.raises(ValueError, match="bytes"):
        frame(Request(1, "speak", {"text": "x" * MAX_FRAME}))


async def test_a_worker_that_is_idle_ends_and_the_next_request_starts_another(tmp_path: Path) -> None:
    workers = Workers(Setup(role=AUDIO, memory_bytes=GIB), timeout_s=20, idle_s=0.2)
    source = write_wav(tmp_path / "a.wav", 0.1)
    try:
        assert await decode(workers, source) == 100
        (pid,) = workers.pids
        async with asyncio.timeout(60):
            while workers.pids or os.path.exists(f"/proc/{pid}"):
                await asyncio.sleep(0.02)
        assert await decode(workers, source) == 100
        assert workers.starts == 2
    finally:
        await workers.close()


async def test_a_worker_at_work_is_not_idle(tmp_path: Path) -> None:
    workers = Workers(Setup(role=AUDIO, memory_bytes=GIB), timeout_s=20, idle_s=0.05)
    try:
        await workers.start()
        (pid,) = workers.pids
        os.kill(pid, signal.SIGSTOP)
        asked = asyncio.create_task(decode(workers, write_wav(tmp_path / "a.wav", 0.1)))
        await asyncio.sleep(0.3)  # several times as long as an idle one stays
        os.kill(pid, signal.SIGCONT)
        assert await asked == 100
        assert workers.starts == 1
    finally:
        await workers.close()
