"""The customer's web server: takes callbacks, counts final ones by the key in their URL (`?k=KEY`), keeps samples."""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, cast
from urllib.parse import parse_qsl

import httptools

SAMPLE_EVERY = 50
MAX_SAMPLES = 400
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n"


class Sample(NamedTuple):
    """One callback, as it came."""

    url: bytes
    """Path and query."""
    body: bytes
    signature: str

    def form(self) -> dict[str, str]:
        """Its parameters."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


class Sink:
    """`final(url, body)` tells whether a callback is the last one of its message."""

    def __init__(self, final: Callable[[bytes, bytes], bool]) -> None:
        self._is_final = final
        self.final: dict[str, int] = {}
        """Key -> when its first final callback came, CLOCK_MONOTONIC ns."""
        self.repeated = 0
        """Final callbacks beyond the first of their key."""
        self.total = 0
        self.without_key = 0
        self.samples: list[Sample] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self.peers: set[_Peer] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "Sink":
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Peer(self), "127.0.0.1", 0, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for peer in list(self.peers):
            peer.transport.abort()
        await asyncio.sleep(0)

    def forget(self) -> None:
        """Start anew."""
        self.final.clear()
        self.samples.clear()
        self.repeated = self.total = self.without_key = 0

    def take(self, url: bytes, body: bytes, signature: str) -> None:
        """Count one callback."""
        self.total += 1
        if self.total % SAMPLE_EVERY == 1 and len(self.samples) < MAX_SAMPLES:
            self.samples.append(Sample(url, body, signature))
        _, found, rest = url.partition(b"k=")
        if not found:
            self.without_key += 1
        elif self._is_final(url, body):
            key = rest.partition(b"&")[0].decode("latin-1")
            if key in self.final:
                self.repeated += 1
            else:
                self.final[key] = time.monotonic_ns()


class _Peer(asyncio.Protocol):
    """One connection of the system under test."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._url = self._body = b""
        self._signature = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._parser = httptools.HttpRequestParser(self)
        self._sink.peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sink.peers.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def on_message_begin(self) -> None:
        self._url = self._body = b""
        self._signature = ""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-twilio-signature":
            self._signature = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._sink.take(self._url, self._body, self._signature)
        self.transport.write(ANSWER)
        if not self._parser.should_keep_alive():
            self.transport.close()
