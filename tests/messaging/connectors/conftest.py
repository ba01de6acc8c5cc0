"""Fixtures of the SMPP connector's tests."""

from typing import Any

import pytest

from tests.messaging.connectors.smpp_rig import SmppRig
from tests.messaging.connectors.smsc import Smsc


@pytest.fixture
async def smsc():
    smsc = await Smsc().start()
    yield smsc
    await smsc.stop()


@pytest.fixture
async def rig_of(smsc):
    made: list[SmppRig] = []

    async def start(**settings: Any) -> SmppRig:
        made.append(SmppRig(smsc, **settings))
        return await made[-1].start()

    yield start
    for rig in made:
        await rig.connector.stop(0.05)
