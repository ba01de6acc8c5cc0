"""Cutting the byte stream into PDUs."""

from typing import Final

from trunkline.smpp.codec import HEADER
from trunkline.smpp.constants import HEADER_OCTETS, MAX_PDU_OCTETS
from trunkline.smpp.errors import FrameError

Frame = tuple[int, int, int, bytes, int, int]
"""command_id, command_status, sequence_number, buffer, start and end of the body in it."""

_unpack: Final = HEADER.unpack_from


class Framer:
    """Feed it bytes in any pieces; it returns the whole PDUs and holds back at most one incomplete one."""

    __slots__ = ("_held", "_pieces", "_wanted", "limit")

    def __init__(self, limit: int = MAX_PDU_OCTETS) -> None:
        self.limit = limit  # octets of one PDU; may be changed between feeds
        self._pieces: list[bytes] = []
        self._held = 0  # octets in _pieces
        self._wanted = HEADER_OCTETS  # octets before anything more can be said

    @property
    def rest(self) -> bytes:
        """What it holds back: fed to another framer it has the same meaning."""
        return b"".join(self._pieces)

    def feed(self, data: bytes) -> tuple[list[Frame], FrameError | None]:
        """The PDUs completed by `data`, and the error that ends the stream when a command_length is not
        between 16 and the limit. PDUs before the bad one are returned beside it."""
        if self._pieces:
            # Joined only when a PDU can be complete, so that a slow trickle does not cost quadratic time.
            self._pieces.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return [], None
            data = b"".join(self._pieces)
            self._pieces.clear()
        frames: list[Frame] = []
        at, size = 0, len(data)
        self._wanted = HEADER_OCTETS
        while size - at >= HEADER_OCTETS:
            length, command_id, status, sequence = _unpack(data, at)
            if not HEADER_OCTETS <= length <= self.limit:
                return frames, FrameError(f"command_length {length}", sequence)
            end = at + length
            if end > size:
                self._wanted = length
                break
            frames.append((command_id, status, sequence, data, at + HEADER_OCTETS, end))
            at = end
        if at < size:
            self._pieces.append(data[at:] if at else data)
        self._held = size - at
        return frames, None
