"""TCP connections of SIP peers that one process hands to the next."""

import asyncio
import os
import socket

import pytest

from tests.sip.test_transport import Node, nodes, options, responses, until  # noqa: F401  (fixture)
from trunkline.sip.transport_handover import adopt, let_go


async def hand(old, new):
    """All that can be passed on; how many."""
    found = list(let_go(old.transport))
    for number, state in found:
        await adopt(new.transport, socket.socket(fileno=number), state)
    return len(found)


async def test_a_connection_that_came_in_goes_on_with_its_number(nodes):  # noqa: F811
    old, new = await nodes(), await nodes()
    reader, writer = await asyncio.open_connection("127.0.0.1", old.port)
    writer.write(options(1))
    assert (await responses(reader, 1))[0].startswith(b"SIP/2.0 200")
    (before,) = old.transport.established()
    assert await hand(old, new) == 1
    assert (old.transport.connections, new.transport.connections) == (0, 1)
    (after,) = new.transport.established()
    assert after.flow.id == before.flow.id
    assert after.flow.remote == before.flow.remote
    await old.transport.close()
    writer.write(options(2))
    assert (await responses(reader, 1))[0].startswith(b"SIP/2.0 200")
    assert not after.overdue(asyncio.get_running_loop().time() + 60), "it has proved itself before"
    assert new.transport._send(b"\r\n", before.flow), "a flow that was stored leads to it"
    writer.close()
    await until(lambda: new.transport.connections == 0)


async def test_a_message_that_is_half_there_is_answered_by_the_next(nodes):  # noqa: F811
    old, new = await nodes(), await nodes()
    reader, writer = await asyncio.open_connection("127.0.0.1", old.port)
    whole = options(1, extra="Content-Type: text/plain\r\n", body="0123456789")
    writer.write(whole[:-5])
    await until(lambda: any(one.rest for one in old.transport.established()))
    assert await hand(old, new) == 1
    writer.write(whole[-5:])
    assert (await responses(reader, 1))[0].startswith(b"SIP/2.0 200")
    writer.close()


async def test_a_connection_that_we_made_is_used_for_its_target_again(nodes):  # noqa: F811
    peer, old, new = await nodes(), await nodes(), await nodes()
    first = old.call(peer.port, "TCP")
    await until(lambda: len(peer.dialogs) == 1 and first.invite is not None and peer.transport.connections == 1)
    await until(lambda: old.transport.connections == 1)
    assert await hand(old, new) == 1
    new.call(peer.port, "TCP")
    await until(lambda: len(peer.dialogs) == 2)
    assert peer.transport.connections == 1, "no second one was made"


async def test_a_state_that_is_none_is_refused(nodes):  # noqa: F811
    node = await nodes()
    ours, theirs = socket.socketpair()
    with pytest.raises(ValueError, match="Expected"):
        await adopt(node.transport, ours, b"\x01")
    assert os.fstat(ours.fileno())
    ours.close()
    theirs.close()
