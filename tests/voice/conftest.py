"""A voice side in memory for each test that asks for it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.voice.hosts import hosts, make_hosts  # noqa: F401 (fixtures)
from tests.voice.lines import lines, make_lines, tls  # noqa: F401 (fixtures)
from tests.voice.world import World, world


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made
