"""The phones' process: an exchange, its control surface on a Unix socket, and an end when nobody needs it any more."""

import asyncio
import contextlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from trunkline.testing.phones import wire
from trunkline.testing.phones.audio import SpeechStudio
from trunkline.testing.phones.control import Control
from trunkline.testing.phones.exchange import PhoneExchange

ORPHAN_S: Final = 30.0
"""How long the process goes on without a node, which may be starting again."""
MAX_ASKED: Final = 1000
"""Requests of one connection that are worked on at once."""

log = logging.getLogger(__name__)
_platform = msgspec.json.Decoder(wire.Platform)


class Server:
    """See the module."""

    def __init__(self, exchange: PhoneExchange, control: Control) -> None:
        self._exchange = exchange
        self._control = control
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._orphaned: asyncio.TimerHandle | None = None
        self.ended = asyncio.Event()

    async def start(self, path: str) -> asyncio.Server:
        """Listen on a Unix socket."""
        self._alone()
        return await asyncio.start_unix_server(self._serve, path)

    def _alone(self) -> None:
        self._orphaned = asyncio.get_running_loop().call_later(ORPHAN_S, self.ended.set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        if self._orphaned is not None:
            self._orphaned.cancel()
            self._orphaned = None
        with contextlib.suppress(OSError, msgspec.DecodeError, asyncio.CancelledError):  # cancelled: the process ends
            while True:
                request = wire.decode_request(await wire.read(reader))
                if len(self._tasks) >= MAX_ASKED:
                    _write(writer, wire.Reply(id=request.id, status=503, content_type="text/plain", body=b"not now"))
                    continue
                task = asyncio.get_running_loop().create_task(self._answer(request, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        writer.close()
        self._connections -= 1
        if not self._connections:
            self._alone()

    async def _answer(self, request: wire.Request, writer: asyncio.StreamWriter) -> None:
        if request.path == wire.PLATFORM:
            status, content_type, body = self._point(request.body)
        elif request.path == wire.STOP:
            status, content_type, body = 200, "text/plain", b"OK"
            self.ended.set()
        else:
            status, content_type, body = await self._control.handle(
                request.method, request.path, request.query, request.body
            )
        _write(writer, wire.Reply(id=request.id, status=status, content_type=content_type, body=body))

    def _point(self, body: bytes) -> tuple[int, str, bytes]:
        try:
            platform = _platform.decode(body)
        except msgspec.DecodeError as error:
            return 400, "text/plain", str(error).encode()
        self._exchange.platform = (platform.host, platform.port)
        self._exchange.credentials = (platform.username, platform.password) if platform.username else None
        return 200, "text/plain", b"OK"


def _write(writer: asyncio.StreamWriter, reply: wire.Reply) -> None:
    if not writer.is_closing():
        writer.write(wire.frame(reply))


async def run(host: str, port: int, engine: str, ended: asyncio.Event | None = None) -> None:
    """Serve until told to stop, or left alone. Prints `wire.Ready` when ready."""
    exchange, studio = PhoneExchange(host), SpeechStudio(engine)
    server = Server(exchange, Control(exchange, studio))
    server.ended = ended or server.ended
    await exchange.start(port)
    try:
        with tempfile.TemporaryDirectory(prefix="trunkline-phones-") as folder:
            control = str(Path(folder) / "control")
            listener = await server.start(control)
            ready = wire.Ready(pid=os.getpid(), host=host, sip_port=exchange.port, control=control)
            print(msgspec.json.encode(ready).decode(), flush=True)  # noqa: T201 - read by whoever started it
            await server.ended.wait()
            await asyncio.sleep(0)  # the answer to STOP goes out
            listener.close()
    finally:
        await exchange.stop()
        await studio.close()
