"""What a node and its audio and speech workers say to each other.

Frames on a socket pair: 4 bytes length (big endian, at most MAX_FRAME), then one MessagePack map.
"""

from typing import Any, Final

import msgspec

HEADER: Final = 4
MAX_FRAME: Final = 1024 * 1024
"""Bytes of one frame: requests hold texts and paths, never audio."""

AUDIO: Final = "audio"
"""The role that reads audio files and writes MP3."""
SPEECH: Final = "speech"
"""The role that speaks."""


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """How a worker is started."""

    role: str
    memory_bytes: int
    """Most address space it may take."""
    engine: str = "auto"
    """settings.speech.engine."""
    warm: bool = False
    """Whether the speech engine is loaded before the first request."""


class Request(msgspec.Struct, frozen=True):
    id: int
    op: str
    args: dict[str, Any]


class Reply(msgspec.Struct, frozen=True):
    """`kind` is the name of the exception when `error` is not empty."""

    id: int
    result: Any = None
    error: str = ""
    kind: str = ""


_encoder: Final = msgspec.msgpack.Encoder()
decode_request: Final = msgspec.msgpack.Decoder(Request).decode
decode_reply: Final = msgspec.msgpack.Decoder(Reply).decode


def frame(message: Request | Reply) -> bytes:
    """Raises ValueError when it is longer than MAX_FRAME."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise ValueError(f"a message of {len(body)} bytes")
    return len(body).to_bytes(HEADER, "big") + body
