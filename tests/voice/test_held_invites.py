"""INVITEs that a node holds for a moment instead of refusing them."""

import asyncio
from types import SimpleNamespace

import pytest

from trunkline.voice import held_invites
from trunkline.voice.held_invites import HeldInvites

WAIT_S = 60


class Invite:
    def __init__(self):
        self.answered, self.status = False, 0
        self.flow = SimpleNamespace(remote=("192.0.2.1", 5060))

    def reject(self, status):
        self.answered, self.status = True, status


@pytest.fixture
async def held(monkeypatch):
    monkeypatch.setattr(held_invites, "LOOK_EVERY_S", 0.001)
    return HeldInvites()


async def ended(held):
    async with asyncio.timeout(WAIT_S):
        while len(held):
            await asyncio.sleep(0.001)


async def test_a_call_waits_for_a_partition(held):
    owned, taken = [], []
    held.can_begin = lambda: bool(owned)
    assert held.for_partition(Invite(), lambda: taken.append(len(owned)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert taken == []
    owned.append(3)
    await ended(held)
    assert taken == [1]


async def test_it_does_not_wait_for_ever(held, monkeypatch):
    monkeypatch.setattr(held_invites, "HOLD_S", 0.02)
    held.can_begin = lambda: False
    taken = []
    assert held.for_partition(Invite(), lambda: taken.append(1))
    await ended(held)
    assert taken == [1]  # it is refused where it always was


async def test_a_call_that_was_cancelled_is_not_taken(held):
    held.can_begin = lambda: False
    invite, taken = Invite(), []
    assert held.for_partition(invite, lambda: taken.append(1))
    invite.answered = True
    await ended(held)
    assert taken == []


async def test_only_so_many_are_held(held, monkeypatch):
    monkeypatch.setattr(held_invites, "MAX_HELD", 2)
    held.can_begin = lambda: False
    invites = [Invite() for _ in range(3)]
    assert [held.for_partition(invite, lambda: None) for invite in invites] == [True, True, False]
    for invite in invites:
        invite.answered = True
    await ended(held)


async def test_a_number_is_looked_for_where_somebody_looks(held):
    taken, looked = [], []
    assert not held.for_number(Invite(), "+12025550100", lambda: taken.append(1))

    async def look(number):
        looked.append(number)

    held.look = look
    assert held.for_number(Invite(), "+12025550100", lambda: taken.append(1))
    await ended(held)
    assert (looked, taken) == (["+12025550100"], [1])


async def test_what_fails_later_is_answered(held):
    def fails():
        raise RuntimeError("the test says so")

    invite = Invite()
    held.can_begin = lambda: True
    assert held.for_partition(invite, fails)
    await ended(held)
    assert invite.status == 500
