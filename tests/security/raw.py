"""A socket that sends what no HTTP client would."""

import base64
import contextlib
import socket
import time
from types import TracebackType
from typing import NamedTuple

PATIENCE_S = 60.0


class Reply(NamedTuple):
    """What came back. `status` is 0 when nothing did."""

    status: int
    head: bytes
    body: bytes
    closed: bool
    """Whether the server ended the connection."""


class Raw:
    """One connection to 127.0.0.1, from an address of the loopback net."""

    def __init__(self, port: int, source: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S, (source, 0))
        self._buffer = b""
        self.closed = False

    def __enter__(self) -> "Raw":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Whether all of it went out (the server may have closed)."""
        try:
            self._socket.sendall(data)
        except OSError:
            return False
        return True

    def _more(self, until: float) -> bool:
        self._socket.settimeout(max(0.01, until - time.monotonic()))
        try:
            data = self._socket.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            data = b""
        self._buffer += data
        self.closed = self.closed or not data
        return bool(data)

    def reply(self, patience_s: float = PATIENCE_S) -> Reply:
        """The next whole response."""
        until = time.monotonic() + patience_s
        while b"\r\n\r\n" not in self._buffer:
            if not self._more(until):
                return Reply(0, b"", self._buffer, self.closed)
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(rest) < length and self._more(until):
            rest = self._buffer.partition(b"\r\n\r\n")[2]
        self._buffer = rest[length:]
        return Reply(int(head.split(b" ", 2)[1]), head, rest[:length], self.closed)

    def ended(self, patience_s: float = PATIENCE_S) -> bool:
        """Whether the server closes within the time; what it says before is read away."""
        until = time.monotonic() + patience_s
        while not self.closed and self._more(until):
            self._buffer = b""
        return self.closed

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._socket.close()


def basic(sid: str, token: str) -> bytes:
    """An Authorization header line."""
    return b"Authorization: Basic " + base64.b64encode(f"{sid}:{token}".encode()) + b"\r\n"


def request(method: str, path: str, headers: bytes = b"", body: bytes = b"") -> bytes:
    """An ordinary HTTP/1.1 request."""
    length = b"Content-Length: %d\r\n" % len(body) if body or method == "POST" else b""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n".encode("latin-1") + headers + length + b"\r\n" + body
