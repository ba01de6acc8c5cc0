"""What the messaging tests share."""

import pytest

from trunkline.storage.engines.sqlite.database import SqliteDatabase
from trunkline.storage.secrets import Secrets

from .world import MovableClock, World


class StandingClock:
    """Moves only when told."""

    def __init__(self):
        self.ms = 1_700_000_000_000

    def now_ms(self):
        return self.ms

    def monotonic(self):
        return self.ms / 1000


@pytest.fixture
def clock():
    return StandingClock()


@pytest.fixture
def secrets():
    return Secrets([b"k" * 32])


@pytest.fixture
async def database(tmp_path, clock, secrets):
    database = SqliteDatabase(tmp_path / "control.db", clock, secrets)
    yield database
    await database.close()


@pytest.fixture
async def make_world(tmp_path, secrets):
    """Makes a World; all are stopped at the end."""
    clock = MovableClock()
    database = SqliteDatabase(tmp_path / "world.db", clock, secrets)
    worlds = []

    async def make(settings=None, carriers=None, **number):
        world = World(tmp_path, database, clock, settings, carriers)
        await world.start()
        worlds.append(world)
        await world.give_account()
        await world.give_number(**number)
        return world

    yield make
    for world in worlds:
        await world.stop()
    await database.close()


@pytest.fixture
async def world(make_world):
    return await make_world()
