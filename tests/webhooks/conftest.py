"""The client's tests run on both event loops: uvloop in production, asyncio where it is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from .rig import QUICK, Rig


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.path.name in ("test_http.py", "test_fetch.py"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def rig_of(tmp_path):
    rigs = []

    async def make(settings=QUICK):
        rig = Rig(tmp_path / "queue.db", settings)
        await rig.start()
        rigs.append(rig)
        return rig

    yield make
    for rig in rigs:
        await rig.delivery.stop(5)
        await rig.queue.close()
