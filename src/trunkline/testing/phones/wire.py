"""What a node and the phones' process say to each other over a Unix socket.

Frames: 4 bytes length (big endian, at most MAX_FRAME), then one MessagePack map.
"""

import asyncio
from typing import Final

import msgspec

HEADER: Final = 4
MAX_FRAME: Final = 64 * 1024 * 1024
"""Bytes: the longest recording that is kept of a call, and some."""
PLATFORM: Final = "_platform"
"""Path of what only the node asks for: where calls go to (`Platform`)."""
STOP: Final = "_stop"
"""Path that ends the process."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """As it came to the simulator; `path` begins after `/_simulator/`."""

    id: int
    method: str
    path: str
    query: dict[str, str] = {}
    body: bytes = b""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the request with this number."""

    id: int
    status: int
    content_type: str
    body: bytes


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """Body of PLATFORM: Trunkline's SIP listener, and how phones log in there."""

    host: str
    port: int
    username: str = ""
    password: str = ""


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What the process prints when it serves, as one line of JSON."""

    pid: int
    host: str
    sip_port: int
    control: str
    """Path of the Unix socket."""


_encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def frame(message: Request | Reply) -> bytes:
    """The octets of one message."""
    body = _encode(message)
    return len(body).to_bytes(HEADER, "big") + body


async def read(reader: asyncio.StreamReader) -> bytes:
    """The next message's octets. Raises ConnectionError when there are none, or too many."""
    try:
        length = int.from_bytes(await reader.readexactly(HEADER), "big")
        if length > MAX_FRAME:
            raise ConnectionError(f"a message of {length} bytes")
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("the connection ended") from error
