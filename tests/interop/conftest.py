"""What the tests against other makers' software share."""

import asyncio
import os
import shutil
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.interop.switch import Peers, Switch
from tests.listeners.conftest import make_node, node  # noqa: F401  (fixtures)
from tests.messaging.conftest import make_world, secrets  # noqa: F401  (fixtures)


def program(name, package):
    """The path of a program; without it the test fails in CI and is skipped elsewhere."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if path is None:
        text = f"{name} is missing: scripts/test-setup.sh installs the Debian package {package}"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return path


class HttpSink:
    """Answers every request with 200 and keeps its path and query, whose octets are told as Latin-1."""

    def __init__(self):
        self.got = []
        self._changed = asyncio.Event()

    async def start(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader, writer):
        try:
            while line := await reader.readline():
                while (await reader.readline()).strip():
                    pass
                target = urlsplit(line.split(b" ")[1].decode("latin-1"))
                query = parse_qs(target.query, keep_blank_values=True, encoding="latin-1")
                self.got.append((target.path, {name: values[-1] for name, values in query.items()}))
                self._changed.set()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def until(self, path, count=1, patience_s=15):
        """The queries of `count` requests for a path."""
        async with asyncio.timeout(patience_s):
            while len(found := [query for at, query in self.got if at == path]) < count:
                self._changed.clear()
                await self._changed.wait()
        return found

    async def stop(self):
        self._server.close()
        await self._server.wait_closed()


@pytest.fixture
async def http_sink():
    sink = await HttpSink().start()
    yield sink
    await sink.stop()


@pytest.fixture(scope="session")
def peers():
    """Where the peers of the running server listen."""
    return Peers()


@pytest.fixture(scope="session")
def switch(tmp_path_factory, peers):
    """A whole server with trunks to the peers."""
    running = Switch(tmp_path_factory.mktemp("switch"), peers.trunks())
    try:
        yield running.start()
        assert not running.errors()
    finally:
        running.close()
