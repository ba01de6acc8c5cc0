"""Power loss under load: the data lies on a file system of its own whose unsynced pages are lost with the process.

The file system's image is copied at the moment of the kill. It holds what was synced; what the kernel had not written
out is not in it. The server goes on with the copy. Needs root and loop devices.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.e2e.carrier import Carrier
from tests.e2e.client import Client
from tests.e2e.conftest import make_tenant
from tests.e2e.load import Load
from tests.e2e.server import Server
from tests.e2e.sink import Sink
from tests.e2e.test_kill import SETTINGS, Lab, carrier, check  # noqa: F401 - a fixture

IMAGE_BYTES = 512 * 1024 * 1024
RATE = 300.0
ACCEPTED = 1500
"""Messages accepted before the power goes."""

pytestmark = pytest.mark.slow


def run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


class Disk:
    """A mounted ext4 image."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "disk.img"
        self.folder = folder / "disk"
        self.folder.mkdir()
        with self.image.open("wb") as image:
            image.truncate(IMAGE_BYTES)
        run("mkfs.ext4", "-q", "-F", self.image)
        run("mount", "-o", "loop", self.image, self.folder)

    def lose_power(self) -> None:
        """Go on with what the image holds now."""
        survived = self.image.with_name("survived.img")
        run("cp", "--sparse=always", self.image, survived)
        run("umount", self.folder)
        run("mount", "-o", "loop", survived, self.folder)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.folder)], check=False, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None or not Path("/dev/loop-control").exists():
        pytest.skip("needs root, mkfs.ext4 and loop devices")
    try:
        disk = Disk(tmp_path)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"loop devices cannot be mounted here: {error.stderr.decode()}")
    yield disk
    disk.close()


@pytest.fixture
async def lab(
    tmp_path: Path,
    disk: Disk,
    carrier: Carrier,  # noqa: F811
    session: aiohttp.ClientSession,
    sink: Sink,
) -> AsyncIterator[Lab]:
    settings = {**SETTINGS, "connectors": [carrier.connector(window=10)], "data": {"path": str(disk.folder / "data")}}
    server = Server(tmp_path, settings)
    tenant = await asyncio.to_thread(server.seed, make_tenant)
    await asyncio.to_thread(server.start)
    yield Lab(server, carrier, tenant, Client(session, server, tenant.account), sink)
    await asyncio.to_thread(server.close)


async def test_power_loss_mid_load(lab: Lab, disk: Disk) -> None:
    async with Load(lab.client, lab.tenant, lab.sink, RATE) as load:
        await load.more(ACCEPTED)
        await asyncio.to_thread(lab.server.kill)
        before = dict(load.accepted)
        await asyncio.to_thread(disk.lose_power)
        await asyncio.to_thread(lab.server.start)
        await load.more(ACCEPTED // 3)
    assert len(before) >= ACCEPTED
    await check(lab, load, 1)


async def test_unsynced_pages_are_lost(disk: Disk) -> None:
    """The disk itself: what was never synced is gone, or the test above proves nothing."""
    synced, unsynced = disk.folder / "synced", disk.folder / "unsynced"
    with synced.open("wb") as file:
        file.write(b"x" * 4096)
        file.flush()
        os.fsync(file.fileno())
    unsynced.write_bytes(b"x" * 4096)
    await asyncio.to_thread(disk.lose_power)
    assert synced.read_bytes() == b"x" * 4096
    assert not unsynced.exists() or unsynced.read_bytes() != b"x" * 4096
