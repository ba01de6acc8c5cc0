"""TCP connections that one process hands to the next (trunkline.bootstrap_handover): descriptors, and what is known.

A connection keeps its number, so that flows that were stored lead to it as before. TLS cannot be passed on: its keys
are OpenSSL's.
"""

import asyncio
import socket
from collections.abc import Iterator
from typing import cast

import msgspec

from trunkline.sip.flow import Flow
from trunkline.sip.transport import SipTransport
from trunkline.sip.transport_stream import Connection


class Stream(msgspec.Struct, frozen=True, array_like=True):
    """What goes with a connection."""

    id: int
    target: Flow | None
    """The flow that it was made for; None: it came in."""
    rest: bytes
    """What has come of a message that is not whole yet."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Stream).decode


def let_go(sip: SipTransport) -> Iterator[tuple[int, bytes]]:
    """Stop reading from each TCP connection that can be passed on: its descriptor, which is the caller's to close, and
    its state. `sip.close()` is next."""
    for connection in sip.established():
        number = connection.let_go()
        if number >= 0:
            state = _encode(Stream(connection.id, connection.target, connection.rest))
            sip.disown(connection)
            yield number, state


async def adopt(sip: SipTransport, connection: socket.socket, state: bytes) -> None:
    """Go on with a connection of another process. Raises OSError; ValueError when the state is none."""
    try:
        known = _decode(state)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    connection.setblocking(False)

    def make() -> asyncio.Protocol:
        made = Connection(sip, sip.limits.max_message_bytes, known.target)
        made.former, made.before = known.id, known.rest
        return made

    _, protocol = await asyncio.get_running_loop().connect_accepted_socket(make, connection)
    if known.target is not None:
        sip.made(known.target, cast(Connection, protocol))
