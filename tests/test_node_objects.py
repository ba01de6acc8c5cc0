"""A node on shared stores loses its host: another one, with an empty data folder, has all that it had."""

import base64
import shutil

import msgspec
import pytest

from tests.objects import shared_folder
from tests.postgres import needs_postgres
from trunkline import bootstrap
from trunkline.accounts.directory import create_account
from trunkline.messaging.outbound import NewMessage
from trunkline.model.clock import SystemClock
from trunkline.model.sid import new_sid
from trunkline.settings import Data, Loopback, Objects, Security, Settings, Storage
from trunkline.settings.kinds import Secret, Secrets
from trunkline.storage.unavailable import StoreUnavailable

THEM = "+14155550199"
pytestmark = needs_postgres


async def test_the_next_host_has_documents_and_media_of_the_lost_one(tmp_path, postgres):
    location = shared_folder(tmp_path / "shared")
    queue, database = postgres.database(), postgres.database()
    key = Secret(base64.b64encode(b"k" * 32).decode())

    def settings(host):
        return Settings(
            data=Data(path=str(tmp_path / host)),
            connectors=(Loopback(name="air", delay_s=0),),
            storage=Storage(engine="postgres", queue=Secrets([Secret(queue)]), database=Secret(database)),
            objects=Objects(url=location.url),
            security=Security(master_key=key),
        )

    opened = bootstrap.open_database(settings("first"))
    account = await create_account(opened, SystemClock(), "one")
    await opened.close()
    node = bootstrap.Node(settings("first"))
    await node.start()
    message, written = node.outbound.accept(NewMessage(account_sid=account.sid, from_="BRAND", to=THEM, body="hi"))
    await written
    for _ in range(1000):
        if await node.archive.get(account.sid, message.sid) is not None:
            break
        await bootstrap.asyncio.sleep(0.01)
    node.archive.limits = msgspec.structs.replace(node.archive.limits, settle_ms=-60_000)
    assert await node.archive.roll(force=True) == 1
    media = new_sid("ME")
    await node.blobs.put(media, b"picture")
    ready = await node.metrics.mounts()["/readyz"](None)
    assert (ready.status, b'"archive"' in ready.body) == (200, False)
    await node.stop()
    shutil.rmtree(tmp_path / "first")

    node = bootstrap.Node(settings("second"))
    await node.start()
    found = await node.reader.get(account.sid, message.sid)
    assert (found.status, found.body) == ("delivered", "hi")
    assert await node.blobs.get(media) == b"picture"
    (tmp_path / "shared").rename(tmp_path / "gone")
    shutil.rmtree(tmp_path / "second" / "segment-cache")
    (tmp_path / "second" / "segment-cache").mkdir()
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        await node.archive.get(account.sid, message.sid)
    ready = await node.metrics.mounts()["/readyz"](None)
    assert ready.status == 200, "messages are taken all the same"
    assert b"cannot be used" in ready.body
    await node.stop()
