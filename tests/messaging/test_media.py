"""Media of sent messages: fetched after the accept, before the submit; links for carriers of text."""

import asyncio

import pytest

from tests.webhooks.servers import answer, running
from trunkline.messaging.outbound import MEDIA_LANE
from trunkline.model.message import MediaItem
from trunkline.model.numbers import Media
from trunkline.model.sid import new_sid
from trunkline.settings import Limits, Settings, Twilio
from trunkline.storage.blobs import FolderBlobs
from trunkline.storage.unavailable import StoreUnavailable

from .world import AC, Carrier, eventually

PNG = "Content-Type: image/png"


def item(url):
    return MediaItem(sid=new_sid("ME"), content_type="", url=url)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr("trunkline.messaging.media.RETRY_S", 0.01)


async def test_file_is_kept_and_linked(world):
    async with running(lambda request: answer(b"PNG", 200, PNG)) as server:
        url = f"http://127.0.0.1:{server.port}/cat.png"
        message = await world.send("look", media=[item(url)])
        sent = await world.until(message, "sent")
        assert server.requests[0].method == "GET"
    assert sent.sid[:2] == "MM"
    assert sent.body == "look"
    assert sent.text == f"look\n{url}"
    (kept,) = sent.media
    assert (kept.content_type, kept.bytes, kept.url) == ("image/png", 3, url)
    assert await world.blobs.get(kept.sid) == b"PNG"
    record = await world.database.get(Media, kept.sid)
    assert (record.message_sid, record.account_sid, record.source_url) == (message.sid, AC, url)


async def test_message_without_text_is_its_links(world):
    async with running(lambda request: answer(b"PNG", 200, PNG)) as server:
        urls = [f"http://127.0.0.1:{server.port}/{n}.png" for n in range(3)]
        sent = await world.until(await world.send("", media=[item(url) for url in urls]), "sent")
        assert len(server.requests) == 3
    assert (sent.body, sent.text) == ("", "\n".join(urls))
    assert [m.bytes for m in sent.media] == [3, 3, 3]


async def test_carrier_that_takes_media_gets_no_links(make_world):
    own = Twilio(name="carrier", account_sid=AC, auth_token="x")
    world = await make_world(Settings(connectors=(own,)), {"carrier": Carrier()})
    async with running(lambda request: answer(b"PNG", 200, PNG)) as server:
        url = f"http://127.0.0.1:{server.port}/cat.png"
        sent = await world.until(await world.send("look", media=[item(url)]), "sent")
    assert (sent.body, sent.media[0].url) == ("look", url)


@pytest.mark.parametrize(
    ("response", "code", "requests"),
    [
        (answer(b"no", 404), 11200, 1),
        (answer(b"no", 500), 11200, 3),
        (answer(b"<html>", 200, "Content-Type: text/html"), 12300, 1),
        (answer(b"x", 200), 12300, 1),
        (answer(b"", 200, PNG), 11770, 1),
        (answer(b"x" * 2000, 200, PNG), 11751, 1),
    ],
)
async def test_file_that_cannot_be_had_fails_the_message(make_world, response, code, requests):
    world = await make_world(Settings(limits=Limits(media_bytes=1024)))
    async with running(lambda request: response) as server:
        message = await world.send(
            media=[item(f"http://127.0.0.1:{server.port}/x")], status_callback="http://127.0.0.1:9/s"
        )
        failed = await world.until(message, "failed")
        assert len(server.requests) == requests
    assert failed.error_code == code
    assert await world.alert_codes() == [code]
    assert world.carriers["carrier"].taken == []
    assert len(world.delivered) == 1
    assert world.outbound.waiting == {}


async def test_without_room_for_media_the_message_fails_and_text_still_goes(world):
    world.files._blobs = FolderBlobs(world.folder / "small", max_total_bytes=5)
    async with running(lambda request: answer(b"PNG", 200, PNG)) as server:
        url = f"http://127.0.0.1:{server.port}/x"
        await world.until(await world.send(media=[item(url)]), "sent")
        failed = await world.until(await world.send(media=[item(url)]), "failed")
    assert failed.error_code == 12400
    assert await world.alert_codes() == [12400]
    await world.until(await world.send("text"), "sent")


async def test_a_message_waits_for_the_store_of_files(world, monkeypatch):
    monkeypatch.setattr("trunkline.messaging.media.STORE_RETRY_S", 0.01)
    put, tries = world.files._blobs.put, []

    async def away(sid, content):
        tries.append(sid)
        if len(tries) < 5:
            raise StoreUnavailable("the object store cannot be used")
        return await put(sid, content)

    monkeypatch.setattr(world.files._blobs, "put", away)
    async with running(lambda request: answer(b"PNG", 200, PNG)) as server:
        await world.until(await world.send(media=[item(f"http://127.0.0.1:{server.port}/x")]), "sent")
    assert len(tries) == 5


async def test_private_addresses_are_not_fetched(world):
    message = await world.send(media=[item("http://169.254.169.254/latest")])
    failed = await world.until(message, "failed")
    assert failed.error_code == 11210


async def test_trouble_that_passes_is_waited_out(world):
    answers = [answer(b"", 503), b"", answer(b"PNG", 200, PNG)]
    async with running(lambda request: answers.pop(0)) as server:
        message = await world.send(media=[item(f"http://127.0.0.1:{server.port}/x")])
        await world.until(message, "sent")


async def test_slow_file_delays_no_other_message_and_survives_a_restart(world):
    gate = asyncio.Event()

    async def handler(request):
        await gate.wait()
        return answer(b"PNG", 200, PNG)

    async with running(handler) as server:
        slow = await world.send(media=[item(f"http://127.0.0.1:{server.port}/x")])
        other = await world.send("text")
        await world.until(other, "sent")
        assert await world.status(slow) == "queued"
        assert [lane.partition("|")[0] for lane, _, _ in await world.queue.lanes()] == [MEDIA_LANE]
        await world.restart()
        gate.set()
        await world.until(slow, "sent")
    assert len([m for m in world.carriers["carrier"].taken if m.sid == slow.sid]) == 1


async def test_canceled_message_is_not_sent_when_its_file_comes(world):
    gate = asyncio.Event()

    async def handler(request):
        await gate.wait()
        return answer(b"PNG", 200, PNG)

    async with running(handler) as server:
        message = await world.send(media=[item(f"http://127.0.0.1:{server.port}/x")])
        await eventually(lambda: server.requests)
        assert await world.outbound.cancel(world.inflight.cached(message.sid))
        gate.set()
        await eventually(lambda: not world.media._busy)
    assert await world.status(message) == "canceled"
    assert world.carriers["carrier"].taken == []
    assert world.outbound.waiting == {}


async def test_more_messages_than_memory_should_hold_all_go(world, monkeypatch):
    monkeypatch.setattr("trunkline.messaging.media.MAX_PREPARING", 4)
    async with running(lambda request: answer(b"PNG", 200, PNG)) as server:
        url = f"http://127.0.0.1:{server.port}/x"
        await world.give_number("+12025550188", messages_per_second=1000.0)
        messages = [await world.send(from_="+12025550188", to=f"+1415555{n:04}", media=[item(url)]) for n in range(20)]
        for message in messages:
            await world.until(message, "sent")
    assert len(world.carriers["carrier"].taken) == 20
