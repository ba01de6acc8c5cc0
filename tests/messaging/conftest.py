"""What the messaging tests share."""

import pytest

from trunkline.storage.engines.sqlite.database import SqliteDatabase
from trunkline.storage.secrets import Secrets


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
