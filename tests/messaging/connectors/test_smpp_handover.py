"""A carrier's binds that one process leaves to the next: the SMSC notices nothing."""

import asyncio
import socket

import pytest

from tests.messaging.connectors.smpp_rig import SmppRig
from trunkline.messaging.connectors.base import Submitted
from trunkline.smpp.errors import ConnectError
from trunkline.smpp.transport import Handler, resume


async def follow(smsc, rig, **settings):
    """Another process's connector, given what the first has left."""
    left = await rig.connector.let_go(30.0)
    after = SmppRig(smsc, **settings)
    for mark, number, state in left:
        after.connector.take(mark, socket.socket(fileno=number), state)
    return await after.start(), len(left)


@pytest.mark.parametrize("bind", ["trx", "tx+rx"])
async def test_the_next_process_goes_on_with_the_same_binds(smsc, rig_of, bind):
    before = await rig_of(bind=bind, binds=2)
    count = len(smsc.binds)
    assert isinstance(await before.outcome(), Submitted)
    after, left = await follow(smsc, before, bind=bind, binds=2)
    assert left == count
    assert isinstance(await after.outcome(), Submitted)
    assert await after.inbound("to the next")
    assert await after.receipt("id-1")
    assert (len(smsc.binds), len(smsc.bound)) == (count, count), "nobody has bound or unbound"
    assert (len(after.sink.parts), len(after.sink.receipts), len(before.sink.receipts)) == (1, 1, 0)
    await after.connector.stop(0.05)


async def test_a_receipt_between_the_two_is_the_nexts(smsc, rig_of):
    before = await rig_of()
    left = await before.connector.let_go(30.0)
    waiting = asyncio.ensure_future(smsc.receipt("id-9"))
    after = SmppRig(smsc)
    ((mark, number, state),) = left
    after.connector.take(mark, socket.socket(fileno=number), state)
    await after.start()
    assert await waiting == 0
    assert (len(before.sink.receipts), len(after.sink.receipts)) == (0, 1)
    await after.connector.stop(0.05)


async def test_other_settings_bind_anew(smsc, rig_of):
    before = await rig_of()
    after, left = await follow(smsc, before, system_id="another")
    assert left == 1
    await smsc.until(lambda: len(smsc.bound) == 1)
    assert [bind.system_id for bind in smsc.binds] == ["trunk", "another"]
    await after.connector.stop(0.05)


async def test_an_answer_that_does_not_come_unbinds(smsc, rig_of):
    rig = await rig_of()
    rig.treat("hold")
    rig.submit()
    await rig.reached()
    assert await rig.connector.let_go(0.05) == []
    await smsc.until(lambda: not smsc.bound)


async def test_a_state_that_is_none_is_refused():
    ours, theirs = socket.socketpair()
    with pytest.raises(ConnectError, match="cannot be gone on with"):
        await resume(ours, b"\x01", Handler())
    assert (ours.fileno(), theirs.recv(1)) == (-1, b"")
    theirs.close()
