"""The client against a process that the test plays."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.media.helpers import until
from trunkline.media import protocol
from trunkline.media.client import LOW_SLOTS, MediaClient
from trunkline.media.protocol import Digit, Done, Hello, LegState, Open, Ports, Stop
from trunkline.media.wire import Deframer, decode_command, frame


class FakeProcess:
    """Takes commands; tells what it is told to."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.commands: list[Any] = []
        self.pieces: list[bytes] = []
        """What came, as it was written."""
        self.greeting: list[msgspec.Struct] = [Hello(epoch=9), Ports(slots=[(0, 20_000), (1, 20_002)])]
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        deframer = Deframer()
        while data := await reader.read(65_536):
            self.pieces.append(data)
            deframer.feed(data)
            while (body := deframer.next()) is not None:
                command = decode_command(body)
                self.commands.append(command)
                if isinstance(command, protocol.Attach):
                    self.tell(*self.greeting)

    def tell(self, *events: msgspec.Struct) -> None:
        assert self._writer
        self._writer.write(b"".join(map(frame, events)))

    def cut(self) -> None:
        assert self._writer
        self._writer.close()

    async def close(self) -> None:
        if self._writer:
            self._writer.close()
        if self._server:
            self._server.close()
            await self._server.wait_closed()

    @property
    def attached(self) -> int:
        """How often."""
        return sum(isinstance(c, protocol.Attach) for c in self.commands)

    def numbered(self) -> list[tuple[int, str]]:
        """Commands of the latest connection."""
        last = max((i for i, c in enumerate(self.commands) if isinstance(c, protocol.Attach)), default=0)
        return [(c.n, c.leg) for c in self.commands[last:] if c.n]


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[FakeProcess]:
    process = FakeProcess(str(tmp_path / "media.sock"))
    await process.start()
    yield process
    await process.close()


@pytest.fixture
async def client(process: FakeProcess) -> AsyncIterator[MediaClient]:
    client = MediaClient("node-1")
    assert await client.start(process.path)
    yield client
    await client.close()


async def test_it_attaches_and_hands_out_slots(process: FakeProcess, client: MediaClient) -> None:
    assert process.commands[0].node == "node-1"
    assert client.epoch == 9
    assert client.take_slot() == (0, 20_000)
    assert client.take_slot() == (1, 20_002)
    assert client.take_slot() is None
    client.give_back(1)
    client.give_back(1)
    client.give_back(5)
    assert client.take_slot() == (1, 20_002)


async def test_it_tells_how_many_slots_are_taken_when_few_are_left(process: FakeProcess, client: MediaClient) -> None:
    process.tell(Ports(slots=[(number, 30_000 + 2 * number) for number in range(2, LOW_SLOTS + 2)]))
    await until(lambda: client.free_slots == LOW_SLOTS + 2)
    for _ in range(2):
        assert client.take_slot()
    assert client.take_slot()
    await until(lambda: process.commands[-1] == protocol.Taken(count=3))
    assert [one.count for one in process.commands if isinstance(one, protocol.Taken)] == [3]


async def test_commands_are_numbered_from_where_the_process_stands(process: FakeProcess) -> None:
    process.greeting = [Hello(epoch=9, done=40), Ports(slots=[])]
    client = MediaClient()
    client.send(Stop(leg="before"))
    assert await client.start(process.path)
    client.send(Stop(leg="after"))
    await until(lambda: len(process.commands) == 3)
    assert process.numbered() == [(41, "before"), (42, "after")]
    await client.close()


async def test_commands_that_come_together_are_written_together(process: FakeProcess, client: MediaClient) -> None:
    process.pieces.clear()
    for number in range(50):
        client.send(Stop(leg=f"now-{number}"))
    await asyncio.sleep(0)
    client.send(Stop(leg="a moment later"))
    client.send(Stop(leg="and with it"))
    await until(lambda: len(process.numbered()) == 52)
    assert len(process.pieces) <= 2
    assert [number for number, _ in process.numbered()] == list(range(1, 53))
    assert process.numbered()[-1][1] == "and with it"


async def test_what_was_not_done_is_sent_again_after_a_reconnect(process: FakeProcess, client: MediaClient) -> None:
    for leg in "abc":
        client.send(Stop(leg=leg))
    await until(lambda: len(process.numbered()) == 3)
    process.tell(Done(done=1))
    process.greeting = [Hello(epoch=9, done=2), Ports(slots=[(0, 20_000)])]
    process.cut()
    client.send(Stop(leg="d"))
    await until(lambda: process.attached == 2 and len(process.numbered()) == 2)
    assert process.numbered() == [(3, "c"), (4, "d")]


async def test_a_taken_slot_is_not_handed_out_twice_after_a_reconnect(
    process: FakeProcess, client: MediaClient
) -> None:
    assert client.take_slot() == (0, 20_000)
    process.cut()
    await until(lambda: process.attached == 2 and client.available)
    await until(lambda: client.free_slots == 1)
    assert client.take_slot() == (1, 20_002)
    client.send(Open(leg="CA1", slot=0))
    client.give_back(0)
    assert client.take_slot() is None


async def test_events_reach_their_watcher_and_are_confirmed(process: FakeProcess, client: MediaClient) -> None:
    heard: list[Any] = []
    client.watch("CA1", heard.append)
    process.tell(Digit(leg="CA1", digit="1", event=5), Digit(leg="CA2", digit="2", event=6))
    await until(lambda: any(isinstance(c, protocol.Seen) for c in process.commands))
    assert [e.digit for e in heard] == ["1"]
    assert process.commands[-1].event == 6
    client.unwatch("CA1")
    process.tell(Digit(leg="CA1", digit="3", event=7))
    await until(lambda: process.commands[-1].event == 7)
    assert len(heard) == 1
    process.commands.clear()
    process.cut()
    await until(lambda: bool(process.commands))
    assert process.commands[0].last_seen == 7


async def test_a_watcher_that_fails_does_not_stop_the_others(process: FakeProcess, client: MediaClient) -> None:
    def fail(event: protocol.Event) -> None:
        raise ValueError("no")

    heard: list[Any] = []
    client.watch("CA1", fail)
    client.watch("CA2", heard.append)
    process.tell(Digit(leg="CA1", digit="1", event=5), Digit(leg="CA2", digit="2", event=6))
    await until(lambda: bool(heard))


async def test_another_epoch_means_that_legs_were_lost(process: FakeProcess, client: MediaClient) -> None:
    told: list[list[LegState]] = []
    client.on_hello(told.append)
    client.take_slot()
    client.send(Open(leg="CA1", slot=0))
    await until(lambda: process.numbered() == [(1, "CA1")])
    process.commands.clear()
    process.greeting = [Hello(epoch=10), Ports(slots=[(0, 20_000)])]
    process.cut()
    await until(lambda: client.epoch == 10)
    assert client.legs_lost == 1
    assert told == [[]]
    await until(lambda: client.free_slots == 1)
    assert process.numbered() == []


async def test_events_of_a_newer_version_are_passed_over(process: FakeProcess, client: MediaClient) -> None:
    heard: list[Any] = []
    client.watch("CA1", heard.append)
    body = msgspec.msgpack.encode({"t": "levitated", "event": 4, "leg": "CA1"})
    assert process._writer
    process._writer.write(len(body).to_bytes(4, "big") + body)
    process.tell(Digit(leg="CA1", digit="1", event=5))
    await until(lambda: bool(heard))


async def test_without_a_process_there_are_no_slots(tmp_path: Path) -> None:
    client = MediaClient()
    assert not await client.start(str(tmp_path / "none"), wait_s=0.05)
    assert client.take_slot() is None
    await client.close()


def test_it_imports_no_numpy() -> None:
    import subprocess
    import sys

    code = "import sys, trunkline.media.client; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("version", "sent"), [(1, False), (2, True)])
async def test_no_key_is_given_to_a_process_that_would_not_encrypt(
    process: FakeProcess, version: int, sent: bool
) -> None:
    """A process before SRTP says nothing of its version, and would send the audio in the open."""
    process.greeting = [Hello(epoch=9) if version == 1 else Hello(epoch=9, version=version), Ports(slots=[(0, 20_000)])]
    client, heard = MediaClient(), []
    client.watch("a", heard.append)
    keys = protocol.Srtp(suite="AES_CM_128_HMAC_SHA1_80", ours="x", theirs="y")
    client.send(protocol.Open(leg="a", slot=0, codec="PCMU", srtp=keys))
    assert await client.start(process.path)
    client.send(protocol.Modify(leg="a", srtp=keys))
    client.send(protocol.Modify(leg="a"))
    await until(lambda: process.numbered() and process.numbered()[-1][0] == (3 if sent else 1))
    assert [one.what for one in heard if isinstance(one, protocol.Refused)] == ([] if sent else ["open", "open"])
    assert process.commands[0].version == protocol.VERSION
    await client.close()
