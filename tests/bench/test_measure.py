"""The harness counts what a gateway loses, doubles and keeps to itself, and its clocks start when they should."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from bench.load import Load
from bench.measure import Result, Run, per_s, times_of
from bench.smsc import Smsc

from bench import measure
from tests.bench.stub import FAULTS, Books, Stub

COUNT = 160


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here takes long."""
    monkeypatch.setattr(measure, "SETTLE_S", 0.3)
    monkeypatch.setattr(measure, "QUIET_LIMIT_S", 0.0)
    monkeypatch.setattr(measure, "WARM_UP", 20)


async def run(
    fault: Callable[[int], str], drive: Callable[[Load], Awaitable[None]], books: Books | None = None
) -> Result:
    books = books or Books()
    async with Stub(books, time.monotonic_ns, fault) as stub:
        stub.roots = [os.getpid()]
        return await Run(stub, cast(Smsc, books)).measure(drive)


async def test_a_faultless_gateway_has_a_clean_record() -> None:
    result = await run(lambda number: "", lambda load: load.closed(COUNT, 8, 10))
    assert (result.requests, result.accepted, result.statuses) == (COUNT, COUNT, {"201": COUNT})
    assert result.tally == measure.Tally(0, 0, 0, 0, 0)
    assert result.callbacks == 2 * COUNT
    assert result.signatures > 0
    assert result.forged == 0
    assert result.request_to_submit.count == result.submit_to_callback.count == COUNT
    assert result.accepted_per_s >= result.delivered_per_s > 0
    assert result.cpu_s_per_1000 > 0
    assert result.pss_mb > 1


async def test_each_fault_is_counted_as_what_it_is() -> None:
    each = COUNT // 16

    def fault(number: int) -> str:
        return FAULTS[number % 16] if number % 16 < len(FAULTS) else ""

    result = await run(fault, lambda load: load.closed(COUNT, 8, 10))
    assert result.requests == COUNT
    assert result.accepted == COUNT - 3 * each
    assert result.statuses == {"201": COUNT - 3 * each, "503": 2 * each, "no answer": each}
    assert result.tally.lost == each
    assert result.tally.untold == 2 * each  # told nothing, told of a failure
    assert result.tally.duplicates == each
    assert result.tally.repeated_callbacks == each
    assert result.tally.unasked == each  # refused, and yet submitted


async def test_a_wrong_signature_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stub, "genuine", lambda self, url, sample: False)
    result = await run(lambda number: "", lambda load: load.closed(COUNT, 8, 10))
    assert result.forged == result.signatures > 0


async def test_an_open_loop_sends_all_and_starts_the_clock_when_a_message_is_due() -> None:
    """The gateway answers nothing for a while: what falls due meanwhile has waited, although it was not yet sent."""
    stall_s, rate = 0.8, 400
    stalled: list[int] = []

    def fault(number: int) -> str:
        if not stalled:
            stalled.append(number)
            time.sleep(stall_s)  # the stub and the load share the loop: everything stands still
        return ""

    result = await run(fault, lambda load: load.open(rate, 1.0))
    assert result.accepted == rate
    assert result.request_to_submit.max >= stall_s * 1000
    assert result.request_to_submit.p50 >= 150  # four in five fell due during the stall, and were sent after it


async def test_a_load_gives_up_when_its_time_is_over() -> None:
    """A server that takes connections and never answers."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    load = Load(server.sockets[0].getsockname()[1], lambda message: b"GET / HTTP/1.1\r\n\r\n")
    load.grace_s = 0.1
    async with asyncio.timeout(5):
        await load.closed(100, 4, 0.2)
    assert len(load.unknown) == len(load.began) == 4
    assert not load.accepted
    server.close()


def test_percentiles() -> None:
    millisecond = 1_000_000
    found = times_of(millisecond * value for value in range(1, 101))
    assert (found.count, found.p50, found.p99, found.max) == (100, 51, 100, 100)
    assert times_of([]) == measure.Times()


def test_rates() -> None:
    second = 1_000_000_000
    assert per_s(0, [second, 2 * second]) == 1.0
    assert per_s(0, []) == 0.0
