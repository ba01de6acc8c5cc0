"""A node starts, refuses to start where it must, and takes up what the last one left."""

import pytest

from trunkline import bootstrap
from trunkline.accounts.directory import create_account
from trunkline.messaging.outbound import NewMessage
from trunkline.model.clock import SystemClock
from trunkline.model.message import Status
from trunkline.settings import Data, Loopback, Settings, Smpp, SmppServer
from trunkline.settings.kinds import Secret

OURS, THEM = "+12025550142", "+14155550199"


def settings(tmp_path, **changes):
    return Settings(**({"data": Data(path=str(tmp_path)), "connectors": (Loopback(name="air", delay_s=0),)} | changes))


async def account_of(own):
    database = bootstrap.open_database(own)
    account = await create_account(database, SystemClock(), "one")
    await database.close()
    return account


async def test_second_server_on_the_same_data_is_refused(tmp_path):
    node = bootstrap.Node(settings(tmp_path))
    with pytest.raises(bootstrap.CannotStart, match="another server"):
        bootstrap.Node(settings(tmp_path))
    await node.start()
    await node.stop()
    again = bootstrap.Node(settings(tmp_path))
    await again.start()
    await again.stop()


async def test_what_waited_goes_out_after_a_restart(tmp_path):
    silent = Smpp(name="air", host="127.0.0.1", port=1, system_id="x", password=Secret("x"))
    first = settings(tmp_path, connectors=(silent,))
    account = await account_of(first)
    node = bootstrap.Node(first)
    await node.start()
    message, written = node.outbound.accept(NewMessage(account_sid=account.sid, from_="BRAND", to=THEM, body="hi"))
    await written
    await node.stop()

    node = bootstrap.Node(settings(tmp_path))
    await node.start()
    for _ in range(500):
        found = await node.reader.get(account.sid, message.sid)
        if found.status == Status.DELIVERED:
            break
        await bootstrap.asyncio.sleep(0.01)
    await node.stop()
    assert (found.status, found.body) == ("delivered", "hi")


async def test_busy_smpp_port_is_told_in_one_line(tmp_path):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        node = bootstrap.Node(settings(tmp_path, smpp_server=SmppServer(enabled=True, port=port)))
        with pytest.raises(bootstrap.CannotStart, match="smpp_server"):
            await node.start()
        await node.stop()


def test_data_folder_is_the_owners_alone(tmp_path):
    folder = bootstrap.data_folder(settings(tmp_path / "new"))
    assert folder.stat().st_mode & 0o077 == 0


async def test_without_room_it_is_not_ready_and_refuses(tmp_path):
    node = bootstrap.Node(settings(tmp_path, data=Data(path=str(tmp_path), min_free_bytes=1 << 40)))
    node.disk = bootstrap.DiskWatch(tmp_path, 1 << 40, node.outbound, lambda folder: 5)
    await node.start()
    ready = await node.metrics.mounts()["/readyz"](None)
    await node.stop()
    assert ready.status == 503
    assert b"data.min_free_bytes" in ready.body
