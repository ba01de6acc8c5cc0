"""Cutting a TCP stream into messages (RFC 3261 section 18.3) and CRLF keep-alives (RFC 5626 section 3.5.1)."""

from __future__ import annotations

from typing import Final

from trunkline.sip.errors import MalformedMessage
from trunkline.sip.message import (
    MAX_HEAD_BYTES,
    MAX_MESSAGE_BYTES,
    Request,
    Response,
    content_length,
    find_head_end,
    parse_head,
)


class Keepalive:
    """A double CRLF: answer it with PONG."""

    def __repr__(self) -> str:
        return "KEEPALIVE"


KEEPALIVE: Final = Keepalive()
PING: Final = b"\r\n\r\n"
PONG: Final = b"\r\n"

Item = Request | Response | MalformedMessage | Keepalive


class StreamParser:
    """Feed it bytes in any pieces; it returns what is whole and holds back less than `max_bytes`.

    A MalformedMessage is returned, not raised. After one that leaves no way to find the next message, `failed` is
    true and everything else that comes is dropped: answer the error if it has a `partial`, then close the connection.
    """

    __slots__ = ("_body_at", "_held", "_message", "_scanned", "_wanted", "failed", "max_bytes")

    def __init__(self, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self.max_bytes = max_bytes
        self.failed = False
        self._held = bytearray()
        self._scanned = 0  # bytes of _held that have no end of headers in them
        self._wanted = 0  # bytes of _held that make the whole message, once its headers are read
        self._body_at = 0
        self._message: Request | Response | MalformedMessage | None = None

    @property
    def held(self) -> int:
        """Bytes of an incomplete message."""
        return len(self._held)

    @property
    def rest(self) -> bytes:
        """Those bytes: fed to another parser they have the same meaning."""
        return bytes(self._held)

    def feed(self, data: bytes) -> list[Item]:
        """What `data` completes, in order; at most one KEEPALIVE."""
        items: list[Item] = []
        if self.failed:
            return items
        self._held += data
        pinged = False
        while self._held:
            if self._message is None:
                pinged |= self._skip_line_ends()
                error = self._read_head()
                if error is not None:
                    items.append(error)
                    self.failed = True
                    self._held.clear()
                    break
            if self._message is None or len(self._held) < self._wanted:
                break
            items.append(self._take(self._message))
        if pinged:
            items.append(KEEPALIVE)
        return items

    def _skip_line_ends(self) -> bool:
        """Drop CRLFs between messages; whether two of them came together. Half a ping is kept."""
        held = self._held
        if held[0] not in PING:
            return False
        rest = held.lstrip(b"\r\n")
        size = len(held) - len(rest)
        if not rest and size < len(PING) and PING.startswith(held):
            return False
        pinged = held[:size].startswith(PING)
        del held[:size]
        self._scanned = 0
        return pinged

    def _read_head(self) -> MalformedMessage | None:
        """Read the headers of the next message if they are there; the error after which no message can be found."""
        held = self._held
        end, body_at = find_head_end(held, max(0, self._scanned - 3))
        if end < 0:
            self._scanned = len(held)
            too_long = len(held) > min(MAX_HEAD_BYTES, self.max_bytes)
            return MalformedMessage(513, "Message Too Large") if too_long else None
        message: Request | Response | MalformedMessage
        try:
            message = parse_head(bytes(held[:end]))
            partial = message if isinstance(message, Request) else None
            length = content_length(message)
        except MalformedMessage as error:
            # A copy: one that was raised knows this frame, and the two would wait for the garbage collector.
            message = MalformedMessage(error.status, error.reason, error.partial)
            partial, length = error.partial, _length_despite(error)
        if length is None:
            return message if isinstance(message, MalformedMessage) else _no_length(partial)
        if body_at + length > self.max_bytes:
            return MalformedMessage(513, "Message Too Large", partial)
        self._message, self._body_at, self._wanted = message, body_at, body_at + length
        return None

    def _take(self, message: Request | Response | MalformedMessage) -> Item:
        held = self._held
        if not isinstance(message, MalformedMessage):
            message.body = bytes(held[self._body_at : self._wanted])
        del held[: self._wanted]
        self._message, self._scanned, self._wanted = None, 0, 0
        return message


def _no_length(partial: Request | None) -> MalformedMessage:
    return MalformedMessage(400, "No Content-Length", partial)


def _length_despite(error: MalformedMessage) -> int | None:
    """The Content-Length of a message that is malformed otherwise, if there is exactly one that can be read."""
    if error.partial is None or len(error.partial.headers.all("content-length")) != 1:
        return None
    try:
        return content_length(error.partial)
    except MalformedMessage:
        return None
