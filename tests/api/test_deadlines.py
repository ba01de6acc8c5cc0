"""The shared timer over many waits."""

import asyncio

import pytest

from trunkline.api.deadlines import Deadlines


async def wait(deadlines: Deadlines, event: asyncio.Event) -> str:
    task = deadlines.enter()
    try:
        await event.wait()
        return "done"
    except asyncio.CancelledError:
        if not deadlines.ended(task):
            raise
        return "late"
    finally:
        deadlines.leave(task)


async def test_only_late_waits_are_ended() -> None:
    deadlines = Deadlines(0.02)
    never, soon = asyncio.Event(), asyncio.Event()
    waits = [asyncio.create_task(wait(deadlines, event)) for event in (never, soon, never)]
    await asyncio.sleep(0)
    soon.set()
    assert await asyncio.gather(*waits) == ["late", "done", "late"]
    assert all(task.cancelling() == 0 for task in waits)
    assert await asyncio.create_task(wait(deadlines, never)) == "late"  # armed again


async def test_a_foreign_cancellation_passes_through() -> None:
    task = asyncio.create_task(wait(Deadlines(60), asyncio.Event()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_another_loop_arms_its_own_timer() -> None:
    deadlines = Deadlines(0.01)
    for _ in range(2):
        assert asyncio.run(wait(deadlines, asyncio.Event())) == "late"
