"""What waits for a carrier that is down goes out by another."""

import pytest

from trunkline.messaging.failover import CHECK_S, DOWN_AFTER_S, Failover
from trunkline.settings import Route, Settings

from .world import Carrier


class Watched(Carrier):
    def health(self):
        return not self.down, "scripted"


ROUTES = (
    Route(name="first", connector="one", priority=2),
    Route(name="second", connector="two", priority=1),
)


@pytest.fixture
async def rig(make_world):
    carriers = {"one": Watched("one"), "two": Watched("two")}
    world = await make_world(Settings(routes=ROUTES), carriers, messages_per_second=1e5)
    world.carriers["one"].down = True
    return world, Failover(world.inflight, world.outbound, world.carriers)


async def test_short_interruption_moves_nothing(rig):
    world, failover = rig
    message = await world.send()
    assert await failover.check(0.0) == 0
    assert await failover.check(DOWN_AFTER_S - CHECK_S) == 0
    assert await world.status(message) == "queued"


async def test_waiting_messages_leave_by_the_other_carrier_once(rig):
    world, failover = rig
    messages = [await world.send(f"n {i}") for i in range(5)]
    await failover.check(0.0)
    assert await failover.check(DOWN_AFTER_S) == 5
    for message in messages:
        sent = await world.until(message, "sent")
        assert (sent.connector, sent.route) == ("two", "second")
    assert len(world.carriers["two"].taken) == 5
    world.carriers["one"].down = False
    await failover.check(DOWN_AFTER_S + 1)
    world.dispatcher.wake("one")
    assert world.carriers["one"].taken == []


async def test_new_messages_avoid_a_carrier_that_is_down_and_return_when_it_is_back(rig):
    world, failover = rig
    await failover.check(0.0)
    await failover.check(DOWN_AFTER_S)
    assert (await world.send()).connector == "two"
    world.carriers["one"].down = False
    await failover.check(DOWN_AFTER_S + 1)
    assert (await world.send()).connector == "one"


async def test_message_of_a_number_bound_to_the_carrier_waits(rig):
    world, failover = rig
    bound = await world.give_number("+12025550101", connector="one", messages_per_second=1e5)
    message = await world.send(from_=bound.phone_number)
    await failover.check(0.0)
    assert await failover.check(DOWN_AFTER_S) == 0
    assert await world.status(message) == "queued"
