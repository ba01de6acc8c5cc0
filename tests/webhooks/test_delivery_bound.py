"""The bound on the callbacks in memory: it holds whatever is owed, nothing is forgotten, nobody is held up by it."""

import asyncio

import pytest

from trunkline.settings import Webhooks
from trunkline.webhooks import delivery as module

from .rig import OK, Clock, eventually


@pytest.fixture
def small(monkeypatch):
    """Little memory."""
    for name, value in {"MAX_HELD": 64, "SHARE": 4, "HEAD": 32, "PAGE": 16, "LOAD_RETRY_S": 0.01}.items():
        monkeypatch.setattr(module, name, value)


def watched(rig):
    """The most callbacks in memory, as far as attempts see it."""
    most = [0]

    def answer(owed):
        most[0] = max(most[0], rig.delivery.in_memory)
        return OK

    rig.script.answer = answer
    return most


@pytest.mark.parametrize("due_in_ms", [0, 10 * 86_400_000])  # those of a clock that was ahead are due at once
async def test_what_is_owed_to_many_hosts_is_bounded_in_memory_and_all_delivered(rig_of, small, due_in_ms):
    rig = await rig_of()
    due_ms = Clock().now_ms() + due_in_ms if due_in_ms else 0
    owed = [await rig.owe(host=f"http://h{n % 30}", push=False, due_ms=due_ms) for n in range(300)]
    await rig.restart()
    most = watched(rig)
    await rig.all_ended(len(owed))
    assert 0 < most[0] <= module.MAX_HELD + module.PAGE
    assert len(rig.script.begun) == len(set(rig.script.begun)) == len(owed)


async def test_what_comes_while_memory_is_full_is_bounded_and_all_delivered(rig_of, small):
    rig = await rig_of()
    most = watched(rig)
    for n in range(400):
        await rig.owe(host=f"http://h{n % 40}", push=n % 3 > 0)
        if n % 50 == 0:
            await rig.delivery.recover()
    await rig.delivery.recover()
    await rig.all_ended(400)
    assert most[0] <= module.MAX_HELD + module.PAGE
    assert len(rig.script.begun) == len(set(rig.script.begun)) == 400


async def test_hosts_that_never_answer_leave_room_for_the_others(rig_of, small):
    rig = await rig_of(Webhooks(per_host=2))
    rig.script.answer = lambda owed: OK if "well" in owed.host else None
    for n in range(300):
        await rig.owe(host=f"http://silent{n % 6}")
    assert rig.delivery.in_memory <= module.MAX_HELD
    for n in range(60):
        await rig.owe(host=f"http://well{n % 4}", push=n % 2 > 0)
    await rig.delivery.recover()
    await eventually(lambda: len(rig.finished) == 60)
    rig.script.answer = lambda owed: OK
    while rig.script.open:
        rig.script.finish(next(iter(rig.script.open)), OK)
        await asyncio.sleep(0)
    await rig.all_ended(360)


async def test_hosts_that_wait_for_room_are_taken_up_when_a_partition_leaves(rig_of, small):
    rig = await rig_of(Webhooks(per_host=1))
    rig.script.answer = lambda owed: None
    for n in range(100):
        await rig.owe(host=f"http://h{n}", push=False)
    await rig.delivery.recover()
    await eventually(lambda: rig.delivery._unread)
    waiting = len(rig.delivery._unread)
    rig.delivery.leave(0)  # all are of that one
    await eventually(lambda: not rig.delivery._unread)
    assert waiting > 0
    assert rig.delivery.in_memory <= module.MAX_HELD
    rig.delivery.enter(0)
    rig.script.answer = lambda owed: OK
    for owed_id in list(rig.script.open):
        rig.script.finish(owed_id, OK)
    await rig.delivery.recover()
    await rig.all_ended(100)


async def test_closed_lanes_keep_nothing_in_memory(rig_of, small):
    rig = await rig_of(Webhooks(per_host=1))
    rig.script.answer = lambda owed: OK if "open" in owed.host else None
    for n in range(40):
        await rig.owe(2, host=f"http://client{n % 2}")
    for n in range(2):
        rig.delivery.set_lane(f"http://client{n}", closed=True)
    for owed_id in list(rig.script.open):
        rig.script.finish(owed_id, OK)
    await rig.delivery.recover()
    await eventually(lambda: rig.delivery.in_memory == 0)
    for _ in range(100):
        await rig.owe(host="http://open")
    ended = 2 + 100
    await eventually(lambda: len(rig.finished) == ended)
    rig.script.answer = lambda owed: OK
    for n in range(2):
        rig.delivery.set_lane(f"http://client{n}", closed=False)
    await rig.all_ended(180)
    assert len(rig.script.begun) == len(set(rig.script.begun)) == 180
