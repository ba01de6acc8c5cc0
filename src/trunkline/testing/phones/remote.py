"""The node's side of the phones' process: started when there is none, found again when the node died, asked, stopped.

The process outlives a node that crashes by `process.ORPHAN_S`, so that the phones' calls go on: the next node finds it
by the note in the data folder. Nothing here needs NumPy.
"""

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from trunkline.settings import Settings
from trunkline.testing.phones import wire

NOTE: Final = "phones.json"
"""In the data folder: `wire.Ready` of the process."""
START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 5.0
ASK_TIMEOUT_S: Final = 15.0
MAX_WAITING: Final = 1000
"""Requests under way; more get 503."""
MAX_LINE: Final = 4096

log = logging.getLogger(__name__)


class CannotStart(Exception):
    """The phones' process did not start; the text says why."""


class Phones:
    """The phones, from the node. Made by `start`."""

    def __init__(self, ready: wire.Ready, note: Path, process: asyncio.subprocess.Process | None) -> None:
        self.ready = ready
        self._note = note
        self._process = process
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[wire.Reply]] = {}
        self._asked = 0

    @classmethod
    async def start(cls, folder: Path, *, host: str = "127.0.0.1", engine: str = "auto") -> "Phones":
        """The process that runs already for this data folder, or a new one. Raises CannotStart."""
        note = folder / NOTE
        found = _noted(note)
        if found is not None:
            phones = cls(found, note, None)
            with contextlib.suppress(OSError):
                await phones._connect()
                return phones
        phones = cls(*await _launch(note, host, engine))
        try:
            await phones._connect()
        except OSError as error:
            raise CannotStart(f"the simulated phones cannot be reached: {error}") from None
        return phones

    @property
    def gateway(self) -> str:
        """The SIP URI that calls to phones go to."""
        host = self.ready.host
        return f"sip:{f'[{host}]' if ':' in host else host}:{self.ready.sip_port}"

    async def point_at(self, platform: wire.Platform) -> None:
        """Tell where phones call to. Raises CannotStart."""
        reply = await self.ask("POST", wire.PLATFORM, body=msgspec.json.encode(platform))
        if reply.status != 200:
            raise CannotStart(f"the simulated phones do not listen: {reply.body!r}")

    async def ask(self, method: str, path: str, query: dict[str, str] | None = None, body: bytes = b"") -> wire.Reply:
        """Pass a request on. Never raises: what cannot be answered is 503."""
        if self._writer is None or len(self._waiting) >= MAX_WAITING:
            return _unavailable("the simulated phones are not there")
        self._asked += 1
        request = wire.Request(id=self._asked, method=method, path=path, query=query or {}, body=body)
        future: asyncio.Future[wire.Reply] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = future
        try:
            self._writer.write(wire.frame(request))
            return await asyncio.wait_for(future, ASK_TIMEOUT_S)
        except TimeoutError:
            return _unavailable("the simulated phones do not answer")
        finally:
            self._waiting.pop(request.id, None)

    async def stop(self) -> None:
        """Hang up all calls and end the process."""
        if self._writer is not None:
            await self.ask("POST", wire.STOP)
        await self.detach()
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._note.unlink(missing_ok=True)

    async def detach(self) -> None:
        """Leave the process to the next node."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _connect(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(self.ready.control)
        self._reading = asyncio.get_running_loop().create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                reply = wire.decode_reply(await wire.read(reader))
                future = self._waiting.get(reply.id)
                if future is not None and not future.done():
                    future.set_result(reply)
        except (OSError, msgspec.DecodeError) as error:
            log.warning("the simulated phones are gone: %s", error)
            writer, self._writer = self._writer, None
            if writer is not None:
                writer.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_result(_unavailable("the simulated phones are gone"))


def with_phones(settings: Settings, phones: Phones) -> Settings:
    """The settings with the simulated trunks leading to the phones, and taking what comes from their address."""
    trunks = tuple(
        msgspec.structs.replace(
            trunk,
            gateways=trunk.gateways or (phones.gateway,),
            addresses=trunk.addresses or (() if trunk.username else (phones.ready.host,)),
        )
        if trunk.simulated
        else trunk
        for trunk in settings.trunks
    )
    return msgspec.structs.replace(settings, trunks=trunks)


def wanted(settings: Settings) -> bool:
    """Whether the settings ask for phones."""
    return settings.sip.enabled and not settings.rules.strict and any(trunk.simulated for trunk in settings.trunks)


def host(settings: Settings) -> str:
    """The address of the phones: the SIP listener's, where it is one."""
    return settings.sip.host if settings.sip.host not in ("0.0.0.0", "::", "") else "127.0.0.1"  # noqa: S104


def platform(settings: Settings, sip_port: int) -> wire.Platform:
    """What the phones are told of the SIP listener."""
    trunk = next((one for one in settings.trunks if one.simulated), None)
    login = (trunk.username, str(trunk.password)) if trunk else ("", "")
    return wire.Platform(host=host(settings), port=sip_port, username=login[0], password=login[1])


def _noted(note: Path) -> wire.Ready | None:
    try:
        return msgspec.json.decode(note.read_bytes(), type=wire.Ready)
    except (OSError, msgspec.DecodeError):
        return None


async def _launch(note: Path, host: str, engine: str) -> tuple[wire.Ready, Path, asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "trunkline.testing.phones", "--host", host, "--engine", engine,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, start_new_session=True, limit=MAX_LINE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), START_TIMEOUT_S)
        ready = msgspec.json.decode(line, type=wire.Ready)
    except (TimeoutError, ValueError) as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise CannotStart(f"the simulated phones did not start: {error}") from None
    draft = note.with_name(f"{note.name}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(descriptor, msgspec.json.encode(ready))
    finally:
        os.close(descriptor)
    draft.replace(note)
    return ready, note, process


def _unavailable(text: str) -> wire.Reply:
    return wire.Reply(id=0, status=503, content_type="application/json", body=msgspec.json.encode({"message": text}))
