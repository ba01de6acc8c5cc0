"""An event that is a flag and those who wait."""

import asyncio

from trunkline.model.event import Event


async def test_an_event_wakes_all_who_wait_and_forgets_who_has_gone():
    event = Event()
    waiting = [asyncio.create_task(event.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    assert len(event._waiting) == 2
    event.set()
    event.clear()
    assert await asyncio.gather(*waiting[1:]) == [True, True]
    assert not event.is_set()
    event.set()
    assert await event.wait()
