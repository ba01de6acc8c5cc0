"""Frames of the media control protocol: 4 bytes length, then one MessagePack map (trunkline.media.protocol)."""

from typing import Final

import msgspec

from trunkline.media import protocol

HEADER_BYTES: Final = 4

_encode: Final = msgspec.msgpack.Encoder().encode
decode_command: Final = msgspec.msgpack.Decoder(protocol.Command).decode
decode_event: Final = msgspec.msgpack.Decoder(protocol.Event).decode


class FrameTooLong(Exception):
    """A frame beyond protocol.MAX_FRAME: the stream cannot be read on."""


class Numbered(msgspec.Struct):
    """What can be read of a command that is not understood."""

    n: int = 0
    t: str = ""


decode_numbered: Final = msgspec.msgpack.Decoder(Numbered).decode


def frame(message: msgspec.Struct) -> bytes:
    """A message as it goes over the wire. Raises FrameTooLong."""
    body = _encode(message)
    if len(body) > protocol.MAX_FRAME:
        raise FrameTooLong(f"{len(body)} bytes")
    return len(body).to_bytes(HEADER_BYTES, "big") + body


class Deframer:
    """Cuts a byte stream into frames' bodies; holds back at most one incomplete frame beside what was fed."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> None:
        if self._at:
            del self._data[: self._at]
            self._at = 0
        self._data += data

    @property
    def held(self) -> int:
        """Bytes fed and not yet given out."""
        return len(self._data) - self._at

    def next(self) -> bytes | None:
        """The next whole body; None when there is none. Raises FrameTooLong."""
        at = self._at
        if len(self._data) - at < HEADER_BYTES:
            return None
        length = int.from_bytes(self._data[at : at + HEADER_BYTES], "big")
        if length > protocol.MAX_FRAME:
            raise FrameTooLong(f"{length} bytes")
        end = at + HEADER_BYTES + length
        if end > len(self._data):
            return None
        self._at = end
        return bytes(self._data[at + HEADER_BYTES : end])
