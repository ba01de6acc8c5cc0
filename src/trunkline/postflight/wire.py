"""What the archive and its worker processes say to each other over a socket pair.

A frame is a 4-byte big-endian length and a MessagePack object. Requests carry an id that their reply repeats; replies
may come in any order.
"""

from typing import Any

import msgspec

from trunkline.storage.objects import Location

MAX_FRAME = 256 * 1024 * 1024
"""Bytes of one frame; a peer that sends more is ended."""
HEADER = 4
"""Bytes of the length."""


class Setup(msgspec.Struct):
    """What a worker process is told first, as JSON: it may hold passwords, so it is on no command line."""

    role: str
    """`read`, `analysis` or `roll`."""
    folder: str
    """The segments folder."""
    reader: str
    """`module:function` that opens the recent store for reading."""
    location: str
    """That function's argument."""
    memory_bytes: int = 1 << 30
    """For analyses."""
    query_rows: int = 100_000
    """Rows that a query may return."""
    objects: Location | None = None
    """Where the segments are; None: in `folder` alone, which else is a cache of them."""
    cache_bytes: int = 1 << 40


class Request(msgspec.Struct, array_like=True):
    id: int
    op: str
    args: dict[str, Any]


class Reply(msgspec.Struct, array_like=True):
    id: int
    error: str = ""
    """Empty when it went well; else what to tell the operator."""
    kind: str = ""
    """The exception's class name."""
    result: Any = None


class FrameTooLong(Exception):
    """A frame above MAX_FRAME."""


_encode = msgspec.msgpack.Encoder(decimal_format="string").encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_reply = msgspec.msgpack.Decoder(Reply).decode


def first_frame(setup: Setup) -> bytes:
    """What a worker reads first."""
    body = msgspec.json.encode(setup, enc_hook=str)  # a secret is text
    return len(body).to_bytes(HEADER, "big") + body


def frame(message: Request | Reply) -> bytes:
    """The message as a frame. Raises FrameTooLong."""
    body = _encode(message)
    if len(body) > MAX_FRAME:
        raise FrameTooLong(f"{len(body)} bytes")
    return len(body).to_bytes(HEADER, "big") + body
